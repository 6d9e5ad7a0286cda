"""Classification with a trained trunk: a head put on it, and texts -> the probability of each label."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import empty_model
from model.errors import TokenizerError
from model.gpt import GPT, SequenceClassifier
from model.tokenizer import Tokenizer

Ids = Sequence[int] | np.ndarray  # a text's token ids


def as_classifier(model: GPT | SequenceClassifier, labels: Sequence[str], *, seed: int = 0) -> SequenceClassifier:
    """A classifier on the same weights (shared, not copied), its head drawn from `seed`; a head that was there is left.

    The padding token is the config's, else its end token, else token 0: padding never changes a score here, but other
    libraries find each row's last token by it.
    """
    trunk, config = (model.trunk, model.config) if isinstance(model, SequenceClassifier) else (model, model.config)
    candidates = (config.pad_token_id, *config.eos_token_ids, config.bos_token_id, 0)
    pad = next(token for token in candidates if token is not None)
    config = replace(config, labels=tuple(labels), pad_token_id=pad)
    classifier = empty_model(config)
    assert isinstance(classifier, SequenceClassifier)
    weight = trunk.token_embedding.weight
    noise = torch.randn(len(labels), config.d_model, generator=torch.Generator().manual_seed(seed))
    state = {f"trunk.{name}": tensor for name, tensor in trunk.state_dict().items() if not name.startswith("head.")}
    state["score.weight"] = (noise * config.initializer_range).to(weight.device, weight.dtype)
    classifier.load_state_dict(state, assign=True)
    return classifier.to(weight.device).train(model.training).requires_grad_(weight.requires_grad)


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as a classifier reads it: BOS in front where the tokenizer wants it; nothing in the text becomes a special token.
    TokenizerError when there is no token at all."""
    ids = tokenizer.encode(text)
    if tokenizer.add_bos and tokenizer.bos_token_id is not None:
        ids.insert(0, tokenizer.bos_token_id)
    if not ids:
        raise TokenizerError("the text to classify is empty")
    return ids


def pad_rows(rows: Sequence[Ids], pad: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> tokens [B, longest] int64, padded on the right, and their lengths [B] int64."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens, lengths


@torch.no_grad()
def label_scores(
    model: SequenceClassifier,
    rows: Sequence[Ids],
    *,
    batch_tokens: int = 8192,
    bf16: bool = False,
    done: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Scores [n, n_labels] float32 on the CPU of tokenised texts, in their order. Rows of like length are computed
    together, at most `batch_tokens` tokens at a time, padding included. `bf16`: products in bfloat16. `done` is told
    how many are finished."""
    device, was_training = model.score.weight.device, model.training
    pad = model.config.pad_token_id or 0
    scores = torch.empty(len(rows), len(model.config.labels))
    model.eval()
    try:
        for batch in _by_length(rows, batch_tokens):
            tokens, lengths = pad_rows([rows[i] for i in batch], pad)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                scores[batch] = model(tokens.to(device), lengths.to(device)).float().cpu()
            done(len(batch))
    finally:
        model.train(was_training)
    return scores


def classify_texts(model: SequenceClassifier, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Probabilities [n, n_labels] float32 of each text's labels; a text longer than the context is cut at its end.
    TokenizerError when a text is empty."""
    rows = [encode_text(tokenizer, text)[: model.config.context_length] for text in texts]
    return label_scores(model, rows).softmax(-1)


def _by_length(rows: Sequence[Ids], batch_tokens: int) -> list[list[int]]:
    """Indices of rows in batches, the longest first."""
    batches: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        width = len(rows[batches[-1][0]]) if batches else 0
        if batches and width * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
