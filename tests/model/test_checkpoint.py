"""Damaged and foreign model directories: one clear line that names the file or the tensor."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import random_model, tiny_config

from model import files
from model.adapters import save_adapter
from model.architectures import read_config
from model.checkpoint import load_model, save_model
from model.config import ModelConfig, preset
from model.errors import CheckpointError, ConfigError
from model.files import staged_directory, sweep, write_whole
from model.lora import LoraConfig, add_lora

CONFIG = tiny_config("llama", vocab_size=97, bos_token_id=0, eos_token_ids=(0,))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(random_model(CONFIG), tmp_path / "m")
    return tmp_path / "m"


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(directory)
    text = str(caught.value)
    assert "\n" not in text
    return text


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_no_directory_no_config_no_weights(tmp_path: Path, saved: Path) -> None:
    assert "no such model directory" in refusal(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    assert "model.safetensors: no such file" in refusal(saved)
    (saved / "config.json").unlink()
    assert "config.json: no such file" in refusal(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_weights(saved: Path, keep: int) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "model.safetensors: truncated or corrupt" in refusal(saved)


def test_garbage_weights(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(os.urandom(5000))
    assert "truncated or corrupt" in refusal(saved)


def test_pickle_is_refused_by_name(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    text = refusal(saved)
    assert "pytorch_model.bin" in text
    assert "safetensors" in text


def test_missing_tensor_and_wrong_shape(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, saved / "model.safetensors")
    assert f"{name} has shape [87, 32], but config.json asks for [88, 32]" in refusal(saved)
    del tensors[name]
    save_file(tensors, saved / "model.safetensors")
    assert f"no tensor {name}" in refusal(saved)


def test_missing_shard(tmp_path: Path) -> None:
    save_model(random_model(CONFIG), tmp_path, max_shard_bytes=20_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(tmp_path)


def test_a_shard_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    save_model(random_model(CONFIG), tmp_path / "a", max_shard_bytes=20_000)
    index = tmp_path / "a" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = "../secret.safetensors"
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    index.write_text(json.dumps(content))
    assert "secret.safetensors" in refusal(tmp_path / "a")


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_type": "mistral"}, "model_type 'mistral' is not supported"),
    ({"model_type": None}, "model_type None"),
    ({"hidden_size": "many"}, "hidden_size must be of type int"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"hidden_act": "relu"}, "hidden_act 'relu'"),
    ({"num_key_value_heads": 3}, "n_head (4) must be a multiple of n_kv_head (3)"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
    ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification"),
    ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1"),
    ({"bos_token_id": "<s>"}, "bos_token_id must be a token id"),
    ({"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "2": "b"}}, "id2label"),
])  # fmt: skip
def test_a_config_that_cannot_be_used_names_the_field(saved: Path, changes: dict, said: str) -> None:
    edit_config(saved, **changes)
    text = refusal(saved)
    assert said in text
    assert "config.json" in text


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\xff"])
def test_config_that_is_no_json_object(saved: Path, content: str) -> None:
    (saved / "config.json").write_bytes(content.encode("latin-1"))
    assert "config.json" in refusal(saved)


def test_gpt2_variants_that_compute_otherwise_are_refused(tmp_path: Path) -> None:
    save_model(random_model(tiny_config("gpt2", vocab_size=97, bos_token_id=0, eos_token_ids=(0,))), tmp_path)
    edit_config(tmp_path, scale_attn_by_inverse_layer_idx=True)
    assert "scale_attn_by_inverse_layer_idx" in refusal(tmp_path)


def test_generation_config_adds_end_tokens(saved: Path) -> None:
    (saved / "generation_config.json").write_text('{"eos_token_id": [0, 5]}')
    assert read_config(saved).eos_token_ids == (0, 5)


def test_unknown_preset_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'gpt3'.*gpt2, gpt2-medium"):
        preset("gpt3")


@pytest.mark.parametrize(("changes", "said"), [
    ({"architecture": "bert"}, "architecture must be"),
    ({"n_layer": 0}, "n_layer"),
    ({"head_dim": 7}, "head_dim must be even"),
    ({"dropout": 1.0}, "dropout"),
    ({"eos_token_ids": (3, 97)}, r"eos_token_ids\[1\] is 97"),
])  # fmt: skip
def test_config_checks_itself(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModelConfig(**({**vars(CONFIG), **changes}))


def test_files_are_whole_or_the_old_ones(saved: Path) -> None:
    path = saved / "config.json"
    before = path.read_bytes()

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, fail)
    assert path.read_bytes() == before
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    assert stat.S_IMODE((saved / "model.safetensors").stat().st_mode) == 0o644


def test_a_full_disk_is_said_whatever_the_librarys_error(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (saved / "model.safetensors").read_bytes()

    def full(tensors: object, part: Path, **_: object) -> None:
        part.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("model.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match=r"m/model\.safetensors: can't be written .*No space left.*make room"):
        save_model(random_model(CONFIG), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    model = random_model(CONFIG)
    add_lora(model, LoraConfig(rank=2))
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: can't be written"):
        save_adapter(model, tmp_path / "adapter", "base")
    assert not list((tmp_path / "adapter").iterdir())


def test_staged_directory(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), staged_directory(target) as stage:
        (stage / "x").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []
    with staged_directory(target) as stage:
        (stage / "x").write_text("1")
    with pytest.raises(CheckpointError, match="already there"), staged_directory(target):
        pass
    with staged_directory(target, overwrite=True) as stage:
        (stage / "y").write_text("2")
    assert [p.name for p in target.iterdir()] == ["y"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_put_in_place_is_synced_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(files, "_sync", lambda path: synced.append((path, (tmp_path / "a").exists())))
    write_whole(tmp_path / "a", lambda part: part.write_text("x"))
    assert [there for _, there in synced] == [False, True]  # the content before the rename, the name after it
    assert synced[1][0] == tmp_path


def test_what_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, replace = tmp_path / "out", Path.replace
    with staged_directory(target) as stage:
        (stage / "x").write_text("1")

    def broken(self: Path, to: Path) -> Path:
        if self.suffix == ".stage":
            raise OSError("Input/output error")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="Input/output"), staged_directory(target, overwrite=True) as stage:
        (stage / "x").write_text("2")
    assert (target / "x").read_text() == "1"
    assert list(tmp_path.iterdir()) == [target]


_KILLED = """
import os, signal, sys
from pathlib import Path
from model import files

