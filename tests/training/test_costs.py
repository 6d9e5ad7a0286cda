"""What training costs, against counts made by others: PyTorch's counter of FLOPs, the tensors that backward holds, optimisers."""

from collections.abc import Callable

import pytest
import torch
from tiny import random_model, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.checkpoint import empty_model
from model.config import ModelConfig, preset
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, add_lora
from training.costs import count_parameters, optimizer_bytes, training_flops, training_memory
from training.objectives import ClassificationLoss, LanguageModelLoss, Objective
from training.optim import make_optimizers

ROWS, LENGTH = 3, 64


def config(architecture: str, **changes: object) -> ModelConfig:
    fields: dict[str, object] = {"vocab_size": 320, "bos_token_id": None, "eos_token_ids": ()}
    return tiny_config(architecture, **(fields | changes))


def made(architecture: str, kind: str, prepare: Callable[[GPT | SequenceClassifier], None]) -> GPT | SequenceClassifier:
    labels = ("a", "b", "c") if kind == "classifier" else ()
    model = random_model(config(architecture, labels=labels)).requires_grad_(True)
    prepare(model)
    return model


def trunk_of(model: GPT | SequenceClassifier) -> GPT:
    return model.trunk if isinstance(model, SequenceClassifier) else model


def last_block(model: GPT | SequenceClassifier) -> None:
    model.requires_grad_(False)
    trunk_of(model).blocks[-1].requires_grad_(True)
    trunk_of(model).norm.requires_grad_(True)


def lora_all(model: GPT | SequenceClassifier) -> None:
    add_lora(model, LoraConfig(rank=4))


def lora_late(model: GPT | SequenceClassifier) -> None:
    """Pairs on the MLPs alone: nothing before them is trained in the first layer."""
    add_lora(model, LoraConfig(rank=4, targets=("c_fc",) if model.config.architecture == "gpt2" else ("down_proj",)))


def loss_of(model: GPT | SequenceClassifier, *, rows: int = ROWS, bf16: bool = False) -> torch.Tensor:
    tokens = torch.randint(0, 320, (rows, LENGTH))
    objective: Objective
    if isinstance(model, SequenceClassifier):
        objective, lengths = ClassificationLoss(model, bf16=bf16), torch.full((rows,), LENGTH)
        return objective(tokens, lengths, torch.zeros(rows, dtype=torch.long), torch.ones(rows))
    return LanguageModelLoss(model, bf16=bf16)(tokens, tokens)


