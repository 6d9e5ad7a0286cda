"""The lm-eval harness gives our adapter the figures that it gives its own Hugging Face model, on tasks of a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from model.errors import ConfigError, HomegrownError  # noqa: E402
from training.evaluate.harness import HarnessModel, evaluate_harness  # noqa: E402
from training.evaluate.subject import Options, load_subject  # noqa: E402

TALE = "the old man looked at a small red house and then walked down to the sea where his boat lay in green water"
WORDS = TALE.split()
LIMIT = 128  # the tiny models' context


def text(seed: int, n: int) -> str:
    return " ".join(WORDS[(seed * 7 + i * i * 5 + i) % len(WORDS)] for i in range(n)).capitalize() + "."


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task (one context longer than the model's), a perplexity task with long texts, a generation task."""
    directory = tmp_path_factory.mktemp("tasks")
    choice = [
        {"q": text(i, 9 + 13 * (i % 5) + 150 * (i == 7)), "a": [text(i + k, 3 + k) for k in range(3)], "y": i % 3}
        for i in range(12)
    ]
    long = [{"page": text(i, 20 + 90 * i) + "\n\n" + text(i + 9, 12)} for i in range(4)]
    write = [{"q": text(i, 6 + 40 * i), "y": text(i, 2)} for i in range(4)]
    for name, rows in (("choice", choice), ("long", long), ("write", write)):
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common: dict[str, Any] = {"dataset_path": "json", "test_split": "test"}
    files = {
        "hg_choice": {
            "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{a}}", "doc_to_target": "{{y}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "hg_long": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
        "hg_write": {
            "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{y}}",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    for name, content in files.items():
        file = str(directory / f"{name.removeprefix('hg_')}.jsonl")
        data = {
            "data_files": {"test": file},
            "cache_dir": str(directory / "cache"),
        }  # nothing is left in the user's cache
        (directory / f"{name}.yaml").write_text(yaml.dump({"task": name, "dataset_kwargs": data, **common, **content}))
    return directory


def run(model: Any, tasks: Path) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model=model, tasks=["hg_choice", "hg_long", "hg_write"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True, bootstrap_iters=0,
    )  # fmt: skip
    assert found is not None
    return found


def numbers(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [value]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_same_figures_as_the_harness_own_model(
    architecture: str, request: pytest.FixtureRequest, tasks: Path
) -> None:
    directory: Path = request.getfixturevalue(f"tiny_{architecture}_dir")
    theirs = run(HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=1), tasks)
    ours = run(HarnessModel(load_subject(directory, batch_tokens=300)), tasks)
    for task, measures in theirs["results"].items():
        for name, value in measures.items():
            if isinstance(value, int | float):
                assert ours["results"][task][name] == pytest.approx(value, rel=1e-4, abs=1e-4), (task, name)
        answers = [[sample["resps"] for sample in found["samples"][task]] for found in (ours, theirs)]
        for mine, other in zip(*map(numbers, answers), strict=True):
            assert mine == (pytest.approx(other, rel=1e-5, abs=1e-4) if isinstance(other, float) else other)
    assert 0 < theirs["results"]["hg_long"]["bits_per_byte,none"] < 100


@pytest.fixture(scope="module")
def ours(tiny_gpt2_dir: Path) -> HarnessModel:
    return HarnessModel(load_subject(tiny_gpt2_dir))


def likelihood(model: HarnessModel | HFLM, context: str, continuation: str) -> tuple[float, bool]:
    asked = Instance("loglikelihood", {}, (context, continuation), 0)
    return model.loglikelihood([asked])[0]


@pytest.mark.parametrize(("context", "continuation"), [
    ("", "The sea."), ("The sea ", "is green"), ("He said <|endoftext|> and", " left"), ("Caf", "é — 日本"),
])  # fmt: skip
def test_odd_pairs_are_cut_as_the_harness_cuts_them(
    ours: HarnessModel, tiny_gpt2_dir: Path, context: str, continuation: str
) -> None:
    theirs = HFLM(pretrained=str(tiny_gpt2_dir), device="cpu", dtype="float32", batch_size=1)
    total, exact = likelihood(theirs, context, continuation)
    assert likelihood(ours, context, continuation) == (pytest.approx(total, abs=1e-4), exact)


def test_sampling_repeats_itself_and_differs_from_greedy(ours: HarnessModel) -> None:
    def write(**kwargs: Any) -> str:
        return ours.generate_until([Instance("generate_until", {}, ("The sea", {"max_gen_toks": 20, **kwargs}), 0)])[0]

    assert write(do_sample=True, temperature=1.0) == write(temperature=1.0) != write(temperature=1.0, do_sample=False)
    assert write() == write(do_sample=False)
    assert write(until=[" "]) == write().partition(" ")[0]


def test_too_many_new_tokens_for_the_context(ours: HarnessModel) -> None:
    with pytest.raises(ConfigError, match="128"):
        ours.generate_until([Instance("generate_until", {}, ("The sea", {"max_gen_toks": LIMIT}), 0)])


def test_tasks_become_figures_with_intervals(tiny_gpt2_dir: Path, tasks: Path) -> None:
    result = evaluate_harness(load_subject(tiny_gpt2_dir), "hg_choice", Options(tasks=tasks, limit=5))
    figure = result.figure("hg_choice acc")
    assert (result.items, result.total) == (5, 12)
    assert figure.low is not None
    assert figure.low <= figure.value <= (figure.high or 0)
    assert "0-shot" in figure.convention


@pytest.mark.slow  # reads the harness's own ten thousand task files
def test_an_unknown_task_is_named(tiny_gpt2_dir: Path, tasks: Path) -> None:
    with pytest.raises(HomegrownError, match="hg_none"):
        evaluate_harness(load_subject(tiny_gpt2_dir), "hg_none", Options(tasks=tasks))
