"""Documents as the one run of tokens that perplexity and n-gram models are measured on."""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from model.tokenizer import Tokenizer
from training.evaluate.scoring import start_token


def tokenize_stream(documents: Iterable[str], tokenizer: Tokenizer, *, threads: int = 1) -> np.ndarray:
    """Documents as one run of tokens [n] int64, each behind the token that texts begin with."""
    start, parts, rest = start_token(tokenizer), [], iter(documents)
    while texts := list(islice(rest, 64)):
        for ids in tokenizer.encode_batch(texts, threads=threads):
            parts.append(np.asarray([start, *ids], np.int64))
    return np.concatenate(parts)
