"""GPT-2's vocabulary, which ships with this package, and the two forms in which others keep it."""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.added_tokens import AddedToken
from model.bpe import recover_merges, spell_bytes
from model.errors import TokenizerError
from model.files import read_json
from model.tokenizer_json import build

END_OF_TEXT = "<|endoftext|>"
PATH = Path(__file__).parent / "vocab" / "gpt2.tiktoken"  # its source and licence: the README.md beside it
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
SIZE = 50_257  # with END_OF_TEXT, which comes last
_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def read_tokens() -> list[bytes]:
    """The tokens but END_OF_TEXT, in the order of their ids, which is that of their ranks. TokenizerError when the file
    isn't the published one."""
    try:
        content = PATH.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{PATH}: can't be read: {error.strerror}; install homegrown again") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise TokenizerError(f"{PATH}: is damaged or cut short (its sha256 is not {SHA256}); install homegrown again")
    return [binascii.a2b_base64(line.split()[0]) for line in content.splitlines()]


def to_json(tokens: Sequence[bytes]) -> bytes:
    """`read_tokens`' result as a `tokenizer.json`."""
    merges = [[spell_bytes(left), spell_bytes(right)] for left, right in recover_merges(tokens[256:])]
    vocab = {spell_bytes(token): rank for rank, token in enumerate(tokens)}
    end = AddedToken(SIZE - 1, END_OF_TEXT, special=True)
    data = build({**vocab, END_OF_TEXT: end.id}, merges, [end], pre_tokenizer=_SPLIT)
    return json.dumps(data, ensure_ascii=False).encode()


def from_vocab_and_merges(directory: Path) -> dict[str, Any]:
    """`vocab.json` and `merges.txt`, the older pair of files -> the content of a tokenizer.json."""
    vocab = read_json(directory / "vocab.json", TokenizerError)
    path = directory / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: can't be read: {error}") from None
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    added = [AddedToken(vocab[END_OF_TEXT], END_OF_TEXT, special=True)] if END_OF_TEXT in vocab else []
    return build(vocab, merges, added, pre_tokenizer=_SPLIT)
