"""What a request's answer must be, computed by the plain generator and plain forwards of the whole text."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.adapters import load_with_adapter, save_adapter
from model.checkpoint import load_model
from model.classifier import as_classifier
from model.generate import generate
from model.gpt import GPT, SequenceClassifier
from model.lora import LoraConfig, add_lora, lora_pairs
from model.sampling import SamplingRow, sample
from model.sampling_params import SamplingParams

_TIE = 2e-4  # how far rounding may move a logit


def make_adapters(base: Path, directory: Path) -> dict[str, Path]:
    """Three adapters with random pairs, large enough to change every answer: "one", "two" (of another rank, on some of the
    projections), and "mood", which classifies."""
    made = {}
    for seed, (name, rank, targets) in enumerate(
        [("one", 4, "all"), ("two", 2, ("q_proj", "down_proj")), ("mood", 3, "all")]
    ):
        torch.manual_seed(seed)
        model = load_model(base)
        if name == "mood":
            model = as_classifier(model, ["good", "bad", "odd"])
        add_lora(model, LoraConfig(rank=rank, alpha=2.0 * rank, targets=targets))
        for _, pair in lora_pairs(model):
            torch.nn.init.normal_(pair.b, std=0.2)
        made[name] = directory / name
        save_adapter(model, made[name], str(base))
    return made


class Oracle:
    """The model in `base` and its adapters, each loaded by itself."""

    def __init__(self, base: Path, adapters: dict[str, Path]) -> None:
        self.models: dict[str | None, GPT | SequenceClassifier] = {None: load_model(base)}
        self.models |= {name: load_with_adapter(path)[0] for name, path in adapters.items()}

    def explains(
        self, tokens: Sequence[int], prompt: Sequence[int], params: SamplingParams, max_tokens: int, adapter: str | None
    ) -> bool:
        """Whether these are the plain generator's tokens, but for ties: places where rounding decides."""
        model = self.models[adapter]
        assert isinstance(model, GPT)
        expected = list(generate(model, prompt, params, max_tokens))
        if list(tokens) == expected:
            return True
        at = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=False)) if a != b), None)
        at = min(len(tokens), len(expected)) if at is None else at
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else {*model.config.eos_token_ids})
        row = SamplingRow(params, params.seed or 0, prompt, list(expected[:at]), ends)
        logits = self.logits([*prompt, *expected[:at]], adapter)[-1:]
        noise = torch.Generator().manual_seed(0)
        could = {
            int(sample(logits + _TIE * (torch.rand(logits.shape, generator=noise) - 0.5), [row])) for _ in range(64)
        }
        took = {tokens[at]} if at < len(tokens) else ends
        return len(could) > 1 and bool(could & took)

    def logits(self, tokens: Sequence[int], adapter: str | None) -> Tensor:
        """[T, V]."""
        model = self.models[adapter]
        assert isinstance(model, GPT)
        return model(torch.tensor([list(tokens)]))[0]

    def logprobs(self, tokens: Sequence[int], adapter: str | None) -> list[float]:
        """Of each token but the first."""
        table = self.logits(tokens, adapter).log_softmax(-1)
        return [float(table[i - 1, token]) for i, token in enumerate(tokens) if i]

    def embedding(self, tokens: Sequence[int], adapter: str | None) -> Tensor:
        """[D], not scaled."""
        model = self.models[adapter]
        assert isinstance(model, GPT)
        return model.hidden_states(torch.tensor([list(tokens)]))[0].mean(0)

    def scores(self, tokens: Sequence[int], adapter: str | None) -> Tensor:
        """[n_labels]."""
        model = self.models[adapter]
        assert isinstance(model, SequenceClassifier)
        return model(torch.tensor([list(tokens)]), torch.tensor([len(tokens)]))[0]
