"""The PyTorch back end: any schedule of segments against the plain model, on the flat path and in bucketed steps."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_model, tiny_config
from torch import Tensor

from model.backend import Segment
from model.errors import ConfigError, ContextLengthError
from model.generate import generate
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, LowRank, Projection, add_lora, lora_pairs, merge_lora
from model.sampling_params import SamplingParams
from model.torch_backend import TorchBackend
from model.torch_graphs import bucket

VOCAB, CONTEXT, SLOTS = 97, 80, 5
CLOSE = 1e-5


def model_of(architecture: str, **changes: Any) -> GPT:
    ids = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_ids": (1,)}
    model = random_model(tiny_config(architecture, context_length=CONTEXT, **ids, **changes))
    assert isinstance(model, GPT)
    return model


MODELS = {architecture: model_of(architecture) for architecture in ("gpt2", "llama")}
BACKENDS = {
    (architecture, bucketed): TorchBackend(model, n_slots=SLOTS, bucketed=bucketed)
    for architecture, model in MODELS.items()
    for bucketed in (False, True)
}
paths = pytest.mark.parametrize("bucketed", [False, True], ids=["flat", "bucketed"])
architectures = pytest.mark.parametrize("architecture", ["gpt2", "llama"])


def expected(model: GPT, tokens: list[int], outputs: int) -> Tensor:
    """The plain model's hidden states of the last `outputs` tokens."""
    return model.hidden_states(torch.tensor([tokens]))[0, len(tokens) - outputs :]


@paths
@architectures
@settings(max_examples=30)
@given(data=st.data())
def test_any_schedule_gives_the_plain_models_hidden_states(architecture: str, bucketed: bool, data: st.DataObject):
    """Chunks of any size, slots cut back and used again, copies, rows with and without outputs: all in the same forwards."""
    model, backend = MODELS[architecture], BACKENDS[architecture, bucketed]
    held: list[list[int]] = [[] for _ in range(SLOTS)]
    for _ in range(data.draw(st.integers(2, 6), "forwards")):
        if data.draw(st.booleans(), "copy"):
            source, target = data.draw(st.permutations(range(SLOTS)), "slots")[:2]
            kept = data.draw(st.integers(0, len(held[source])), "length")
            backend.copy_slot(source, target, kept)
            held[target] = held[source][:kept]
        segments, wanted = [], []
        for slot in data.draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, unique=True), "slots"):
            start = data.draw(st.sampled_from([len(held[slot]), data.draw(st.integers(0, len(held[slot])))]), "start")
            room = CONTEXT - start
            if not room:
                continue
            n_new = 1 if data.draw(st.booleans(), "one") else data.draw(st.integers(1, min(room, 30)), "new")
            new = data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=n_new, max_size=n_new), "tokens")
            held[slot] = held[slot][:start] + new
            outputs = data.draw(st.integers(0, n_new), "outputs")
            segments.append(Segment(slot, start, new, outputs))
            wanted.append(expected(model, held[slot], outputs))
        if segments:
            found = backend.forward(segments)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, torch.cat(wanted), atol=CLOSE, rtol=CLOSE)


@paths
@architectures
def test_greedy_decoding_in_company_gives_generates_tokens(architecture: str, bucketed: bool):
    model, backend = MODELS[architecture], BACKENDS[architecture, bucketed]
    prompts = [[3, 5, 7], [11] * 20, list(range(2, 40))]
    params = SamplingParams(temperature=0.0, ignore_eos=True)
    wanted = [list(generate(model, prompt, params, 20)) for prompt in prompts]
    held = [list(prompt) for prompt in prompts]
    hidden = backend.forward([Segment(slot, 0, prompt) for slot, prompt in enumerate(prompts)])
    for _ in range(20):
        for row, token in zip(held, backend.logits(hidden).argmax(1).tolist(), strict=True):
            row.append(token)
        hidden = backend.forward([Segment(slot, len(row) - 1, row[-1:]) for slot, row in enumerate(held)])
    assert [row[len(prompt) :] for row, prompt in zip(held, prompts, strict=True)] == wanted


@paths
def test_logits_are_float32_and_the_models(bucketed: bool):
    backend, model = BACKENDS["llama", bucketed], MODELS["llama"]
    logits = backend.logits(backend.forward([Segment(1, 0, [4, 8, 15], 2)]))
    torch.testing.assert_close(logits, model(torch.tensor([[4, 8, 15]]))[0, 1:], atol=CLOSE, rtol=CLOSE)