@pytest.mark.parametrize(
    "prepare", [lambda model: None, last_block, lora_all, lora_late], ids=["full", "last", "lora", "late"]
)
@pytest.mark.parametrize("kind", ["language model", "classifier"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_flops_are_those_that_are_counted(
    architecture: str, kind: str, prepare: Callable[[GPT | SequenceClassifier], None]
) -> None:
    """Exactly those of PyTorch's counter but for one thing: it counts attention's products whole, where causal attention needs
    half. So the difference is our own attention term."""
    model = made(architecture, kind, prepare)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss_of(model).backward()
    counted = counter.get_total_flops() / (ROWS * LENGTH)
    shape = model.config
    forward = 4 * shape.n_head * shape.head_dim * LENGTH / 2  # one layer's scores and values, half of them
    layers_with_gradients = [
        block for block in trunk_of(model).blocks if any(p.requires_grad for p in block.attention.parameters())
    ]
    backward = len(layers_with_gradients)
    if prepare is lora_late:
        backward = shape.n_layer - 1  # gradients pass through every layer's attention but the first's
    attention = forward * (shape.n_layer + 2 * backward)
    assert training_flops(model, LENGTH) == counted - attention


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m", "homegrown-4m"])
def test_flops_are_six_per_weight_and_the_attention(name: str) -> None:
    """The rule of thumb of the papers, on published shapes: within the share of what it leaves out (norms and biases)."""
    model, shape = empty_model(preset(name)), preset(name)
    count = count_parameters(model)
    products = count.total - (0 if shape.tie_embeddings else count.embedding)
    if shape.architecture == "gpt2":
        products -= shape.context_length * shape.d_model  # learned positions are looked up
    rule = 6 * products + 6 * shape.n_layer * shape.n_head * shape.head_dim * 1024
    assert training_flops(model, 1024) == pytest.approx(rule, rel=2e-3)


def test_known_sizes() -> None:
    gpt2 = count_parameters(empty_model(preset("gpt2")))
    assert (gpt2.total, gpt2.embedding) == (124_439_808, 50257 * 768 + 1024 * 768)
    assert count_parameters(empty_model(preset("gpt2-xl"))).total == 1_557_611_200
    assert count_parameters(empty_model(preset("smollm2-135m"))).total == 134_515_008


def test_parameters_are_counted_once_and_trainable_apart() -> None:
    model = made("llama", "language model", last_block)
    count = count_parameters(model)
    assert count.total == sum(p.numel() for p in model.parameters())
    assert count.embedding == 320 * 32
    block = sum(p.numel() for p in trunk_of(model).blocks[-1].parameters())
    assert count.trainable == block + 32


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("prepare", [lambda model: None, last_block, lora_all], ids=["full", "last", "lora"])
def test_the_optimiser_keeps_what_was_said(name: str, prepare: Callable[[GPT | SequenceClassifier], None]) -> None:
    model = made("llama", "language model", prepare)
    optimizers = make_optimizers(model, name, lr=1e-3, matrix_lr=0.02, weight_decay=0.1, beta2=0.95)  # type: ignore[arg-type]
    loss_of(model).backward()
    for optimizer in optimizers:
        optimizer.step()
    slots = [
        t for o in optimizers for state in o.state.values() for t in state.values() if torch.is_tensor(t) and t.ndim
    ]
    assert optimizer_bytes(model, name) == sum(t.numel() * t.element_size() for t in slots)  # type: ignore[arg-type]


def held_for_backward(model: GPT | SequenceClassifier, rows: int, *, bf16: bool) -> int:
    """Bytes of the tensors that the graph keeps, weights and their casts left out."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    shapes = {tuple(p.shape) for p in model.parameters()} | {
        tuple(p.t().shape) for p in model.parameters() if p.ndim == 2
    }
    held: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in shapes and tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, rows=rows, bf16=bf16)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in held.values())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_activations_are_about_what_the_graph_holds(architecture: str, bf16: bool) -> None:
    shape = config(architecture, n_layer=4, d_model=64, head_dim=16, d_ff=176)
    model = random_model(shape).requires_grad_(True).train()
    tokens = 16 * LENGTH

    def estimate(checkpointing: bool) -> int:
        return training_memory(
            model, tokens=tokens, bf16=bf16, checkpointing=checkpointing, optimizer="adamw"
        ).activations  # fmt: skip

    assert estimate(False) == pytest.approx(held_for_backward(model, 16, bf16=bf16), rel=0.05)
    # Checkpointing keeps each layer's input (the graph shows that alone), and one layer while it is computed again.
    model.checkpointing = True  # type: ignore[assignment]
    inputs = held_for_backward(model, 16, bf16=bf16)
    assert inputs < estimate(True) < estimate(False) / 2
    assert estimate(True) - estimate(False) / 4 == pytest.approx(inputs, rel=0.5)


def test_memory_is_the_sum_of_its_parts() -> None:
    model = empty_model(preset("gpt2"))
    alone = training_memory(model, tokens=8192, bf16=True, checkpointing=False, optimizer="adamw")
    n = 124_439_808
    assert (alone.gradients, alone.optimizer) == (4 * n, 8 * n)
    assert 4 * n < alone.weights < 6 * n  # float32, and the matrices once more in bfloat16
    assert alone.total == alone.weights + alone.gradients + alone.optimizer + alone.activations
    frozen = empty_model(preset("gpt2"))
    last_block(frozen)
    part = training_memory(frozen, tokens=8192, bf16=True, checkpointing=False, optimizer="adamw")
    assert part.gradients < alone.gradients / 10
