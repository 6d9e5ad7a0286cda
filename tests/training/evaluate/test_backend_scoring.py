"""Scoring through a back end: the plain scorer's figures in float32, near them otherwise, on the command line too."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli.evaluate import evaluate
from model.backend import Backend, Segment
from model.errors import ConfigError
from model.native import library
from training.evaluate.scoring import Request, Scorer
from training.evaluate.subject import load_backend_subject, load_subject


def some_requests(seed: int) -> list[Request]:
    """Contexts and continuations of many lengths, to where the context is cut; several contexts more than once."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(0, 50257, n).tolist()  # noqa: E731
    contexts = [draw(n) for n in (1, 2, 9, 40, 100, 127, 128, 200)]
    return [Request(context, draw(n)) for context in contexts for n in (1, 2, 9)] + [Request(draw(5), draw(128))]


BACKENDS = ["torch", *(["native"] if library.available() else [])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_float32_gives_the_plain_scorers_figures(
    backend: str, architecture: str, request: pytest.FixtureRequest
) -> None:
    directory: Path = request.getfixturevalue(f"tiny_{architecture}_dir")
    requests = some_requests(3)
    wanted = load_subject(directory).scorer().score(requests)
    subject = load_backend_subject(directory, backend=backend, dtype="float32", device="cpu")
    for budget in (150, 100_000):
        for share in (True, False):
            scorer = Scorer(subject.scorer().model, batch_tokens=budget, progress=False, backend=subject.backend)
            for plain, found in zip(wanted, scorer.score(requests, share=share), strict=True):
                assert np.abs(found.logprobs - plain.logprobs).max() <= 1e-4
                assert found.greedy.tolist() == plain.greedy.tolist()


def test_a_shared_context_is_computed_once_also_past_the_slots(
    tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = load_backend_subject(tiny_llama_dir, backend="torch", device="cpu")
    assert subject.backend is not None
    backend: Backend = subject.backend
    computed: list[int] = []
    plain = backend.forward

    def counted(segments: list[Segment]) -> object:
        computed.append(sum(len(segment.tokens) for segment in segments))
        return plain(segments)

    monkeypatch.setattr(backend, "forward", counted)
    requests = [Request(list(range(100)), [i, i]) for i in range(backend.n_slots)]
    found = subject.scorer().score(requests)
    assert sum(computed) == 101 + 2 * (backend.n_slots - 1)  # then the context's last token, and the first of two
    more = [Request(list(range(100)), [i, i]) for i in range(backend.n_slots + 3)]
    for one, other in zip(found, subject.scorer().score(more), strict=False):
        assert np.abs(one.logprobs - other.logprobs).max() <= 1e-4


@pytest.mark.parametrize("options", [("--quantize", "int8"), ("--dtype", "float32", "--backend", "torch")])
def test_the_command_measures_with_the_services_arithmetic(
    options: tuple[str, ...], tiny_gpt2_dir: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog, again and again. " * 20)
    runs = []
    for more in ((), options):
        result = CliRunner().invoke(
            evaluate, [str(tiny_gpt2_dir), "--on", f"text={text}", "--device", "cpu", "--json", "-", *more]
        )
        assert result.exit_code == 0, result.output
        runs.append(json.loads(result.stdout))
    plain, served = (run["results"][0]["figures"][0]["value"] for run in runs)
    assert served == pytest.approx(plain, rel=0.02 if "int8" in options else 1e-4)
    assert (served != plain) or "int8" not in options
    arithmetic = [run["model"]["arithmetic"] for run in runs]
    assert arithmetic[0] == "float32"
    assert ("int8 weights" in arithmetic[1]) == ("int8" in options)
    assert runs[0]["model"]["parameters"] == runs[1]["model"]["parameters"]


def test_what_cant_be_scored_this_way_is_refused(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    subject = load_backend_subject(tiny_gpt2_dir, backend="torch", device="cpu")
    subject.check("lambada")
    with pytest.raises(ConfigError, match="--quantize, --dtype and --backend are for measures that score text"):
        subject.check("answers")
    with pytest.raises(ConfigError, match="is a language model, without a classification head"):
        subject.check("classify")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is an adapter; merge it"):
        load_backend_subject(tmp_path)
    (tmp_path / "x.txt").write_text("some words")
    clash = CliRunner().invoke(
        evaluate, [str(tiny_gpt2_dir), "--on", str(tmp_path / "x.txt"), "--quantize", "int8", "--bf16"]
    )
    assert clash.exit_code == 2
    assert "--bf16 can't be combined with --quantize" in clash.output