target = Path(sys.argv[1])
if sys.argv[2] == "file":
    files.write_whole(target, lambda part: part.write_text("half") and os.kill(os.getpid(), signal.SIGKILL))
if sys.argv[2] == "moving":
    replace = Path.replace
    Path.replace = lambda self, to: replace(self, to) and os.kill(os.getpid(), signal.SIGKILL)
with files.staged_directory(target, overwrite=True) as stage:
    (stage / "x").write_text("new")
    if sys.argv[2] == "directory":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["file", "directory", "moving"])
def test_what_a_killed_process_was_writing_is_swept(tmp_path: Path, when: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "x").write_text("old")
    written = tmp_path / "out.json" if when == "file" else target
    subprocess.run([sys.executable, "-c", _KILLED, str(written), when], check=False, cwd=Path(__file__).parents[2])
    assert len(list(tmp_path.iterdir())) > 1 or not target.exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "x").read_text() == "old"
    sweep(tmp_path / "not there")


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    alive = os.getppid()
    for name in (".hidden", ".git.part", "a.123456.part", ".gpt2.0123456789012345678901234567890123456789.part",
                 f".out.{alive}.part", f".out.{alive}.abcdefgh.stage", ".out.99.stage", ".x.old", "part"):  # fmt: skip
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_tied_weights_are_one_tensor_after_loading(saved: Path) -> None:
    model = load_model(saved)
    assert model.head.weight is model.token_embedding.weight
    assert model.head.weight.dtype == torch.float32
