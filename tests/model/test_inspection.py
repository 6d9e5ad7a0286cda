"""Attention and the logit lens against transformers, both architectures."""

from pathlib import Path

import pytest
import torch
from tiny import random_model, tiny_config
from transformers import AutoModelForCausalLM

from model.checkpoint import load_model, save_model
from model.errors import ConfigError, ContextLengthError
from model.gpt import GPT
from model.inspection import inspect_text

TOLERANCE = 1e-4
SHAPES = {
    "gpt2": tiny_config("gpt2", vocab_size=211, n_layer=3, bos_token_id=1, eos_token_ids=(1,)),
    "llama": tiny_config("llama", vocab_size=211, n_layer=3, bos_token_id=1, eos_token_ids=(1,)),
    "llama-one-kv-head": tiny_config(
        "llama", vocab_size=97, n_kv_head=1, tie_embeddings=False, bos_token_id=0, eos_token_ids=(0,)
    ),
}
TOKENS = [5, 17, 3, 90, 17, 17, 44, 2, 61]


@pytest.mark.parametrize("name", SHAPES)
def test_both_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    save_model(random_model(SHAPES[name]), tmp_path)
    ours = load_model(tmp_path)
    assert isinstance(ours, GPT)
    found = inspect_text(ours, TOKENS, top=7)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    trunk = theirs.transformer if name == "gpt2" else theirs.model
    norm = trunk.ln_f if name == "gpt2" else trunk.norm
    with torch.no_grad():
        answer = theirs(torch.tensor([TOKENS]), output_attentions=True, output_hidden_states=True)
        entered = []
        hook = norm.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        theirs(torch.tensor([TOKENS]))
        hook.remove()
        # The last of their hidden states has the final norm in it already.
        hidden = [*answer.hidden_states[:-1], entered[0]]
        expected = torch.cat([theirs.lm_head(norm(x)) for x in hidden]).softmax(-1)
    assert torch.allclose(expected[-1], answer.logits[0].softmax(-1), atol=1e-6)
    assert len(found.attention) == SHAPES[name].n_layer
    for ours_here, theirs_here in zip(found.attention, answer.attentions, strict=True):
        assert (ours_here - theirs_here[0]).abs().max() <= TOLERANCE
        assert (ours_here.sum(-1) - 1).abs().max() <= 1e-5
        assert not ours_here.triu(1).any()
    assert found.top_ids.shape == (SHAPES[name].n_layer + 1, len(TOKENS), 7)
    assert (found.top_probabilities - expected.topk(7).values).abs().max() <= TOLERANCE
    assert (expected.gather(-1, found.top_ids) - found.top_probabilities).abs().max() <= TOLERANCE
    assert found.top_probabilities.max() > 3 / SHAPES[name].vocab_size  # or the comparison would say little


def test_only_the_layers_asked_for_in_their_order() -> None:
    model = random_model(SHAPES["llama"])
    whole, part = inspect_text(model, TOKENS), inspect_text(model, TOKENS, [2, 0])
    assert [torch.equal(a, whole.attention[i]) for a, i in zip(part.attention, (2, 0), strict=True)] == [True, True]
    assert torch.equal(part.top_ids, whole.top_ids)
    assert not inspect_text(model, TOKENS, []).attention


def test_a_look_leaves_the_model_as_it_was() -> None:
    model = random_model(SHAPES["gpt2"])
    before = model(torch.tensor([TOKENS]))
    inspect_text(model, TOKENS)
    with pytest.raises(ContextLengthError):
        inspect_text(model, [3] * 129)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(torch.tensor([TOKENS])), before)


def test_a_classifiers_trunk_has_nothing_to_say_next() -> None:
    classifier = random_model(
        tiny_config("llama", vocab_size=97, labels=("a", "b"), pad_token_id=0, bos_token_id=0, eos_token_ids=(0,))
    )
    with pytest.raises(ConfigError, match="classifier"):
        inspect_text(classifier.trunk, TOKENS)
