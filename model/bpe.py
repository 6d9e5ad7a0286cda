"""Byte-level byte-pair encoding of one stretch of text, done by tiktoken.

tiktoken merges two neighbours when their *concatenation* is a known token, lowest rank first. A `tokenizer.json` lists
*pairs* instead: only a listed pair may merge. The two agree exactly once every token that merging can't produce is
left out. Why: as long as no merge has crossed the ends of a stretch of bytes, the merges inside it are those that the
stretch would go through on its own. So a token T arises in any text only if T's own bytes, merged alone, end as T, and
then always from the same last pair; `reachable_tokens` keeps just those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tiktoken

    from model.pretokenizers import PreTokenizer

LONG_TEXT = 100_000  # characters; up to here no run of blanks overflows the stack of tiktoken's regex engine (at 10^6)
_NOT_A_BYTE = "\uffff"


@cache
def _alphabet() -> tuple[dict[int, str], dict[int, str]]:
    """GPT-2's spelling of bytes as printable characters (openai/gpt-2, `encoder.py`): to characters, and back."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spelled = {byte: chr(byte) for byte in printable}
    for n, byte in enumerate(byte for byte in range(256) if byte not in spelled):
        spelled[byte] = chr(0x100 + n)
    back = dict.fromkeys(range(256), _NOT_A_BYTE) | {ord(char): chr(byte) for byte, char in spelled.items()}
    return spelled, back


def spell_bytes(data: bytes) -> str:
    """`b" a"` -> `"Ġa"`: bytes as a byte-level `tokenizer.json` spells them, one character each."""
    return data.decode("latin-1").translate(_alphabet()[0])


def unspell_bytes(token: str) -> bytes | None:
    """`"Ġa"` -> `b" a"`; None for a string that has characters which stand for no byte."""
    try:
        return token.translate(_alphabet()[1]).encode("latin-1")
    except UnicodeEncodeError:
        return None


