"""The measuring side on a tiny model, without processes: every figure is there, and of the right calls."""

from pathlib import Path

import pytest

from benchmarks.peers import SETTINGS, Job, loads, models, worker


@pytest.fixture(scope="module")
def directory(tiny_models: Path) -> Path:
    models.write_adapters(tiny_models, loads.ADAPTERS, 2)
    return tiny_models


def job(directory: Path, **changes: object) -> Job:
    fields = {
        "setting": "ours:float32", "task": "measure", "models": str(directory), "threads": 1, "streams": (1, 3), "new_tokens": 3,
        "context": 64, "repeats": 1, "foreign_limit": 99.0, "backend": "torch",
    }  # fmt: skip
    return Job(**fields | changes)  # type: ignore[arg-type]


class Counting:
    """An engine that only notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], int]] = []
        self.prompts: list[tuple[int, ...]] = []

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        self.calls.append((tuple(len(prompt) for prompt in prompts), n_new))
        self.prompts += [tuple(prompt) for prompt in prompts]
        return [[0] * n_new for _ in prompts]

    def about(self) -> dict[str, object]:
        return {}


def test_jobs_travel() -> None:
    one = job(Path("x"))
    assert Job.from_json(one.to_json()) == one


def test_figures_come_from_the_calls_they_are_named_after(directory: Path) -> None:
    engine = Counting()
    result = worker.measure(
        job(directory, setting="bare:float32", context=1024, new_tokens=64, streams=(1, 8, 32)), engine
    )
    for call in [((512,), 1), ((128,), 1), ((128,), 65), ((64,) * 8, 65), ((64,) * 32, 65), ((64,) * 32, 1)]:
        assert call in engine.calls
    assert len(set(engine.prompts)) == len(engine.prompts), "a prompt that occurs twice lets a prefix cache shine"
    # An engine that needs no time has no rate: the difference of two calls can be nothing or less.
    assert {"start", "first", "prefill", "memory"} <= set(result["figures"])
    assert len(result["answers"]) == worker.AGREEMENT[0]


def test_other_rounds_have_other_prompts() -> None:
    prompts = [worker.Prompts(seed, 50257)(4, 8) for seed in (0, 0, 1)]
    assert prompts[0] == prompts[1]
    assert not {tuple(p) for p in prompts[0]} & {tuple(p) for p in prompts[2]}


@pytest.mark.parametrize("setting", ["ours:float32", "bare:float32"])
def test_our_engine(directory: Path, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.setattr(loads, "REQUESTS", 6)
    parts = ("first", "prefill", "decode", "mixed", "gaps", "adapters", "speculation")
    one = job(directory, setting=setting, parts=parts)
    engine = importlib.import_module(f"benchmarks.peers.{SETTINGS[setting].engine}").load(one)
    try:
        result = worker.measure(one, engine)
    finally:
        engine.close()
    figures = result["figures"]
    assert {"first", "prefill", "memory", "start"} <= set(figures)
    assert all(figure["value"] > 0 for figure in figures.values())
    count, _, n_new = worker.AGREEMENT
    assert [len(answer) for answer in result["answers"]] == [n_new] * count
    if setting == "ours:float32":
        assert result["about"]["cached_tokens"] == 0
        assert set(result["loads"]) == {"mixed", "gaps", "adapters", "speculation"}
        assert result["loads"]["mixed"]["ratio"] > 0
        assert result["loads"]["mixed"]["new_tokens"] > 0
        assert result["loads"]["gaps"]["median_1"] > 0


def test_both_of_ours_give_the_same_answers(directory: Path) -> None:
    from benchmarks.peers import bare, ours

    prompts = worker.Prompts(0, 50257)(3, 9)
    whole, alone = ours.Ours(job(directory)), bare.Bare(job(directory, setting="bare:float32"))
    assert whole.generate(prompts, 4) == alone.generate(prompts, 4)
    whole.close()
    alone.close()
