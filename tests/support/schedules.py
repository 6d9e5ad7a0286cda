"""Random requests that have much in common, come at random steps, and leave early: for property tests of the engine."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from stepping import Answer, Engine, prompt_of

from model.sampling_params import SamplingParams

params = st.one_of(
    st.just(SamplingParams(temperature=0.0)),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.7, 1.0, 1.6]),
        top_p=st.sampled_from([1.0, 0.9]),
        top_k=st.sampled_from([0, 20]),
        seed=st.integers(0, 3),
        ignore_eos=st.booleans(),
        repetition_penalty=st.sampled_from([1.0, 1.2]),
        frequency_penalty=st.sampled_from([0.0, 0.7]),
        stop_token_ids=st.sampled_from([(), (1, 2, 3)]),
        min_tokens=st.sampled_from([0, 2]),
    ),
    # Repeats itself, so that drafts are right.
    st.builds(SamplingParams, temperature=st.just(0.0), logit_bias=st.sampled_from([{5: 100.0}, {5: 12.0, 6: 12.0}])),
)


@dataclass(frozen=True)
class Wish:
    """One request. `kind`: generate, score, embed or classify. `leave`: forwards after which it is given up."""

    prompt: list[int]
    shared: int  # tokens at its beginning that others have too
    max_tokens: int
    params: SamplingParams
    kind: str
    adapter: str | None
    after: int  # steps before it comes
    leave: int | None
    logprobs: int | None
    speculate: bool

    @property
    def fields(self) -> dict[str, Any]:
        """What Submit needs beyond prompt, max_tokens and params."""
        fields: dict[str, Any] = {"adapter": self.adapter, "speculate": self.speculate, "logprobs": self.logprobs}
        if self.kind == "score":
            fields |= {"prompt_logprobs": 1, "score_from": self.shared}
        elif self.kind != "generate":
            fields |= {"task": self.kind}
        return fields


@st.composite
def _wish(draw: st.DrawFn, classifiers: tuple[str | None, ...], generators: tuple[str | None, ...]) -> Wish:
    seed, shared = draw(st.sampled_from([(0, 0), (1, 20), (1, 70), (2, 40)]))
    kinds = ["generate"] * 4 + ["score", "embed"] + ["classify"] * bool(classifiers)
    kind = draw(st.sampled_from(kinds))
    own = prompt_of(draw(st.integers(1, 60)), 10 + draw(st.integers(0, 3)))
    return Wish(
        prompt=[*prompt_of(70, seed)[:shared], *own],
        shared=shared,
        max_tokens=draw(st.integers(0, 14)) if kind in ("generate", "score") else 0,
        params=draw(params) if kind in ("generate", "score") else SamplingParams(temperature=0.0),
        kind=kind,
        adapter=draw(st.sampled_from(classifiers if kind == "classify" else generators)),
        after=draw(st.integers(0, 6)),
        leave=draw(st.sampled_from([None, None, None, 0, 1, 5])),
        logprobs=draw(st.sampled_from([None, None, 0, 2])),
        speculate=draw(st.booleans()),
    )


def wishes(
    *,
    most: int = 12,
    classifiers: tuple[str | None, ...] = (),
    generators: tuple[str | None, ...] = (None, None, "one", "two"),
) -> st.SearchStrategy[list[Wish]]:
    """Lists of requests, with adapters of these names for those that classify and for all others."""
    return st.lists(_wish(classifiers, generators), min_size=1, max_size=most)


def play(engine: Engine, schedule: list[Wish]) -> list[tuple[Wish, Answer]]:
    """Run them all to their ends; those that were not given up, with their answers. Checks the engine's integrity."""
    asked: list[tuple[Wish, int]] = []
    leaving: dict[int, int] = {}
    forwards = 0

    def step() -> None:
        nonlocal forwards
        engine.step()
        forwards += 1
        for number, when in list(leaving.items()):
            if when <= forwards:
                engine.cancel(number)
                del leaving[number]

    for wish in schedule:
        for _ in range(wish.after):
            step()
        number = engine.submit(wish.prompt, wish.max_tokens, wish.params, **wish.fields)
        asked.append((wish, number))
        if wish.leave is not None:
            leaving[number] = forwards + wish.leave
        engine.core.check_integrity()
    while leaving:
        step()
    engine.run()
    answers = [(wish, engine.answers[number]) for wish, number in asked]
    for wish, answer in answers:
        assert answer.last is not None or wish.leave is not None, "a request without an end"
    return [(wish, answer) for wish, answer in answers if answer.last is not None]