@paths
def test_what_an_earlier_owner_left_harms_nobody(bucketed: bool):
    """A slot full of NaN, as a failing request leaves it, is used again: shorter, by copy, and beside others."""
    model = model_of("llama")
    backend = TorchBackend(model, n_slots=3, bucketed=bucketed)
    clean = [p.clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.fill_(math.nan)
    assert backend.forward([Segment(0, 0, [5] * 40), Segment(1, 0, [5])]).isnan().all()
    for parameter, value in zip(model.parameters(), clean, strict=True):
        parameter.copy_(value)
    backend.forward([Segment(0, 0, [2]), Segment(2, 0, [9] * 30)])
    found = backend.forward([Segment(0, 1, [3]), Segment(1, 0, [4]), Segment(2, 30, [8])])
    wanted = [expected(model, tokens, 1) for tokens in ([2, 3], [4], [9] * 30 + [8])]
    torch.testing.assert_close(found, torch.cat(wanted), atol=CLOSE, rtol=CLOSE)


def test_a_bucketed_step_is_the_flat_pass_at_every_bucket():
    model = model_of("llama")
    flat, stepped = (TorchBackend(model, n_slots=SLOTS, bucketed=bucketed) for bucketed in (False, True))
    rows = [list(range(2, 2 + n)) for n in (1, 30, 63, 64, 79)]
    for backend in (flat, stepped):
        backend.forward([Segment(i, 0, row, 0) for i, row in enumerate(rows)])
    for n in range(1, SLOTS + 1):
        for chosen in (range(n), range(SLOTS - n, SLOTS)):
            segments = [Segment(i, len(rows[i]), [7]) for i in chosen]
            torch.testing.assert_close(stepped.forward(segments), flat.forward(segments), atol=CLOSE, rtol=CLOSE)


def test_buckets_are_powers_of_two_up_to_the_most():
    assert [bucket(n, 1, 12) for n in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]
    assert [bucket(n, 64, 1024) for n in (1, 64, 65, 1024)] == [64, 64, 128, 1024]


def adapters_of(model: GPT | SequenceClassifier) -> list[list[tuple[Projection, LowRank]]]:
    """Three trained adapters: all projections, queries and values alone, and one layer's rank of 1."""
    found = []
    for seed, config in enumerate([LoraConfig(rank=4), LoraConfig(rank=2, targets=TARGETS[model.config.architecture])]):
        bearer = copy.deepcopy(model)
        add_lora(bearer, config)
        generator = torch.Generator().manual_seed(seed)
        pairs = list(lora_pairs(bearer))
        for _, pair in pairs:
            pair.requires_grad_(False)
            pair.a.copy_(torch.randn(pair.a.shape, generator=generator) * 0.1)
            pair.b.copy_(torch.randn(pair.b.shape, generator=generator) * 0.1)
        found.append(pairs)
    return [*found, found[0][-1:]]


TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}


def merged(model: GPT, pairs: list[tuple[Projection, LowRank]]) -> GPT:
    """The model with those pairs merged into its weights."""
    bearer = copy.deepcopy(model)
    for projection, pair in pairs:
        weight = bearer.get_submodule(projection.ours.removeprefix("trunk.")).weight
        assert isinstance(weight, Tensor)
        names = list(projection.layout)
        begin = sum(projection.layout[name] for name in names[: names.index(projection.name)])
        weight[begin : begin + len(pair.b)] += pair.delta()
    return bearer


@paths
@architectures
def test_adapters_in_one_batch_are_each_what_it_is_alone(architecture: str, bucketed: bool):
    model = model_of(architecture)
    plain = copy.deepcopy(model)
    sets = adapters_of(plain)
    backend = TorchBackend(model, n_slots=SLOTS, bucketed=bucketed)
    numbers = [0, *(backend.add_adapter(pairs) for pairs in sets), 0]
    models = [plain, *(merged(plain, pairs) for pairs in sets), plain]
    prompts = [list(range(3 + i, 20 + 3 * i)) for i in range(SLOTS)]
    segments = [Segment(i, 0, prompts[i], len(prompts[i]), numbers[i]) for i in range(SLOTS)]
    wanted = torch.cat([expected(models[i], prompts[i], len(prompts[i])) for i in range(SLOTS)])
    torch.testing.assert_close(backend.forward(segments), wanted, atol=CLOSE, rtol=CLOSE)
    step = [Segment(i, len(prompts[i]), [2], 1, numbers[i]) for i in reversed(range(SLOTS))]
    wanted = torch.cat([expected(models[i], [*prompts[i], 2], 1) for i in reversed(range(SLOTS))])
    torch.testing.assert_close(backend.forward(step), wanted, atol=CLOSE, rtol=CLOSE)


def test_merging_as_the_tests_do_it_is_merge_lora():
    model = model_of("llama")
    bearer = copy.deepcopy(model)
    add_lora(bearer, LoraConfig(rank=2))
    for _, pair in lora_pairs(bearer):
        pair.requires_grad_(False).b.normal_()
    by_hand = merged(model, list(lora_pairs(bearer)))
    merge_lora(bearer)
    for name, tensor in bearer.state_dict().items():
        torch.testing.assert_close(by_hand.state_dict()[name], tensor)


