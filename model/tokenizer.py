"""Byte-level BPE: text <-> token ids, and ids -> text one at a time.

Text is bytes here: every token stands for a fixed string of bytes, and characters are made of bytes only at the very
end, so that half a character never shows.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from model import gpt2_vocabulary
from model.added_tokens import AddedToken, AddedTokens
from model.bpe import BytePairEncoder, reachable_tokens
from model.errors import TokenizerError
from model.files import read_json
from model.gpt2_vocabulary import END_OF_TEXT
from model.pretokenizers import ByteLevel, PreTokenizer, cut_behind_words
from model.tokenizer_json import parse

if TYPE_CHECKING:
    import numpy as np


class Tokenizer:
    """Immutable after construction, so safe to share between threads.

    vocab_size: one more than the largest id. An id without a token (a gap, or a padding row of the embedding) decodes
    to nothing.
    special_tokens: text -> id of the tokens that control the model; `encode` makes them of text only when told to.
    eos_token_id, bos_token_id: None when the tokenizer's files name none.
    add_bos: whether a prompt is to begin with BOS. `encode` itself never adds it.
    """

    vocab_size: int
    special_tokens: dict[str, int]
    eos_token_id: int | None
    bos_token_id: int | None
    add_bos: bool

    def __init__(
        self,
        *,
        encoder: BytePairEncoder,
        added: AddedTokens,
        token_bytes: Mapping[int, bytes],
        special_tokens: Mapping[str, int],
        leading: str | None,
        config: Mapping[str, Any],
        to_json: bytes | None,
        source: str,
    ) -> None:
        """`config` is the content of a tokenizer_config.json, `to_json` the tokenizer.json that `save` writes (None:
        GPT-2's, made when asked for). The classmethods are the way to get one."""
        self.vocab_size = 1 + max(token_bytes, default=-1)
        self.special_tokens = dict(special_tokens)
        self._bytes = [token_bytes.get(token_id, b"") for token_id in range(self.vocab_size)]
        self._special_ids = frozenset(special_tokens.values())
        self._encoder = encoder
        self._added = added
        self._config = dict(config)
        self._json = to_json
        all_ids = {data: token_id for token_id, data in token_bytes.items()}
        self.eos_token_id = _named_token(config, "eos_token", all_ids, source)
        self.bos_token_id = _named_token(config, "bos_token", all_ids, source)
        if self.bos_token_id is None and leading is not None:
            self.bos_token_id = all_ids.get(leading.encode())
        explicit = config.get("add_bos_token")
        self.add_bos = self.bos_token_id is not None and (
            explicit if isinstance(explicit, bool) else leading is not None
        )  # fmt: skip

    @classmethod
    def gpt2(cls) -> Self:
        """OpenAI's GPT-2 vocabulary of 50,257 tokens, shipped with this package (see vocab/README.md)."""
        tokens = gpt2_vocabulary.read_tokens()
        end = AddedToken(len(tokens), END_OF_TEXT, special=True)
        return cls(
            encoder=BytePairEncoder(
                {token: rank for rank, token in enumerate(tokens)}, tokens[256:], PreTokenizer([ByteLevel()])
            ),
            added=AddedTokens([end], None),
            token_bytes={**dict(enumerate(tokens)), end.id: END_OF_TEXT.encode()},
            special_tokens={END_OF_TEXT: end.id},
            leading=None,
            config={"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT},
            to_json=None,
            source=gpt2_vocabulary.PATH.name,
        )

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """A byte-level `tokenizer.json` by itself. It doesn't name an end-of-text token: `<|endoftext|>` is taken when
        there is one. TokenizerError names the file and field that can't be used."""
        data = read_json(Path(path), TokenizerError)
        content = {entry.get("content") for entry in data.get("added_tokens") or [] if isinstance(entry, dict)}
        config = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT} if END_OF_TEXT in content else {}
        return cls.from_json(data, config, source=str(path))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], config: Mapping[str, Any], *, source: str) -> Self:
        """From the contents of a tokenizer.json and a tokenizer_config.json; `source` stands in error messages."""
        parts = parse(data, source)
        vocab = {spelled: parts.vocab[token] for token, spelled in parts.spelled.items() if spelled}
        merged = reachable_tokens(parts.merges)
        made = {*merged, *(bytes([byte]) for byte in range(256))}
        for token in parts.added:  # a special token may be in the vocabulary as well, but no piece of text becomes it
            if token.special and (content := token.content.encode("utf-8", "replace")) not in made:
                vocab.pop(content, None)
        encoder = BytePairEncoder(
            vocab,
            merged,
            parts.pretokenizer,
            unk_id=None if parts.unk_token is None else parts.vocab[parts.unk_token],
            fuse_unk=parts.fuse_unk,
            ignore_merges=parts.ignore_merges,
        )
        token_bytes = {
            token_id: parts.spelled[token] or token.encode("utf-8", "replace")
            for token, token_id in parts.vocab.items()
        }
        token_bytes |= {token.id: token.content.encode("utf-8", "replace") for token in parts.added}
        return cls(
            encoder=encoder,
            added=AddedTokens(parts.added, parts.normalizer),
            token_bytes=token_bytes,
            special_tokens={token.content: token.id for token in parts.added if token.special},
            leading=parts.leading,
            config=config,
            to_json=json.dumps(data, ensure_ascii=False).encode(),
            source=source,
        )

    @classmethod
    def from_directory(cls, directory: Path | str) -> Self:
        """The tokenizer of a model directory: `tokenizer.json`, else `vocab.json` and `merges.txt`, else, for an
        architecture gpt2 of 50,257 tokens, GPT-2's own. What it says is checked against config.json's vocab_size."""
        directory = Path(directory)
        model = _json_or_empty(directory / "config.json")
        if (directory / "tokenizer.json").is_file():
            source, data = directory / "tokenizer.json", read_json(directory / "tokenizer.json", TokenizerError)
        elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            source, data = directory / "vocab.json", gpt2_vocabulary.from_vocab_and_merges(directory)
        elif model.get("model_type") == "gpt2" and model.get("vocab_size") == gpt2_vocabulary.SIZE:
            return cls.gpt2()
        else:
            raise TokenizerError(f"{directory}: no tokenizer.json; put the model's own there")
        config = _json_or_empty(directory / "tokenizer_config.json")
        _fill_from_model_config(config, model, data)
        tokenizer = cls.from_json(data, config, source=str(source))
        rows = model.get("vocab_size")
        if isinstance(rows, int) and tokenizer.vocab_size > rows:
            raise TokenizerError(
                f"{source}: has ids up to {tokenizer.vocab_size - 1}, but vocab_size in config.json is {rows}; "
                "one of the two files belongs to another model"
            )
        return tokenizer

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`; BOS isn't added. Special tokens written in the text are text like any other unless
        `allow_special`. A lone surrogate, which no encoding can carry, becomes U+FFFD."""
        text = _without_surrogates(text)
        ids: list[int] = []
        for part in self._added.split(text, allow_special=allow_special):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encoder.encode(part)
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        """`encode`, special tokens left as text, as [n] uint32: faster, and outside Python's lock."""
        import numpy as np

        parts: list[np.ndarray] = []
        for part in self._added.split(_without_surrogates(text), allow_special=False):
            parts.append(np.array([part], np.uint32) if isinstance(part, int) else self._encoder.encode_array(part))
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint32), *parts])

    def cut(self, text: str, size: int) -> Iterator[str]:
        """`text` in parts of `size` characters or little more, whose ids end to end are those of the text; in one part with a
        tokenizer that gives no surety of that, or where no word ends."""
        return cut_behind_words(text, size) if self._added.plain and self._encoder.parts_words else iter([text])

    def encode_rendered(self, text: str, undo: Mapping[int, str]) -> list[int]:
        """Ids of a filled-in template: special tokens are made of what it spells out, then stand-in characters in the
        texts between become, by `undo` (code point -> character), what they stand for, and never part of one."""
        ids: list[int] = []
        for part in self._added.cut(text):
            ids += [part] if isinstance(part, int) else self.encode(part.translate(undo))
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a raw prompt to continue: special tokens written in it count as such, BOS stands in front where the
        tokenizer wants it, and an empty text begins where the texts of the training data began. TokenizerError for an
        empty text when there is neither a BOS nor an end-of-text token."""
        ids = self.encode(text, allow_special=True)
        if self.add_bos and self.bos_token_id is not None and ids[:1] != [self.bos_token_id]:
            ids.insert(0, self.bos_token_id)
        if not ids:
            begin = self.eos_token_id if self.bos_token_id is None else self.bos_token_id
            if begin is None:
                raise TokenizerError(
                    "the prompt is empty, and this model has no token that begins a text; give some text"
                )
            ids = [begin]
        return ids

    def encode_batch(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """`encode` of each text. Threads help, since tiktoken works outside Python's lock."""
        if threads <= 1:
            return [self.encode(text) for text in texts]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode, texts))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for: often part of a character only. Empty for an id without a token."""
        return self._bytes[token_id] if 0 <= token_id < self.vocab_size else b""

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """The exact bytes of the tokens, one after the other; special tokens as their text, or left out."""
        if skip_special:
            ids = (token_id for token_id in ids if token_id not in self._special_ids)
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text; bytes that aren't UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def save(self, directory: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as transformers, vLLM and the others load them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = (
            self._json if self._json is not None else gpt2_vocabulary.to_json(self._bytes[: gpt2_vocabulary.SIZE - 1])
        )
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self._config}
        config.pop("chat_template", None)  # stands in chat_template.jinja
        (directory / "tokenizer.json").write_bytes(content)
        (directory / "tokenizer_config.json").write_text(
            json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


class IncrementalDecoder:
    """One sequence's tokens -> text, as it grows. A character is given out once all its bytes are there; bytes that
    can't become one are given out as U+FFFD, exactly as `Tokenizer.decode` would of the whole."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes; often empty in the middle of a character."""
        if self._skip_special and self._tokenizer.is_special(token_id):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """The end: U+FFFD if a character was left incomplete. The decoder is as new afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _without_surrogates(text: str) -> str:
    """A lone surrogate, which no encoding can carry, becomes U+FFFD."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _json_or_empty(path: Path) -> dict[str, Any]:
    return read_json(path, TokenizerError) if path.is_file() else {}


def _named_token(config: Mapping[str, Any], field: str, ids: Mapping[bytes, int], source: str) -> int | None:
    """The id of a token that tokenizer_config.json names, as a string or as an object with `content`."""
    value = config.get(field)
    if isinstance(value, dict):
        value = value.get("content")
    if value is None:
        return None
    if not isinstance(value, str) or value.encode("utf-8", "replace") not in ids:
        raise TokenizerError(f"{source}: the {field} of tokenizer_config.json, {value!r}, is not in the vocabulary")
    return ids[value.encode("utf-8", "replace")]


def _fill_from_model_config(config: dict[str, Any], model: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Older directories (openai-community/gpt2) give the ends of a text in config.json alone, as ids."""
    entries = [entry for entry in data.get("added_tokens") or [] if isinstance(entry, dict)]
    by_id = {entry.get("id"): entry.get("content") for entry in entries}
    for field in ("bos_token", "eos_token"):
        token_id = model.get(f"{field}_id")
        token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
        if field not in config and isinstance(token_id, int) and token_id in by_id:
            config[field] = by_id[token_id]
