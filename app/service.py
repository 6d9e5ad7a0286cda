"""What the routes share: the engine, the models that requests can name, and the road from a text to its answers."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TypeVar

from app.adapters import adapters_folder, classifies
from app.engine.client import EngineClient
from app.engine.messages import Grammar, InvalidRequest
from app.engine.stream import GenerationStream
from app.http.errors import ApiError, invalid
from app.http.keys import ApiKeys
from app.http.middleware import Gate
from app.likelihood import BiasCache
from app.metrics import Metrics
from app.retry import retry_seconds
from app.schemas.common import SamplingFields
from app.settings import Settings
from app.templates import Templates, tuned_adapter
from model.architectures import read_config
from model.errors import ConfigError, TokenizerError
from model.sampling_params import derive_seed

T = TypeVar("T")

# Longer texts are tokenised on a thread: the event loop must go on serving everybody else.
_LONG_TEXT = 4096


@dataclasses.dataclass(frozen=True)
class Target:
    """A model that a request can name: the base, an adapter on it, or an alias of either. `labels`: what it tells apart when it
    classifies."""

    name: str
    adapter: str | None = None
    labels: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def classifies(self) -> bool:
        """Whether it gives labels, and no text."""
        return bool(self.labels)


class Service:
    """One per app; routes find it as `request.app.state.service`."""

    def __init__(self, settings: Settings, engine: EngineClient) -> None:
        """Raises CheckpointError for a directory without a usable config.json, ConfigError for an impossible context,
        names that mean nothing or too much, PromptError or TokenizerError for templates that can't be read."""
        self.settings = settings
        self.engine = engine
        self.label_biases = BiasCache()
        self.gate = Gate()
        self.directory = Path(engine.spec.model)
        self.adapters_folder = adapters_folder(settings.adapters_dir, self.directory)
        self.config = read_config(self.directory)
        if self.context > self.config.context_length:
            raise ConfigError(f"context: the model has {self.config.context_length} positions, not {self.context}")
        self.created = int((self.directory / "config.json").stat().st_mtime)
        # Read now, though they may never be used: a template that is broken is to be told at the start.
        self._templates: dict[str | None, Templates] = {None: Templates.of_model(self.directory)}
        for name, path in engine.spec.adapters.items():
            self.read_templates(name, Path(path))
        # A directory is called by its name: its path is nobody else's business.
        directory = self.directory
        self.model_name = directory.resolve().name if directory == Path(settings.model) else settings.model
        self._check_names()
        self.keys = ApiKeys(settings.api_keys, settings.api_keys_file) if settings.locked else None
        facts = {"model": self.model_name, "architecture": self.config.architecture}
        self.metrics = engine.observer = Metrics(engine, facts)
        self._began = time.monotonic()

    def _check_names(self) -> None:
        """ConfigError unless every adapter and every alias has a name of its own, and every alias means something."""
        adapters, aliases = self.engine.spec.adapters, self.settings.aliases
        if self.model_name in adapters:
            raise ConfigError(
                f"adapters_dir: {self.model_name} is the model's own name; rename the adapter's directory"
            )
        for name, model in aliases.items():
            if name == self.model_name or name in adapters:
                raise ConfigError(f"aliases: {name} is a model's own name; choose another")
            if model != self.model_name and model not in adapters:
                there = ", ".join(sorted({self.model_name, *adapters}))
                raise ConfigError(f"aliases: {name} means {model}, which is not here; the models are: {there}")
        chosen = self.settings.chat_model
        if chosen is not None:
            self._check_chat_model(chosen, {self.model_name, *adapters, *aliases})

    def _check_chat_model(self, chosen: str, there: Set[str]) -> None:
        """ConfigError unless it is one of those and generates."""
        if chosen not in there:
            raise ConfigError(f"chat_model: {chosen} is not here; the models are: {', '.join(sorted(there))}")
        path = self.engine.spec.adapters.get(self.settings.aliases.get(chosen, chosen))
        if self.config.labels or (path is not None and classifies(Path(path))):
            raise ConfigError(f"chat_model: {chosen} is a classifier, which can't generate; choose a model that does")

    def templates(self, target: Target) -> Templates:
        """The prompt templates of a model: an adapter's may differ from its base's."""
        return self._templates.get(target.adapter, self._templates[None])

    def read_templates(self, adapter: str, directory: Path) -> None:
        """Take an adapter's templates from its directory. PromptError or TokenizerError names the file that can't be read."""
        self._templates[adapter] = self._templates[None].of_adapter(directory)

    def retry_after(self, code: str | None) -> int:
        """Seconds until it is worth while to ask again after an error with this code."""
        return retry_seconds(
            code,
            self.engine.status,
            slot_seconds=self.metrics.slot_seconds,
            startup_seconds=self.metrics.startup_seconds,
            age=self.uptime,
        )

    @property
    def uptime(self) -> float:
        """Seconds since the server's start."""
        return time.monotonic() - self._began

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.settings.context or self.config.context_length

    @property
    def targets(self) -> dict[str, Target]:
        """The models that requests can name now."""
        base = Target(self.model_name, labels=tuple(self.config.labels or ()))
        adapters = {
            name: Target(name, name, tuple(labels), self.model_name) for name, labels in self.engine.adapters.items()
        }
        named = {base.name: base, **adapters}
        aliases = {
            name: dataclasses.replace(named[model], name=name, parent=model)
            for name, model in self.settings.aliases.items()
            if model in named  # an adapter may have been unloaded
        }
        # The model first: many a client takes the first that is listed.
        return named | {name: target for name, target in aliases.items() if name not in named}

    @property
    def classifiers(self) -> list[str]:
        """Names of the adapters that classify now."""
        return sorted(name for name, labels in self.engine.adapters.items() if labels)

    @property
    def chat_model(self) -> str:
        """Name of the model that answers conversations and instructions where a request names none."""
        chosen, there = self.settings.chat_model, self.engine.adapters
        if chosen is not None and chosen in self.targets:
            return chosen
        base = self._templates[None]
        generating = {name: self._templates.get(name, base) for name, labels in there.items() if not labels}
        return tuned_adapter(base, generating) or self.model_name

    def resolve_model(self, name: str | None) -> Target:
        """The model that a request means. ApiError 404, which lists the names there are."""
        targets = self.targets
        target = targets.get(self.model_name if name is None else name)
        if target is not None:
            return target
        raise ApiError(
            404,
            f"There is no model {str(name)[:100]!r} here; the models are: {', '.join(sorted(targets))}",
            code="model_not_found",
            param="model",
        )

    def resolve_generator(self, name: str | None) -> Target:
        """The same for a request that wants text. ApiError 400 when the model classifies."""
        target = self.resolve_model(name)
        if target.classifies:
            raise invalid(f"model: {target.name} is a classifier, which can't generate; ask /classify", "model")
        return target

    async def off_loop(self, work: Callable[[], T], size: int) -> T:
        """`work()`, on a thread when it has a text of more than a few thousand characters (`size`) to read."""
        return await asyncio.to_thread(work) if size > _LONG_TEXT else work()

    async def encode_prompt(self, text: str, param: str = "prompt") -> list[int]:
        """Token ids of a raw prompt; never empty. ApiError 400 for an empty text that this model can't begin with."""
        encode = self.engine.tokenizer.encode_prompt
        try:
            return await self.off_loop(lambda: encode(text), len(text))
        except TokenizerError as error:
            raise invalid(f"{param}: {error}", param) from None

    def room(self, prompt: Sequence[int], asked: int | None, default: int | None) -> int:
        """max_tokens of a request that asked for `asked`: what it asked, else `default` or what the context has left, whichever
        is less. (No room at all is refused by the engine: one token too many.)"""
        if asked is not None:
            return asked
        room = max(self.engine.info.context - len(prompt), 1)
        return room if default is None else min(default, room)

    def begin(
        self,
        prompts: Sequence[Sequence[int]],
        fields: SamplingFields,
        *,
        target: Target,
        max_tokens: int | None,
        default_tokens: int | None,
        n: int = 1,
        stops: Sequence[str] = (),
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        score_from: int = 0,
        grammar: Grammar | None = None,
    ) -> list[GenerationStream]:
        """Hand in `n` answers to each prompt; stream prompt * n + j is the prompt's choice j. `stops` are added to the
        request's own. All or nothing: where one is refused the others are taken back, and its error is raised.

        Raises what EngineClient.generate does, before any work where it can; ApiError 400 for more than can ever wait.
        """
        self.engine.check_available()
        most = self.engine.info.slots + self.engine.limits.max_queue
        if len(prompts) * n > most:
            raise invalid(
                f"n: {len(prompts)} prompts x {n} choices are more than the {most} that can run and wait", "n"
            )
        params = fields.sampling_params()
        # Each is checked as it is made, and may have a bias for every token there is.
        drawn = [params] * n
        if params.seed is not None:
            drawn = [dataclasses.replace(params, seed=derive_seed(params.seed, choice)) for choice in range(n)]
        streams: list[GenerationStream] = []
        try:
            for prompt in prompts:
                tokens = self.room(prompt, max_tokens, default_tokens)
                for choice in drawn:
                    streams.append(
                        self.engine.generate(
                            prompt, choice, tokens, stop=[*fields.stops, *stops], adapter=target.adapter,
                            logprobs=logprobs, prompt_logprobs=prompt_logprobs, score_from=score_from, grammar=grammar,
                        )
                    )  # fmt: skip
        except BaseException as error:
            for stream in streams:
                stream.fail(error, cause=error.__cause__)
            if isinstance(error, InvalidRequest) and error.param == "adapter":
                raise invalid(str(error), "model") from None
            raise
        return streams