def test_a_removed_adapter_is_gone_and_the_layers_are_the_bases():
    model = model_of("llama")
    before = {name: type(module) for name, module in model.named_modules()}
    backend = TorchBackend(model, n_slots=1)
    first, second = (backend.add_adapter(pairs) for pairs in adapters_of(model)[:2])
    assert (first, second) == (1, 2)
    backend.remove_adapter(first)
    with pytest.raises(KeyError, match="1"):
        backend.forward([Segment(0, 0, [3], 1, first)])
    with pytest.raises(KeyError):
        backend.remove_adapter(first)
    backend.forward([Segment(0, 0, [3], 1, second)])
    backend.remove_adapter(second)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert backend.add_adapter(adapters_of(model)[0]) == 3  # numbers aren't given twice


def test_an_adapter_of_another_model_is_refused_and_changes_nothing():
    backend = TorchBackend(model_of("llama"), n_slots=1)
    other = adapters_of(model_of("llama", d_model=48))[0]
    with pytest.raises(ConfigError, match=r"q_proj is 32 x 48, which fits no projection"):
        backend.add_adapter(other)
    deeper = adapters_of(model_of("llama", n_layer=3))[0]
    with pytest.raises(ConfigError, match=r"layers\.2\..*fits no projection"):
        backend.add_adapter(deeper)
    with pytest.raises(ConfigError, match="no low-rank pair"):
        backend.add_adapter([])
    with pytest.raises(KeyError):
        backend.forward([Segment(0, 0, [3], 1, 1)])


@paths
def test_a_classifier_gives_hidden_states_and_its_head(bucketed: bool):
    config = tiny_config("llama", vocab_size=VOCAB, bos_token_id=1, eos_token_ids=(1,), labels=("no", "yes", "maybe"))
    model = random_model(config)
    assert isinstance(model, SequenceClassifier)
    backend = TorchBackend(model, n_slots=2, bucketed=bucketed)
    assert backend.score_head is not None
    hidden = backend.forward([Segment(0, 0, [4, 8, 15]), Segment(1, 0, [16])])
    wanted = model(torch.tensor([[4, 8, 15], [16, 0, 0]]), torch.tensor([3, 1]))
    torch.testing.assert_close(hidden @ backend.score_head.T, wanted, atol=CLOSE, rtol=CLOSE)
    with pytest.raises(ConfigError, match="classifier"):
        backend.logits(hidden)
    pairs = adapters_of(model)[0]  # "trunk." in its paths; it fits the trunk all the same
    assert backend.forward([Segment(0, 0, [4], 1, backend.add_adapter(pairs))]).shape == (1, config.d_model)


REFUSED: dict[str, tuple[list[Segment], str]] = {
    "nothing": ([], "at least one segment"),
    "a slot twice": ([Segment(0, 0, [1]), Segment(0, 1, [1])], "only once"),
    "no such slot": ([Segment(SLOTS, 0, [1])], f"slot {SLOTS} is none"),
    "no tokens": ([Segment(0, 0, [])], "needs a token"),
    "a start below 0": ([Segment(0, -1, [1])], "needs a token"),
    "more outputs than tokens": ([Segment(0, 0, [1, 2], 3)], "3 outputs of 2 tokens"),
}


@paths
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_breaks_the_protocol_is_refused(name: str, bucketed: bool):
    segments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        BACKENDS["llama", bucketed].forward(segments)


@paths
def test_a_segment_past_the_end_leaves_every_slot_as_it_was(bucketed: bool):
    backend, model = BACKENDS["llama", bucketed], MODELS["llama"]
    backend.forward([Segment(0, 0, [4] * 10, 0)])
    with pytest.raises(ContextLengthError, match=rf"{CONTEXT + 1} tokens don't fit") as error:
        backend.forward([Segment(0, 5, [9] * 5), Segment(1, CONTEXT, [1])])
    assert (error.value.n_prompt_tokens, error.value.n_ctx) == (CONTEXT + 1, CONTEXT)
    torch.testing.assert_close(
        backend.forward([Segment(0, 10, [6])]), expected(model, [4] * 10 + [6], 1), atol=CLOSE, rtol=CLOSE
    )


def test_bfloat16_is_near_float32_and_gives_float32_states():
    model = model_of("llama")
    half = TorchBackend(copy.deepcopy(model).bfloat16(), n_slots=2)
    assert (half.dtype, half.quantize, half.invariant) == ("bfloat16", "none", False)
    tokens = list(range(2, 40))
    found = half.forward([Segment(0, 0, tokens[:20], 20), Segment(1, 0, tokens, 1)])
    assert found.dtype == torch.float32
    wanted = expected(model, tokens[:20], 20)
    assert (found[:20] - wanted).norm() / wanted.norm() < 0.03
    logits = half.logits(found)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, found @ model.token_embedding.weight.bfloat16().float().T)  # not rounded again


def test_slots_may_be_shorter_than_the_model():
    backend = TorchBackend(MODELS["gpt2"], n_slots=1, context=9)
    assert backend.context == 9
    with pytest.raises(ContextLengthError):
        backend.forward([Segment(0, 0, [1] * 10)])
    with pytest.raises(ConfigError, match="context must be from 1"):
        TorchBackend(MODELS["gpt2"], n_slots=1, context=CONTEXT + 1)
