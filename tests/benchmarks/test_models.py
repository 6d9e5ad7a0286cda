from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import PEERS, Job, llama_cpp, models
from model.checkpoint import load_model
from model.gguf_import import import_gguf


def test_what_is_missing_is_said_with_the_commands(tmp_path: Path) -> None:
    texts = models.missing(tmp_path / "environments", tmp_path / "models", PEERS)
    assert len(texts) == len(models.ENVIRONMENTS)
    assert all("pip install" in text for text in texts)
    assert sum("torch==" in text for text in texts) == 2
    assert models.missing(tmp_path, tmp_path, ["ours:float32", "bare:int8"]) == []


def test_what_is_made_already_needs_no_exporter(tmp_path: Path) -> None:
    (tmp_path / "openvino-int8").mkdir()
    (text,) = models.missing(tmp_path / "environments", tmp_path, ["openvino:int8"])
    assert "openvino-genai" in text


def test_random_weights_are_always_the_same(tiny_models: Path, tmp_path: Path) -> None:
    models.write_source(tmp_path, "tiny", None)
    files = [(path / "hf" / "model.safetensors").read_bytes() for path in (tmp_path, tiny_models)]
    assert files[0] == files[1]
    assert (tmp_path / "hf" / "tokenizer.json").exists()


def test_a_model_of_ones_own(tmp_path: Path, tiny_gpt2_dir: Path) -> None:
    models.write_source(tmp_path / "m", "gpt2", tiny_gpt2_dir)
    assert (tmp_path / "m" / "hf").resolve() == tiny_gpt2_dir.resolve()


def test_a_shape_without_our_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--model"):
        models.write_source(tmp_path, "homegrown-4m", None)


def test_gguf_holds_the_same_weights(tiny_models: Path, tmp_path: Path) -> None:
    job = Job(setting="llama_cpp:q8_0", task="prepare", models=str(tiny_models))
    llama_cpp.prepare(job)
    import_gguf(job.artifact, tmp_path / "back")
    states = [load_model(directory).state_dict() for directory in (job.source, tmp_path / "back")]
    for name, tensor in states[0].items():
        other = states[1][name].numpy()
        assert np.abs(tensor.numpy() - other).max() <= np.abs(other).max() / 127
