"""The reference generator: cache, chunks and batches change no token."""

import copy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import random_model, tiny_config

from model.errors import ConfigError, ContextLengthError
from model.generate import generate
from model.gpt import GPT
from model.kv_cache import KVCache
from model.sampling_params import SamplingParams

MODELS = {
    architecture: random_model(
        tiny_config(architecture, vocab_size=300, bos_token_id=0, eos_token_ids=(0,), context_length=64)
    )
    for architecture in ("gpt2", "llama")
}
PARAMS = {
    "greedy": SamplingParams(temperature=0.0, ignore_eos=True),
    "seeded": SamplingParams(seed=7, top_p=0.95, ignore_eos=True),
    "penalised": SamplingParams(
        seed=-3, temperature=0.8, repetition_penalty=1.3, frequency_penalty=0.4, top_k=40, min_p=0.01
    ),
}


def model_of(architecture: str) -> GPT:
    model = MODELS[architecture]
    assert isinstance(model, GPT)
    return model


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@example(prompt=[32], chunk=1)  # was such a draw
@given(prompt=st.lists(st.integers(1, 299), min_size=1, max_size=30), chunk=st.integers(1, 31))
def test_cache_and_chunks_change_nothing(
    architecture: str, params: SamplingParams, prompt: list[int], chunk: int
) -> None:
    # In float64: with and without a cache a float32 logit differs in its last bit, and one draw in a million lies between the two.
    model = copy.deepcopy(model_of(architecture)).double()
    plain = list(generate(model, prompt, params, 12, use_cache=False))
    assert list(generate(model, prompt, params, 12)) == plain
    assert list(generate(model, prompt, params, 12, prefill_chunk=chunk)) == plain
    assert plain or not params.ignore_eos


@pytest.mark.parametrize("architecture", MODELS)
def test_rows_of_different_lengths_in_scattered_slots(architecture: str) -> None:
    """One decode step for several slots equals each row computed whole, whatever the slots held before."""
    model, lengths, slots = model_of(architecture), [5, 23, 1, 11], [3, 0, 6, 2]
    cache = KVCache(model.config, 8)
    cache.keys.fill_(1e6)  # another owner's leftovers: must not be seen
    cache.values.fill_(1e6)
    torch.manual_seed(0)
    rows = [torch.randint(1, 300, (1, n + 1)) for n in lengths]
    with torch.no_grad():
        for row, slot in zip(rows, slots, strict=True):
            model.hidden_states(row[:, :-1], cache=cache, slots=torch.tensor([slot]))
        last = torch.cat([row[:, -1:] for row in rows])
        got = model(last, cache=cache, slots=torch.tensor(slots), starts=torch.tensor(lengths))[:, 0]
        expected = torch.cat([model(row)[:, -1] for row in rows])
    assert (got - expected).abs().max() < 1e-4


def test_copied_slot_continues_alike() -> None:
    model = model_of("llama")
    cache = KVCache(model.config, 2)
    tokens = torch.randint(1, 300, (1, 21))
    with torch.no_grad():
        model.hidden_states(tokens[:, :20], cache=cache, slots=torch.tensor([0]))
        cache.copy_slot(0, 1, 20)
        again = [model(tokens[:, 20:], cache=cache, slots=torch.tensor([s]), starts=torch.tensor([20])) for s in (0, 1)]
    assert torch.equal(*again)


def test_seeds() -> None:
    model, prompt = model_of("gpt2"), [5, 6, 7]
    one, same, other = (list(generate(model, prompt, SamplingParams(seed=s), 20)) for s in (1, 1, 2))
    assert one == same != other
    unseeded = {tuple(generate(model, prompt, SamplingParams(), 20)) for _ in range(4)}
    assert len(unseeded) > 1


def test_an_end_token_ends_and_is_not_yielded() -> None:
    model, prompt = model_of("gpt2"), [5, 6, 7]
    tokens = list(generate(model, prompt, SamplingParams(temperature=0, ignore_eos=True), 20))
    end = tokens[4]
    stopped = list(generate(model, prompt, SamplingParams(temperature=0, ignore_eos=True, stop_token_ids=(end,)), 20))
    assert stopped == tokens[: tokens.index(end)]
    held = list(
        generate(model, prompt, SamplingParams(temperature=0, ignore_eos=True, stop_token_ids=(end,), min_tokens=9), 9)
    )
    assert len(held) == 9
    assert end not in held


def test_overflow_is_refused_before_it_reaches_a_tensor() -> None:
    model = model_of("gpt2")
    with pytest.raises(ContextLengthError) as caught:
        next(generate(model, [1] * 60, SamplingParams(), 5))
    assert (caught.value.n_prompt_tokens, caught.value.n_ctx) == (60, 64)
    with pytest.raises(ContextLengthError):
        model(torch.ones(1, 65, dtype=torch.long))
    cache = KVCache(model.config, 1, context=16)
    with pytest.raises(ContextLengthError):
        model(torch.ones(1, 4, dtype=torch.long), cache=cache, starts=torch.tensor([13]))
    with pytest.raises(ContextLengthError):
        next(generate(model, [], SamplingParams(), 5))


def test_a_cache_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="context must be from 1 to the model's 64"):
        KVCache(model_of("gpt2").config, 1, context=65)
    with pytest.raises(ConfigError, match="at least 1 slot"):
        KVCache(model_of("gpt2").config, 0)
