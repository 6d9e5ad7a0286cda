"""The baseline a language model must beat: n-gram models with interpolated, modified Kneser-Ney smoothing.

Chen and Goodman, 1999, section 3. Over the same token ids and the same stream as the model's own score, so the figures compare.
Everything is a sorted array of n-gram keys: an n-gram's key is (its first n-1 tokens' number) * V + its last token.
"""

import math
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from training.data.loader import TokenArray
from training.evaluate.perplexity import Score

_PIECE = 1 << 20  # tokens scored at a time
# Of memory a token, to count models of up to five tokens: measured, 130 for text-like tokens, 210 for random ones.
BYTES_PER_TOKEN = 220


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length. `keys` [m] int64, sorted; `share` [m] the discounted probability of the last token after the
    others; `backoff` [contexts]: the probability mass that a context leaves to the shorter n-grams."""

    keys: np.ndarray
    share: np.ndarray
    backoff: np.ndarray


class NgramCounts:
    """What the n-gram models of `tokens` [n] (integers below `vocab_size`) are made from, up to length `order`."""

    def __init__(self, tokens: np.ndarray, order: int, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        tokens = tokens.astype(np.int64)
        ids = np.zeros(len(tokens) + 1, np.int64)  # ids[i]: the number of the (n-1)-gram that ends before token i
        previous = ids  # number of the (n-1)-gram that starts at each token
        self.keys: list[np.ndarray] = []
        self.occurrences: list[np.ndarray] = []  # how often each n-gram occurs
        self.predecessors: list[
            np.ndarray
        ] = []  # how many different tokens stand before each n-gram (not of the longest)
        for n in tqdm(range(1, order + 1), desc="counting n-grams", leave=False, disable=None):
            # Token i with the n-1 before it; the first n-1 tokens of the stream have no full n-gram.
            key = ids[n - 1 : len(tokens)] * vocab_size + tokens[n - 1 :]
            unique, first, inverse, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
            if n > 1:
                suffix = previous[first + 1]  # each n-gram's last n-1 tokens, as a number among the (n-1)-grams
                self.predecessors.append(np.bincount(suffix, minlength=len(self.keys[-1])))
            self.keys.append(unique)
            self.occurrences.append(count)
            previous = inverse
            ids = np.concatenate([np.zeros(n, np.int64), inverse])


class KneserNey:
    """The n-gram model of length `order`, at most that of the counts."""

    def __init__(self, counts: NgramCounts, order: int) -> None:
        self.vocab_size = counts.vocab_size
        self.orders: list[_Order] = []
        for n in range(1, order + 1):
            # Below the highest order a count is of the different tokens seen before the n-gram, not of its occurrences.
            seen = counts.occurrences[n - 1] if n == order else counts.predecessors[n - 1]
            contexts = 1 if n == 1 else len(counts.keys[n - 2])
            self.orders.append(_smooth(counts.keys[n - 1], seen, self.vocab_size, contexts))

    def score(self, tokens: TokenArray) -> Score:
        """Score all but the first of tokens [n], each predicted from up to order - 1 tokens before it; a piece at a time, so that a
        stream larger than memory can be scored."""
        nats, before = 0.0, len(self.orders) - 1
        for start in range(1, len(tokens), _PIECE):
            end = min(start + _PIECE, len(tokens))
            piece = tokens[max(0, start - 1 - before) : end]
            nats -= float(self.logprobs(piece)[start - end :].sum())
        return Score(nats, len(tokens) - 1)

    def logprobs(self, tokens: np.ndarray) -> np.ndarray:
        """The log-probability (nats) of each of tokens[1:], [n - 1] float64, from up to order - 1 tokens before it."""
        tokens = tokens.astype(np.int64)
        probability = np.full(len(tokens), 1.0 / self.vocab_size)
        context = np.zeros(len(tokens), np.int64)  # number of the (n-1)-gram before each token; -1: never seen
        for n, level in enumerate(self.orders, 1):
            known = context >= 0
            key = np.where(known, context * self.vocab_size + tokens, -1)
            place = np.minimum(np.searchsorted(level.keys, key), len(level.keys) - 1)
            seen = known & (level.keys[place] == key)
            left = np.where(known, level.backoff[np.maximum(context, 0)], 1.0)
            probability = left * probability + np.where(seen, level.share[place], 0.0)
            ended = np.where(seen, place, -1)  # number of the n-gram that ends at each token
            context = np.concatenate([[-1], ended[:-1]])
            context[: min(n, len(context))] = -1
        return np.log(probability[1:])

    def distribution(self, context: np.ndarray) -> np.ndarray:
        """The probability of every token after `context` [n], [vocab_size] float64."""
        probability = np.full(self.vocab_size, 1.0 / self.vocab_size)
        tail = [int(token) for token in context[max(0, len(context) - len(self.orders) + 1) :]]
        for n, level in enumerate(self.orders, 1):
            number = self._number(tail[len(tail) - n + 1 :]) if n - 1 <= len(tail) else -1
            if number < 0:
                break  # a context never seen has no longer one that was
            first, last = np.searchsorted(level.keys, [number * self.vocab_size, (number + 1) * self.vocab_size])
            probability *= level.backoff[number]
            probability[level.keys[first:last] % self.vocab_size] += level.share[first:last]
        return probability

    def _number(self, gram: list[int]) -> int:
        """The number of an n-gram among those of its length, -1 if it was never seen; 0 for the empty one."""
        number = 0
        for level, token in zip(self.orders, gram, strict=False):
            key = number * self.vocab_size + token
            place = int(np.searchsorted(level.keys, key))
            if place == len(level.keys) or level.keys[place] != key:
                return -1
            number = place
        return number


def _smooth(keys: np.ndarray, counts: np.ndarray, vocab_size: int, contexts: int) -> _Order:
    context = keys // vocab_size
    having = [int((counts == k).sum()) for k in range(1, 5)]  # n-grams with count 1, 2, 3, 4
    base = having[0] / max(1, having[0] + 2 * having[1])
    discount = np.zeros(4)
    for k in (1, 2, 3):
        estimate = min(k - (k + 1) * base * having[k] / max(1, having[k - 1]), float(k))
        # Few n-grams can make it 0, which would leave nothing to those never seen: KenLM's fallback (Heafield, 2011) instead.
        discount[k] = estimate if estimate > 0 else 0.5 * k
    cut = discount[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=contexts)
    freed = np.bincount(context, weights=np.minimum(cut, counts), minlength=contexts)
    occurs = total > 0
    backoff = np.where(occurs, freed / np.where(occurs, total, 1.0), 1.0)
    share = (counts - np.minimum(cut, counts)) / np.where(occurs, total, 1.0)[context]
    return _Order(keys, share, backoff)


def baselines(
    train: np.ndarray, evaluation: TokenArray, vocab_size: int, n_bytes: int, order: int = 5
) -> list[dict[str, float]]:
    """Loss and bits per byte of 1- to `order`-gram models of `train` on `evaluation` (whose text is `n_bytes` long)."""
    counts, rows = NgramCounts(train, order, vocab_size), []
    for n in range(1, order + 1):
        score = KneserNey(counts, n).score(evaluation)
        rows.append({"order": n, "loss": score.loss, "bits_per_byte": score.nats / math.log(2) / n_bytes})
    return rows
