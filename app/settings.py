"""All settings of the service: command line > environment (HOMEGROWN_*) > TOML file > default."""

import difflib
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.http.keys import check_key
from model.errors import ConfigError

ENV_PREFIX = "HOMEGROWN_"


class Settings(BaseSettings):
    """What `homegrown serve` can be told. Made by `load_settings`; immutable.

    A field's name is its TOML key; `--max-slots` and HOMEGROWN_MAX_SLOTS are the flag and the variable of `max_slots`.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    model: str = Field(
        "homegrown-base",
        min_length=1,
        description="The model to serve: a bundled or pulled model's name, a model directory, or a Hub id.",
    )
    adapters_dir: Path | None = Field(
        None,
        description="Folder with a LoRA adapter (PEFT's layout) in each directory: all are loaded at the start under their "
        "directories' names, and only from here requests can load more. By default the folder `adapters` in the model's "
        "directory, if there is one; an empty folder means none.",
    )
    chat_model: str | None = Field(
        None,
        min_length=1,
        description="Which model answers conversations and instructions that name none: the model, an adapter or an alias. By "
        "default, and while that adapter is unloaded: the model if it has prompt templates of its own, else the one adapter "
        "that has, else the model.",
    )
    aliases: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="More names for models, as NAME=MODEL, comma-separated: what requests may ask for in MODEL's place.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None,
        description="Key that clients send as 'Authorization: Bearer KEY', or several, comma-separated; without one "
        "everybody may ask.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with more such keys, one a line; read again when it changes, and on SIGHUP.",
    )
    insecure: bool = Field(False, description="Allow listening beyond this machine without an API key.")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="Web origins whose pages may call this server, comma-separated; * for all."
    )
    body_limit: int = Field(1 << 20, ge=1024, description="Largest request body, in bytes.")

    max_slots: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Requests that run at once; by default what fits into 1 GiB of KV cache, 4 to 32.",
    )
    max_queue: int = Field(128, ge=0, description="Requests that may wait for a slot; more get status 429.")
    max_queue_wait: float = Field(60.0, gt=0, allow_inf_nan=False, description="Longest wait for a slot, in seconds.")
    request_timeout: float = Field(
        600.0, gt=0, allow_inf_nan=False, description="Longest life of a request, its wait included, in seconds."
    )
    drain_timeout: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="How long running requests may go on after SIGTERM, in seconds."
    )

    context: int | None = Field(
        None, ge=1, description="Positions per slot, prompt and answer together; by default the model's."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the weights; auto: bfloat16 on a GPU, and on a CPU that computes in it when the "
        "model is stored in 16 bits; else float32.",
    )
    quantize: Literal["auto", "none", "int8", "int4"] = Field(
        "auto",
        description="Weights in 8 or 4 bits: less memory and more speed for a little accuracy; auto: none.",
    )
    backend: Literal["auto", "native", "torch"] = Field(
        "auto", description="What computes: our compiled kernels (CPU) or PyTorch; auto takes the kernels on a CPU."
    )
    speculate: bool = Field(
        True, description="Draft tokens by looking them up in the prompt and check them together; answers don't change."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto takes a GPU if there is one."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Compute threads of the engine; by default as many as processors, or one less for a small model or PyTorch.",
    )
    prefill_chunk: int = Field(
        512,
        ge=1,
        description="Most prompt tokens computed in one step; beside running streams the engine takes as many as they can bear.",
    )
    deterministic: bool = Field(
        False,
        description="Make every answer bit for bit independent of what else runs; slower when requests share steps.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or a JSON object a line.")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        return [part.strip() for part in parts if part.strip()] if isinstance(parts, list | tuple) else parts

    @field_validator("aliases", mode="before")
    @classmethod
    def _split_aliases(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be NAME=MODEL, comma-separated")
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("must not have a name twice")
        return {name.strip(): model.strip() for name, _, model in pairs}

    @field_validator("aliases")
    @classmethod
    def _check_aliases(cls, value: dict[str, str]) -> dict[str, str]:
        for name in (*value, *value.values()):
            if not name or len(name) > 256 or not name.isprintable() or name != name.strip():
                raise ValueError("must be NAME=MODEL, each of 1 to 256 printable characters")
        return value

    @field_validator("api_key")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            keys = _split_keys(value)
            for key in keys or [""]:
                check_key(key)
        return value

    @model_validator(mode="after")
    def _refuse_open_door(self) -> "Settings":
        if not self.locked and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines and no api_key is set: "
                "set one, or allow it with insecure"
            )
        return self

    @property
    def locked(self) -> bool:
        """Whether clients need an API key."""
        return self.api_key is not None or self.api_keys_file is not None

    @property
    def api_keys(self) -> list[str]:
        """The keys of api_key."""
        return [] if self.api_key is None else _split_keys(self.api_key)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        **_: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: `load_settings` merges the sources, so that an error can name its own."""
        return (init_settings,)


def load_settings(overrides: Mapping[str, Any] | None = None, config_file: Path | None = None) -> Settings:
    """The effective settings. `overrides` (the command line's; None values are unset) win over the environment, and that
    over `config_file` (TOML). Raises ConfigError: one line that names the field and where its value came from."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    environment = EnvSettingsSource(Settings)()
    file = _read_toml(config_file) if config_file is not None else {}
    try:
        return Settings(**{**file, **environment, **given})
    except ValidationError as error:
        raise ConfigError(_explain(error, given, environment, config_file)) from None


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone. A name other than localhost counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split_keys(value: SecretStr) -> list[str]:
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    for key in content:
        if key not in Settings.model_fields:
            near = difflib.get_close_matches(key, Settings.model_fields, n=3)
            names = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(Settings.model_fields)}"
            raise ConfigError(f"{path}: unknown setting {key!r}; {names}")
    return content


def _explain(
    error: ValidationError, given: Mapping[str, Any], environment: Mapping[str, Any], config_file: Path | None
) -> str:
    """The first mistake as one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    field = str(first["loc"][0])
    if field in given:
        source = f"--{field.replace('_', '-')}"
    elif field in environment:
        source = f"{ENV_PREFIX}{field.upper()}"
    else:
        source = f"{config_file}: {field}"
    if field == "api_key":  # never shown
        return f"{source}: {message}"
    return f"{source}: {message[:1].lower()}{message[1:]}, not {first['input']!r}"