def reachable_tokens(merges: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The tokens that these merges (best first) can produce, in the order of the pair that produces each."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pairs: dict[bytes, tuple[bytes, bytes]] = {}
    born = {bytes([byte]): -1 for byte in range(256)}  # the rank of the merge that makes each token
    used_early: set[bytes] = set()
    for rank, (left, right) in enumerate(merges):
        if ranks[left, right] != rank:  # listed again further down; the last one counts
            continue
        if left not in born or right not in born:
            used_early |= {left, right} - born.keys()
        elif _meet(left, right, ranks, pairs, born):
            pairs[left + right] = left, right
            born[left + right] = rank
    if used_early.isdisjoint(left + right for left, right in merges):
        return list(pairs)
    # A merge is listed before those that make its parts. No trainer writes that; find out by merging each token.
    infinity = float("inf")
    best_first = sorted(ranks, key=ranks.__getitem__)
    return [a + b for a, b in best_first if _last_pair(a + b, lambda pair: ranks.get(pair, infinity)) == (a, b)]


def _meet(
    left: bytes,
    right: bytes,
    ranks: Mapping[tuple[bytes, bytes], int],
    pairs: Mapping[bytes, tuple[bytes, bytes]],
    born: Mapping[bytes, int],
) -> bool:
    """Whether `left` and `right`, merged from their bytes side by side, both get whole. Goes back in time, taking the
    younger one apart, and looks whether the neighbours at the seam would have merged before they became part of
    something else. At equal rank the merge further left comes first."""
    left_until = right_until = len(ranks)
    while True:
        if born[left] > born[right]:
            left_until, left = born[left], pairs[left][1]
        elif born[right] >= 0:
            right_until, right = born[right], pairs[right][0]
        else:
            return True
        rank = ranks.get((left, right))
        if rank is not None and rank < left_until and rank <= right_until:
            return False


def _last_pair(token: bytes, rank: Callable[[tuple[bytes, bytes]], float]) -> tuple[bytes, bytes] | None:
    """The two parts that `token`'s bytes come down to, merging the lowest rank first; None if they stop before."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        ranks = [rank(pair) for pair in pairwise(parts)]
        best = min(ranks)
        if best == float("inf"):
            return None
        at = ranks.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def recover_merges(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The merges behind a tiktoken vocabulary's tokens of two bytes and more, given in rank order."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    infinity = float("inf")
    pairs = (_last_pair(token, lambda pair: ranks.get(pair[0] + pair[1], infinity)) for token in tokens)
    return [pair for pair in pairs if pair is not None]


class BytePairEncoder:
    """Text without special tokens -> ids. Immutable, so safe to share between threads.

    vocab: token bytes -> id, single bytes included. A byte that the vocabulary lacks becomes `unk_id` (neighbours
    fused into one when `fuse_unk`), or nothing when that is None.
    merged: the tokens of two bytes and more that merging produces, best first.
    ignore_merges: a piece that is itself a token is taken whole, even when merging would not produce it.
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merged: Sequence[bytes],
        pretokenizer: PreTokenizer,
        *,
        unk_id: int | None = None,
        fuse_unk: bool = False,
        ignore_merges: bool = False,
    ) -> None:
        self._pretokenizer = pretokenizer
        self.parts_words = pretokenizer.parts_words
        self._unk_id = unk_id
        self._fuse_unk = fuse_unk
        ids = [vocab[token] for token in merged]
        known = [bytes([byte]) for byte in range(256) if bytes([byte]) in vocab]
        self._missing = frozenset(range(256)) - {token[0] for token in known}
        self._whole: dict[bytes, int] = {}
        self._ids: list[int] | None = None
        if all(a < b for a, b in pairwise(ids)):  # the ids serve as ranks, nothing to translate
            ranks = {token: vocab[token] for token in (*known, *merged)}
        else:
            ranks = {token: rank for rank, token in enumerate((*known, *merged))}
            self._ids = [vocab[token] for token in ranks]
        if ignore_merges:
            self._add_whole_pieces(vocab, ranks)
        # tiktoken needs all 256 bytes: those that the vocabulary lacks get ranks past the end, so that they show.
        self._first_missing = 1 + max(ranks.values(), default=-1)
        self._core = self._encoding(ranks)

    def _encoding(self, ranks: Mapping[bytes, int]) -> tiktoken.Encoding:
        import tiktoken

        end = 1 + max(ranks.values(), default=-1)
        missing = {bytes([byte]): end + byte for byte in self._missing}
        pattern = self._pretokenizer.pattern or r"(?s:.+)"
        # Never made of text, since no call allows it. Without any, `encode_to_numpy` looks for one at every character.
        never = {"<|endoftext|>": end + 256}
        return tiktoken.Encoding(
            "homegrown", pat_str=pattern, mergeable_ranks={**ranks, **missing}, special_tokens=never
        )  # fmt: skip

    def _add_whole_pieces(self, vocab: Mapping[bytes, int], ranks: dict[bytes, int]) -> None:
        """Tokens for `ignore_merges`. One that its own bytes never come down to two parts of can't arise by a merge
        that shouldn't be, so tiktoken may know it; the others are looked up piece by piece."""
        core = self._encoding(ranks)
        for token, token_id in vocab.items():
            if len(token) < 2 or token in ranks:
                continue
            if self._ids is None and len(core._encode_single_piece(token)) > 2:
                ranks[token] = token_id
            else:
                self._whole[token] = token_id

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, which holds no added token and no lone surrogate. Time grows linearly with the length."""
        if self._pretokenizer.pattern is not None and not self._whole and not self._risky(text):
            ranks: list[int] = []
            for segment in self._pretokenizer.segments(text):
                ranks += self._core.encode_ordinary(segment)
            if not self._missing or max(ranks, default=-1) < self._first_missing:
                return self._to_ids(ranks)
        return [token for piece in self._pretokenizer.pieces(text) for token in self._encode_piece(piece)]

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as [n] uint32, which for the usual vocabularies needs no list of Python integers."""
        import numpy as np

        pattern, direct = self._pretokenizer.pattern, self._ids is None and not self._whole and not self._missing
        if pattern is None or not direct or self._risky(text):
            return np.array(self.encode(text), np.uint32)
        parts = [self._core.encode_to_numpy(part, disallowed_special=()) for part in self._pretokenizer.segments(text)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint32), *parts])

    def _risky(self, text: str) -> bool:
        """Whether tiktoken's regex engine could overflow: long text, with a long run of blanks or by a pattern that
        nobody tried. A run of LONG_TEXT / 2 blanks holds at least one whole block of half that size."""
        if len(text) <= LONG_TEXT:
            return False
        block = LONG_TEXT // 4
        blank = any(text[start : start + block].isspace() for start in range(0, len(text), block))
        return blank or not self._pretokenizer.tried

    def _encode_piece(self, piece: bytes) -> list[int]:
        if piece in self._whole:
            return [self._whole[piece]]
        ranks = self._core._encode_single_piece(piece)
        if self._missing and max(ranks) >= self._first_missing:
            return self._encode_with_unknown(piece)
        return self._to_ids(ranks)

    def _encode_with_unknown(self, piece: bytes) -> list[int]:
        """As `tokenizers` does it: without an unknown token the bytes on both sides become neighbours."""
        if self._unk_id is None:
            known = bytes(byte for byte in piece if byte not in self._missing)
            return self._to_ids(self._core._encode_single_piece(known)) if known else []
        ids: list[int] = []
        start, fusing = 0, False
        for at, byte in enumerate(piece):
            if byte not in self._missing:
                fusing = False
                continue
            if start < at:
                ids += self._to_ids(self._core._encode_single_piece(piece[start:at]))
            if not (fusing and self._fuse_unk):
                ids.append(self._unk_id)
            start, fusing = at + 1, True
        if start < len(piece):
            ids += self._to_ids(self._core._encode_single_piece(piece[start:]))
        return ids

    def _to_ids(self, ranks: list[int]) -> list[int]:
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]
