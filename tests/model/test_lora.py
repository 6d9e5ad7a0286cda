"""Low-rank adapters: merging, and `peft` as the reference, in both directions, both architectures and heads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import random_model, tiny_config
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from model.adapters import load_adapter, load_with_adapter, save_adapter
from model.checkpoint import load_model, save_model
from model.classifier import as_classifier
from model.derived import save_weights
from model.errors import CheckpointError, ConfigError
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, LoraLinear, add_lora, lora_pairs, merge_lora

VOCAB = 211
TOKENS = torch.randint(3, VOCAB, (3, 24), generator=torch.Generator().manual_seed(5))
LENGTHS = torch.tensor([24, 24, 24])
TARGETS = {
    "llama": ["all", ("q_proj", "v_proj"), ("k_proj",), ("o_proj", "gate_proj", "down_proj"), ("v_proj", "up_proj")],
    "gpt2": ["all", ("c_attn",), ("c_proj",), ("c_fc", "c_attn")],
}
CASES = [(architecture, targets) for architecture, sets in TARGETS.items() for targets in sets]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base model directories by name; llama with biases too, since adapters must leave them alone."""
    shapes: dict[str, dict[str, Any]] = {
        "gpt2": {}, "llama": {}, "llama-biases": {"attention_bias": True, "mlp_bias": True},
    }  # fmt: skip
    found = {}
    for name, changes in shapes.items():
        ids = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_ids": (1,), "pad_token_id": 0, "dropout": 0.0}
        found[name] = tmp_path_factory.mktemp(name)
        save_model(random_model(tiny_config(name.partition("-")[0], **ids, **changes)), found[name])
    return found


