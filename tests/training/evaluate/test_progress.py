"""Work that takes long shows how far it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import random_model, tiny_config

from model.checkpoint import save_model
from model.tokenizer import Tokenizer
from training.evaluate.answers import evaluate_answers
from training.evaluate.classify import evaluate_classifier
from training.evaluate.subject import Options, load_subject


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """What each bar was called, how far it was to go, and how far it went."""
    seen: dict[str, tuple[int, int]] = {}

    class Bar:
        def __init__(self, *, total: int, desc: str, **_: Any) -> None:
            self._desc = desc
            seen[desc] = (total, 0)

        def update(self, more: int) -> None:
            total, done = seen[self._desc]
            seen[self._desc] = (total, done + more)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("training.evaluate.scoring.tqdm", Bar)
    return seen


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_classifier(bars: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    save_model(random_model(tiny_config("llama", labels=("bad", "good"), pad_token_id=0)), tmp_path / "model")
    Tokenizer.gpt2().save(tmp_path / "model")
    rows = write(
        tmp_path / "r.jsonl", [{"text": f"text {n}" * n, "label": ("bad", "good")[n % 2]} for n in range(1, 8)]
    )
    evaluate_classifier(load_subject(tmp_path / "model", batch_tokens=20), rows, Options())
    assert bars == {"classify": (7, 7)}


def test_written_answers(bars: dict[str, tuple[int, int]], tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", [{"instruction": f"Say {n}.", "output": "Yes."} for n in range(4)])
    evaluate_answers(load_subject(tiny_llama_dir), rows, Options(max_tokens=4))
    assert bars == {"reference answers": (4, 4), "answers": (4, 4)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_harness_written_answers(
    bars: dict[str, tuple[int, int]], tiny_llama_dir: Path, temperature: float
) -> None:
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    from training.evaluate.harness import HarnessModel

    asked = [
        instance("generate_until", {}, ("The sea", {"max_gen_toks": n, "temperature": temperature}), 0)
        for n in (2, 2, 3)
    ]
    assert len(HarnessModel(load_subject(tiny_llama_dir)).generate_until(asked)) == 3
    assert bars == {"lm-eval": (3, 3)}
