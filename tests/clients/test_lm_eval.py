"""EleutherAI's harness asks the server through its `local-completions`: the figures are those of the model in its own process."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conformance import KEY, MODEL
from serving import ROOT

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval isn't installed")

from lm_eval.tasks import TaskManager  # noqa: E402

from training.evaluate.harness import HarnessModel  # noqa: E402
from training.evaluate.subject import load_subject  # noqa: E402

DIRECTORY = ROOT / "checkpoints" / "homegrown-base"
TASKS = ("api_choice", "api_page", "api_write")
TALE = "the old man looked at a small red house and then walked down to the sea where his boat lay"
WORDS = TALE.split()


def text(seed: int, n: int) -> str:
    return " ".join(WORDS[(seed * 7 + i * i * 5 + i) % len(WORDS)] for i in range(n)).capitalize() + "."


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiple-choice task, one of perplexity (a page within the context) and one of generation, on files of this test."""
    directory = tmp_path_factory.mktemp("tasks")
    choice = [
        {"q": text(i, 9 + 13 * (i % 5)), "a": [" " + text(i + k, 3 + k) for k in range(3)], "y": i % 3}
        for i in range(12)
    ]
    page = [{"page": text(i, 20 + 40 * i) + "\n\nZoë – 日本. " + text(i + 9, 12)} for i in range(4)]
    write = [{"q": text(i, 6 + 30 * i), "y": text(i, 2)} for i in range(4)]
    for name, rows in (("choice", choice), ("page", page), ("write", write)):
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {
        "choice": {
            "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{a}}", "doc_to_target": "{{y}}",
            "target_delimiter": "", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "page": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
        "write": {
            "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{y}}",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    for name, content in files.items():
        data = {"data_files": {"test": str(directory / f"{name}.jsonl")}, "cache_dir": str(directory / "cache")}
        common = {"task": f"api_{name}", "dataset_path": "json", "test_split": "test", "dataset_kwargs": data}
        (directory / f"{name}.yaml").write_text(yaml.dump({**common, **content}))
    return directory


def evaluate(model: Any, tasks: Path, **options: Any) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model=model, tasks=list(TASKS), task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True, bootstrap_iters=0, **options,
    )  # fmt: skip
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"num_concurrent": 4, "batch_size": 3}, {"tokenized_requests": False}],
    ids=["ids", "at once", "text"],
)
def test_the_same_figures_as_in_process(
    base_url: str, tasks: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether prompts come as token ids, as batches at once, or as text."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ours = evaluate(HarnessModel(load_subject(DIRECTORY)), tasks)
    arguments = {
        "model": MODEL, "base_url": f"{base_url}/completions", "tokenizer_backend": "huggingface", "max_length": 512,
        "tokenizer": str(DIRECTORY), "max_retries": 1, **options,
    }  # fmt: skip
    theirs = evaluate("local-completions", tasks, model_args=arguments)
    for task, measures in ours["results"].items():
        for name, value in measures.items():
            if isinstance(value, int | float):
                assert theirs["results"][task][name] == pytest.approx(value, rel=1e-4, abs=1e-4), (task, name)
        answers = [[sample["resps"] for sample in found["samples"][task]] for found in (ours, theirs)]
        for mine, other in zip(*map(_flat, answers), strict=True):
            assert other == (pytest.approx(mine, rel=1e-5, abs=1e-4) if isinstance(mine, float) else mine)
    assert 0 < ours["results"]["api_page"]["bits_per_byte,none"] < 4


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _flat(item)]
    return [value]