def randomize(model: torch.nn.Module, seed: int = 7) -> None:
    """Adapters as if they had been trained: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or ".pairs." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def adapted(directory: Path, **config: Any) -> GPT:
    model = load_model(directory)
    assert isinstance(model, GPT)
    add_lora(model, LoraConfig(**config))
    randomize(model)
    return model.eval()


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        output = model(TOKENS, LENGTHS) if isinstance(model, SequenceClassifier) else model(TOKENS)
    return getattr(output, "logits", output)


def with_peft(directory: Path, *, labels: int = 0, **config: Any) -> Any:
    kind = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    base = kind.from_pretrained(directory, **({"num_labels": labels} if labels else {}))
    fan = json.loads((directory / "config.json").read_text())["model_type"] == "gpt2"
    task = "SEQ_CLS" if labels else "CAUSAL_LM"
    model = get_peft_model(base, PeftConfig(task_type=task, fan_in_fan_out=fan, **config))
    randomize(model)
    return model.eval()


@pytest.mark.parametrize(("architecture", "targets"), [*CASES, ("llama-biases", "all")])
def test_merged_logits_equal_unmerged(bases: dict[str, Path], architecture: str, targets: Any) -> None:
    model = adapted(bases[architecture], rank=4, alpha=8, targets=targets)
    before, base = logits(model), logits(load_model(bases[architecture]))
    assert (before - base).abs().max() > 0.05  # the adapter does something, or the comparison would say nothing
    merge_lora(model)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    assert not list(lora_pairs(model))
    assert (logits(model) - before).abs().max() <= 1e-5


def test_a_fresh_adapter_changes_nothing(bases: dict[str, Path]) -> None:
    model = load_model(bases["llama"])
    before = logits(model)
    add_lora(model, LoraConfig(rank=4))
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("architecture", "targets"), [*CASES, ("llama-biases", "all")])
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_computes_our_adapter(
    bases: dict[str, Path], architecture: str, targets: Any, rslora: bool, tmp_path: Path
) -> None:
    ours = adapted(bases[architecture], rank=4, alpha=6, targets=targets, rslora=rslora)
    save_adapter(ours, tmp_path, str(bases[architecture]))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases[architecture]), str(tmp_path)).eval()
    assert (logits(theirs) - logits(ours)).abs().max() <= 1e-4


@pytest.mark.parametrize(("architecture", "targets"), [*CASES, ("llama-biases", "all")])
@pytest.mark.parametrize("rslora", [False, True])
def test_we_compute_pefts_adapter(
    bases: dict[str, Path], architecture: str, targets: Any, rslora: bool, tmp_path: Path
) -> None:
    modules = "all-linear" if targets == "all" else list(targets)
    theirs = with_peft(bases[architecture], r=4, lora_alpha=6, use_rslora=rslora, target_modules=modules)
    theirs.save_pretrained(str(tmp_path))
    ours = load_model(bases[architecture])
    load_adapter(ours, tmp_path)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert (logits(theirs) - logits(load_model(bases[architecture]))).abs().max() > 0.05
    assert (logits(theirs) - logits(ours)).abs().max() <= 1e-4


def test_an_adapter_of_some_layers_makes_the_round_trip(bases: dict[str, Path], tmp_path: Path) -> None:
    theirs = with_peft(bases["llama"], r=2, target_modules=["q_proj", "down_proj"], layers_to_transform=[1])
    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours, _ = load_with_adapter(tmp_path / "theirs")
    assert {projection.path for projection, _ in lora_pairs(ours)} == {
        "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj",
    }  # fmt: skip
    save_adapter(ours, tmp_path / "ours", str(bases["llama"]))
    back = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases["llama"]), str(tmp_path / "ours"))
    assert (logits(back.eval()) - logits(theirs)).abs().max() <= 1e-4


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_classifiers_both_ways(bases: dict[str, Path], architecture: str, tmp_path: Path) -> None:
    labels = ("bad", "fine", "good")
    ours = as_classifier(load_model(bases[architecture]), labels, seed=3)
    add_lora(ours, LoraConfig(rank=3))
    randomize(ours)
    ours.eval()
    save_adapter(ours, tmp_path / "ours", str(bases[architecture]))
    base = AutoModelForSequenceClassification.from_pretrained(bases[architecture], num_labels=3)
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "ours")).eval()
    assert (logits(theirs) - logits(ours)).abs().max() <= 1e-4
    again, where = load_with_adapter(tmp_path / "ours")
    assert where == bases[architecture]
    assert again.config.labels == labels
    assert (logits(again) - logits(ours)).abs().max() <= 1e-6

    theirs = with_peft(bases[architecture], labels=3, r=3, target_modules="all-linear")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    back, _ = load_with_adapter(tmp_path / "theirs")
    assert back.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert (logits(back) - logits(theirs)).abs().max() <= 1e-4


def test_only_pairs_and_a_classifiers_head_learn(bases: dict[str, Path]) -> None:
    model = as_classifier(load_model(bases["llama"]), ("no", "yes"))
    frozen = {name: parameter.clone() for name, parameter in model.named_parameters()}
    add_lora(model, LoraConfig(rank=4, dropout=0.1, targets=("q_proj", "up_proj")))
    model.train()
    F.cross_entropy(model(TOKENS, LENGTHS), torch.tensor([0, 1, 0])).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if ".pairs." in name} | {"score.weight"}
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        if name in frozen and name != "score.weight":
            assert torch.equal(parameter, frozen[name]), name


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_training_steps_equal_pefts(bases: dict[str, Path], architecture: str, tmp_path: Path) -> None:
    ours = load_model(bases[architecture])
    add_lora(ours, LoraConfig(rank=4, alpha=8))
    save_adapter(ours, tmp_path, str(bases[architecture]))
    base = AutoModelForCausalLM.from_pretrained(bases[architecture])
    theirs = PeftModel.from_pretrained(base, str(tmp_path), is_trainable=True)
    losses = []
    for model in (ours.train(), theirs.train()):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(3):
            output = model(TOKENS)
            output = getattr(output, "logits", output)
            loss = F.cross_entropy(output[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], abs=1e-5)
    assert losses[2] < losses[0]
    assert (logits(ours.eval()) - logits(theirs.eval())).abs().max() <= 1e-3


def test_autocast_compile_and_checkpointing_take_it(bases: dict[str, Path]) -> None:
    model = adapted(bases["llama"], rank=4, targets=("q_proj", "v_proj", "down_proj"))
    expected = model(TOKENS)
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(TOKENS)
    assert (rough.float() - expected).abs().max() < 0.3
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # one graph, so nothing in a pair breaks it
    assert (compiled(TOKENS) - expected).abs().max() <= 1e-5
    model.zero_grad()
    for block in model.blocks:
        forward = block.forward
        block.forward = lambda *args, forward=forward: checkpoint(forward, *args, use_reentrant=False)
    model(TOKENS).sum().backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5), name


def test_an_adapter_takes_the_bases_dtype(bases: dict[str, Path], tmp_path: Path) -> None:
    save_adapter(adapted(bases["llama"], rank=4), tmp_path, str(bases["llama"]))
    model, _ = load_with_adapter(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert logits(model).dtype == torch.bfloat16


@pytest.mark.parametrize(("change", "said"), [
    ({"use_dora": True}, "use_dora"),
    ({"bias": "all"}, "bias 'all'"),
    ({"peft_type": "IA3"}, "peft_type 'IA3'"),
    ({"task_type": "SEQ_2_SEQ_LM"}, "task_type 'SEQ_2_SEQ_LM'"),
    ({"task_type": "SEQ_CLS"}, "task_type SEQ_CLS"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
    ({"r": 5}, "lora_A.weight has shape [4, 32], but the model and r ask for [5, 32]"),
    ({"r": "4"}, "r must be a whole number"),
    ({"lora_alpha": None}, "lora_alpha"),
])  # fmt: skip
def test_a_configuration_beyond_plain_pairs_is_refused(
    bases: dict[str, Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    save_adapter(adapted(bases["llama"], rank=4), tmp_path, str(bases["llama"]))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    model = load_model(bases["llama"])
    with pytest.raises(CheckpointError) as caught:
        load_adapter(model, tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())  # left as it was


def _cut(tensors: dict[str, Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("q_proj.lora_B.weight"))
    tensors[name] = tensors[name][:5].contiguous()


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["base_model.model.model.layers.7.mlp.up_proj.lora_B.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize(("spoil", "said"), [
    (_cut, "q_proj.lora_B.weight has shape [5, 4]"),
    (_drop, "no tensor base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"),
    (_add, "layers.7.mlp.up_proj.lora_B.weight belongs to no projection"),
    (dict.clear, "no low-rank pair"),
])  # fmt: skip
def test_tensors_of_another_model_are_refused(bases: dict[str, Path], tmp_path: Path, spoil: Any, said: str) -> None:
    save_adapter(adapted(bases["llama"], rank=4), tmp_path, str(bases["llama"]))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    model = load_model(bases["llama"])
    with pytest.raises(CheckpointError) as caught:
        load_adapter(model, tmp_path)
    assert said in str(caught.value)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())


def test_damaged_missing_and_pickled_files_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    model = load_model(bases["gpt2"])
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        load_adapter(model, tmp_path)
    save_adapter(adapted(bases["gpt2"], rank=4), tmp_path, "gpt2")
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load_adapter(model, tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickle files can run code"):
        load_adapter(model, tmp_path)


def test_mistakes_in_a_configuration_are_named(bases: dict[str, Path]) -> None:
    model = load_model(bases["llama"])
    with pytest.raises(ConfigError, match="c_attn, which a llama model hasn't; it has q_proj, k_proj"):
        add_lora(model, LoraConfig(targets=("q_proj", "c_attn")))
    for bad in ({"rank": 0}, {"dropout": 1.0}, {"targets": ()}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            LoraConfig(**bad)
    with pytest.raises(ConfigError, match="no adapter to save"):
        save_adapter(model, Path("nowhere"), "x")
    add_lora(model, LoraConfig())
    with pytest.raises(ConfigError, match="already"):
        add_lora(model, LoraConfig())
    with pytest.raises(ConfigError, match="merge it before its weights are saved"):
        save_weights(model, Path("nowhere"), bases["llama"])
