"""What the routes share: the engine, the served model's name and facts, and the road from a text to its token ids."""

import asyncio
from pathlib import Path

from app.engine.client import EngineClient
from app.engine.stream import GenerationStream
from app.http.errors import ApiError
from app.http.middleware import Gate
from app.schemas.common import SamplingFields
from app.settings import Settings
from model.architectures import read_config
from model.errors import ConfigError, TokenizerError

# Longer texts are tokenised on a thread: the event loop must go on serving everybody else.
_LONG_TEXT = 4096


class Service:
    """One per app; routes find it as `request.app.state.service`."""

    def __init__(self, settings: Settings, engine: EngineClient) -> None:
        """Raises CheckpointError for a directory without a usable config.json, ConfigError for an impossible context."""
        self.settings = settings
        self.engine = engine
        self.gate = Gate()
        directory = Path(engine.spec.model)
        self.config = read_config(directory)
        if self.context > self.config.context_length:
            raise ConfigError(f"context: the model has {self.config.context_length} positions, not {self.context}")
        self.created = int((directory / "config.json").stat().st_mtime)
        # A directory is called by its name: its path is nobody else's business.
        self.model_name = directory.resolve().name if directory == Path(settings.model) else settings.model

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.settings.context or self.config.context_length

    def resolve_model(self, name: str | None) -> str:
        """The served model that a request means. ApiError 404, which lists the names there are."""
        if name is None or name == self.model_name:
            return self.model_name
        raise ApiError(
            404,
            f"There is no model {name[:100]!r} here; the models are: {self.model_name}",
            code="model_not_found",
            param="model",
        )

    async def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a raw prompt; never empty. ApiError 400 for an empty text that this model can't begin with."""
        encode = self.engine.tokenizer.encode_prompt
        try:
            return await asyncio.to_thread(encode, text) if len(text) > _LONG_TEXT else encode(text)
        except TokenizerError as error:
            raise ApiError(400, f"prompt: {error}", param="prompt", code="invalid_value") from None

    async def generate(
        self, prompt: str, fields: SamplingFields, *, max_tokens: int | None, default_tokens: int, logprobs: int | None
    ) -> GenerationStream:
        """Begin to continue `prompt`. Without `max_tokens`, up to `default_tokens` or to the end of the context.

        Raises what EngineClient.generate does, before any work where it can.
        """
        self.engine.check_available()
        params = fields.sampling_params()
        ids = await self.encode_prompt(prompt)
        if max_tokens is None:
            room = self.engine.info.context - len(ids)
            max_tokens = min(default_tokens, max(room, 1))  # no room at all: refused below, for one token too many
        return self.engine.generate(ids, params, max_tokens, stop=fields.stops, logprobs=logprobs)
