"""Models in this process: which one a command means, and the engine that runs it."""

import asyncio
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.adapters import adapters_folder, adapters_to_load, is_adapter_name
from app.engine import Engine, SamplingParams
from app.engine.messages import Delta, EngineError, Grammar
from app.engine.stream import GenerationStream
from app.likelihood import Continuation, mean_logprob
from app.settings import Settings
from cli.screen import busy
from model.errors import ConfigError, HomegrownError
from model.files import read_json
from model.hub import carrier, resolve_model

_GREEDY = SamplingParams(temperature=0.0)
_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Chosen:
    """A model directory, the adapters to load with it (name -> directory), and which of them was asked for by name. `name`: what
    the model is called."""

    name: str
    directory: Path
    adapters: dict[str, str]
    adapter: str | None


def choose(model: str | None, adapter: str | None = None) -> Chosen:
    """What `model` (a name, a directory, or an adapter's directory; None: the bundled one) and `adapter` (one that the model
    carries, or a directory) mean. CheckpointError or ConfigError for what isn't there."""
    if model is not None and (Path(model) / _CONFIG).is_file():
        if adapter is not None:
            raise ConfigError(
                f"adapter: {model} is an adapter already; name its base model, or leave the other one out"
            )
        model, adapter = _base_of(Path(model)), model
    name = model or Settings.model_fields["model"].default
    directory = resolve_model(name)
    called = directory.resolve().name if directory == Path(name) else name
    adapters = adapters_to_load(adapters_folder(None, directory))
    if adapter is None or adapter in adapters:
        return Chosen(called, directory, adapters, adapter)
    path = Path(adapter)
    if not (path / _CONFIG).is_file():
        there = ", ".join(adapters) or "none"
        raise ConfigError(f"adapter: {adapter} is no adapter's directory, and the model carries {there}")
    return Chosen(called, directory, {**adapters, (own := _name_of(path)): str(path)}, own)


def _base_of(adapter: Path) -> str:
    """The model that an adapter is for: the one that carries it, else the one it names."""
    owner = carrier(adapter)
    name = str(owner) if owner else read_json(adapter / _CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"{adapter / _CONFIG}: names no base model; give it with --model, and the adapter with --adapter"
        )
    return name


def _name_of(adapter: Path) -> str:
    """What to call an adapter's directory: `model`, as training leaves it, by the run's."""
    path = adapter.resolve()
    name = path.parent.name if path.name == "model" and is_adapter_name(path.parent.name) else path.name
    return name if is_adapter_name(name) else "adapter"


class LocalEngine(Engine):
    """The offline engine, with what the commands need beyond texts. `spec`: the engine's fields; see Engine."""

    def __init__(self, model: Path, **spec: Any) -> None:
        with busy(f"loading {model.name}"):
            super().__init__(model, **spec)

    def deltas(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        adapter: str | None = None,
        grammar: Grammar | None = None,
    ) -> Generator[Delta]:
        """As `stream`, with each text's tokens, and the finish on the last."""

        async def begin() -> GenerationStream:
            return self._client.generate(prompt, params, max_tokens, stop=stop, adapter=adapter, grammar=grammar)

        async def following(answer: GenerationStream) -> Delta | None:
            return await anext(answer, None)

        answer = self._run(begin())
        try:
            while (delta := self._run(following(answer))) is not None:
                yield delta
        finally:
            if not self._loop.is_closed():  # else the request has ended with the engine
                self._run(answer.aclose())

    def likelihoods(self, continuations: Iterable[Continuation], adapter: str | None = None) -> list[float]:
        """The mean log-probability of each label behind its prompt, which is computed once for labels that share it."""

        async def ask(place: list[int]) -> float:
            prompt, label = pairs[place[0]].prompt, pairs[place[0]].label
            stream = self._client.generate(
                [*prompt, *label], _GREEDY, 0,
                adapter=adapter, prompt_logprobs=0, score_from=len(prompt), speculate=False,
            )  # fmt: skip
            async with stream:
                scored = (await stream.collect()).prompt_logprobs or []
            return mean_logprob([each.logprob for each in scored if each is not None])

        pairs = list(continuations)
        return self._all(ask, [[place] for place in range(len(pairs))], None)

    def arrivals(self, prompts: Sequence[Sequence[int]], n_new: int) -> list[list[float]]:
        """Hand in all prompts at once, and tell when each token of each answer came: seconds since then. Answers have exactly
        `n_new` tokens, none of them drafted."""
        params = SamplingParams(temperature=0.0, ignore_eos=True)

        async def ask(prompt: Sequence[int], begun: float) -> list[float]:
            came: list[float] = []
            async with self._client.generate(prompt, params, n_new, speculate=False) as stream:
                async for delta in stream:
                    came += [time.perf_counter() - begun] * len(delta.tokens)
            return came

        async def together() -> list[list[float]]:
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(prompt, begun)) for prompt in prompts]
            return [task.result() for task in tasks]

        return self._run(together())


@contextmanager
def explained() -> Iterator[None]:
    """What the engine fails with becomes an error for a person."""
    try:
        yield
    except EngineError as error:
        raise HomegrownError(str(error)) from None
