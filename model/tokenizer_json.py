"""Reading and writing `tokenizer.json`, the format of the `tokenizers` library, as far as it is byte-level BPE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.added_tokens import AddedToken
from model.bpe import unspell_bytes
from model.normalizers import Normalizer
from model.pretokenizers import ByteLevel, PreTokenizer
from model.tokenizer_fields import Reader, read_normalizer, read_stages


@dataclass(frozen=True, kw_only=True)
class TokenizerParts:
    """What a `tokenizer.json` says, checked.

    vocab: token, spelled as in the file -> id. spelled: the same token -> its bytes, None when its characters stand for
    none (an added token may also be in the vocabulary).
    leading: the special token that the post-processor puts in front of a text.
    """

    vocab: dict[str, int]
    spelled: dict[str, bytes | None]
    merges: list[tuple[bytes, bytes]]
    added: list[AddedToken]
    normalizer: Normalizer | None
    pretokenizer: PreTokenizer
    unk_token: str | None
    fuse_unk: bool
    ignore_merges: bool
    leading: str | None


def parse(data: Mapping[str, Any], source: str) -> TokenizerParts:
    """Check a `tokenizer.json`'s content. TokenizerError names `source` (the file) and the field, also for a tokenizer
    that is sound but not byte-level BPE."""
    read = Reader(source)
    model = read.get(data, "model", dict)
    kind = model.get("type", "BPE")  # older files leave it out
    if kind != "BPE":
        raise read.fail("model.type", f"is {kind!r}; only byte-level BPE can be read")
    stages = read_stages(read, data.get("pre_tokenizer"), "pre_tokenizer")
    if sum(isinstance(stage, ByteLevel) for stage in stages) != 1:
        raise read.fail("pre_tokenizer", "has no ByteLevel stage (or several); only byte-level BPE can be read")
    _check_decoder(read, data.get("decoder"))
    vocab = _vocab(read, model)
    _check_model(read, model, vocab)
    spelled = {token: unspell_bytes(token) for token in vocab}
    return TokenizerParts(
        vocab=vocab,
        spelled=spelled,
        merges=_merges(read, model, spelled),
        added=_added_tokens(read, data, vocab),
        normalizer=read_normalizer(read, data.get("normalizer"), "normalizer"),
        pretokenizer=PreTokenizer(stages),
        unk_token=read.get(model, "model.unk_token", str, None),
        fuse_unk=read.get(model, "model.fuse_unk", bool, False),
        ignore_merges=read.get(model, "model.ignore_merges", bool, False),
        leading=_leading(read, data.get("post_processor")),
    )


def _vocab(read: Reader, model: Mapping[str, Any]) -> dict[str, int]:
    vocab = read.get(model, "model.vocab", dict)
    for token, token_id in vocab.items():
        if type(token_id) is not int or not 0 <= token_id < 2**24:
            raise read.fail(f"model.vocab[{token!r}]", f"is {token_id!r}, not an id")
    if len(set(vocab.values())) != len(vocab):
        raise read.fail("model.vocab", "gives one id to several tokens")
    return vocab


def _check_model(read: Reader, model: Mapping[str, Any], vocab: Mapping[str, int]) -> None:
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise read.fail(f"model.{field}", f"is {model[field]!r}; byte-level BPE has none")
    complete = sum(len(token) == 1 and unspell_bytes(token) is not None for token in vocab) == 256
    if model.get("byte_fallback") and not complete:
        raise read.fail("model.byte_fallback", "is set: the vocabulary is SentencePiece's; only byte-level can be read")
    unk = model.get("unk_token")
    if unk is not None and unk not in vocab:
        raise read.fail("model.unk_token", f"{unk!r} is not in model.vocab")


def _merges(read: Reader, model: Mapping[str, Any], spelled: Mapping[str, bytes | None]) -> list[tuple[bytes, bytes]]:
    merges: list[tuple[bytes, bytes]] = []
    for n, merge in enumerate(read.get(model, "model.merges", list)):
        try:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            pair = spelled[left], spelled[right]
            _ = spelled[left + right]
        except KeyError as error:
            raise read.fail(f"model.merges[{n}]", f"needs the token {error}, which is not in model.vocab") from None
        except (ValueError, TypeError):
            raise read.fail(f"model.merges[{n}]", f"is {merge!r}, not a pair of tokens") from None
        if pair[0] and pair[1]:  # other pairs hold characters that no text becomes: they never apply
            merges.append((pair[0], pair[1]))
    return merges


def _added_tokens(read: Reader, data: Mapping[str, Any], vocab: Mapping[str, int]) -> list[AddedToken]:
    tokens: list[AddedToken] = []
    for n, entry in enumerate(read.get(data, "added_tokens", list, [])):
        where = f"added_tokens[{n}]"
        if not isinstance(entry, dict):
            raise read.fail(where, "expected an object")
        flags = {
            flag: read.get(entry, f"{where}.{flag}", bool, False)
            for flag in ("special", "single_word", "lstrip", "rstrip", "normalized")
        }
        token_id = read.get(entry, f"{where}.id", int)
        if not 0 <= token_id < 2**24:
            raise read.fail(f"{where}.id", f"is {token_id}, not an id")
        content = read.get(entry, f"{where}.content", str)
        tokens.append(AddedToken(vocab.get(content, token_id), content, **flags))
    return tokens


def _check_decoder(read: Reader, entry: Any) -> None:
    if entry is None:
        return
    decoders = entry.get("decoders") if isinstance(entry, dict) and entry.get("type") == "Sequence" else [entry]
    for decoder in decoders if isinstance(decoders, list) else [decoders]:
        kind = decoder.get("type") if isinstance(decoder, dict) else decoder
        if kind not in ("ByteLevel", "Fuse"):
            raise read.fail("decoder.type", f"is {kind!r}; a byte-level tokenizer's is ByteLevel")


def _leading(read: Reader, entry: Any) -> str | None:
    """The first special token that the post-processor puts in front of a single text."""
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise read.fail("post_processor", "expected an object")
    kind = entry.get("type")
    if kind == "Sequence":
        found = [_leading(read, part) for part in read.get(entry, "post_processor.processors", list)]
        return next((token for token in found if token), None)
    if kind == "TemplateProcessing":
        first = next(iter(read.get(entry, "post_processor.single", list)), None)
        special = first.get("SpecialToken") if isinstance(first, dict) else None
        return special.get("id") if isinstance(special, dict) else None
    if kind in ("RobertaProcessing", "BertProcessing"):
        return str(read.get(entry, "post_processor.cls", list)[0])
    if kind != "ByteLevel":
        raise read.fail("post_processor.type", f"is {kind!r}; known are ByteLevel, TemplateProcessing and Sequence")
    return None


def build(
    vocab: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    added: Iterable[AddedToken],
    *,
    pre_tokenizer: Mapping[str, Any],
    leading: AddedToken | None = None,
    normalizer: Mapping[str, Any] | None = None,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """The content of a `tokenizer.json` that `tokenizers`, and so transformers and vLLM, load. `leading`: a special
    token put in front of every text."""
    processor: dict[str, Any] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    if leading is not None:
        start = {"SpecialToken": {"id": leading.content, "type_id": 0}}
        processor = {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                leading.content: {"id": leading.content, "ids": [leading.id], "tokens": [leading.content]}
            },
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [vars(token) for token in sorted(added, key=lambda token: token.id)],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocab),
            "merges": [" ".join(pair) for pair in merges],  # every version of tokenizers reads strings
        },
    }
