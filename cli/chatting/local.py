"""Answers from a model in this process."""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from app.adapters import classifies
from app.engine import SamplingParams
from app.templates import Templates, tuned_adapter
from cli.chatting.backends import Ended, Sampling, TooLong
from cli.chatting.conversation import Message
from cli.local import Chosen, LocalEngine, choose, explained
from model.errors import HomegrownError
from model.hub import known_models

_TEMPERATURE, _TOP_P = 0.8, 0.95  # as `homegrown generate`


class LocalBackend:
    """A model and the adapters it carries; `use` loads another one when it is asked for something else."""

    def __init__(self, model: str | None, adapter: str | None, spec: dict[str, Any]) -> None:
        """`spec`: fields of the engine's. HomegrownError when the model can't be loaded, or can't talk."""
        self._spec = spec
        self._open(choose(model, adapter))

    def _open(self, chosen: Chosen) -> None:
        base = Templates.of_model(chosen.directory)
        generating = {name: Path(path) for name, path in chosen.adapters.items() if not classifies(Path(path))}
        if chosen.adapter is not None and chosen.adapter not in generating:
            raise HomegrownError(f"{chosen.adapter}: is a classifier, which can't talk; ask it by homegrown classify")
        templates = {name: base.of_adapter(path) for name, path in generating.items()}
        adapters = {name: str(path) for name, path in generating.items()}
        engine = LocalEngine(chosen.directory, max_slots=1, adapters=adapters, **self._spec)
        if engine.info.labels:
            engine.close()
            raise HomegrownError(f"{chosen.name}: is a classifier, which can't talk; ask it by homegrown classify")
        if (old := getattr(self, "_engine", None)) is not None:
            old.close()
        self._engine, self._base, self._of_adapters, self._name = engine, base, templates, chosen.name
        self._adapter = chosen.adapter or tuned_adapter(base, templates)

    @property
    def model(self) -> str:
        """The one that answers: an adapter, or the model itself."""
        return self._adapter or self._name

    def names(self) -> list[str]:
        """Those that are loaded, and the others on this machine."""
        loaded = [self._name, *self._of_adapters]
        return [*loaded, *(name for name in known_models() if name not in loaded and _is_here(name))]

    def use(self, name: str) -> None:
        """One of `names`, or a directory."""
        if name == self._name:
            self._adapter = None
        elif name in self._of_adapters:
            self._adapter = name
        else:
            self._open(choose(name))

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str | Ended]:
        """See Backend."""
        templates = self._base if self._adapter is None else self._of_adapters[self._adapter]
        prompt = templates.chat.encode(messages, self._engine.tokenizer)
        room = self._engine.info.context - len(prompt)
        if room < 1:
            raise TooLong(
                f"The conversation has {len(prompt):,} tokens, and {self.model} reads {self._engine.info.context:,}."
            )
        params = SamplingParams(
            temperature=_TEMPERATURE if sampling.temperature is None else sampling.temperature,
            top_p=_TOP_P if sampling.top_p is None else sampling.top_p,
            seed=sampling.seed,
        )
        deltas = self._engine.deltas(
            prompt, params, max_tokens=min(room, sampling.max_tokens or room), stop=templates.chat.stops,
            adapter=self._adapter,
        )  # fmt: skip
        with explained(), contextlib.closing(deltas):
            for delta in deltas:
                if delta.text:
                    yield delta.text
                if (finish := delta.finish) is not None:
                    yield Ended(finish.reason, finish.prompt_tokens, finish.completion_tokens)

    def close(self) -> None:
        """End the engine."""
        self._engine.close()


def _is_here(name: str) -> bool:
    """Whether a model's weights are on this machine, so that it can be used at once."""
    from model.hub import resolve_model

    try:
        resolve_model(name)
    except HomegrownError:
        return False
    return True
