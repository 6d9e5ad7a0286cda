"""The tokenizer in a GGUF file's metadata -> the contents of tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model.added_tokens import AddedToken
from model.errors import CheckpointError
from model.tokenizer import Tokenizer
from model.tokenizer_json import build

if TYPE_CHECKING:
    from model.gguf_file import GgufFile

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # gguf.TokenType

# llama.cpp names how text is cut before merging (`tokenizer.ggml.pre`, llama-vocab.cpp); these are the stages that the
# models' own tokenizer.json files have for it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FAMILIES: dict[str, tuple[str, ...]] = {
    # Files from before the field existed have "default" or nothing: they are GPT-2's kind.
    "gpt2": ("gpt-2", "default", "phi-2", "olmo", "mpt", "jais", "gigachat"),
    "digits": ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"),
    "llama3": ("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3", "pixtral"),
    "qwen2": ("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"),
    "tekken": ("tekken",),
}
_PATTERNS = {"llama3": _LLAMA3, "qwen2": _QWEN2, "tekken": _TEKKEN}


def read_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer, byte-level BPE. CheckpointError names the file and the metadata that can't be used."""
    kind = file.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise CheckpointError(
            f"{file.path}: tokenizer.ggml.model is {kind!r} (SentencePiece or another kind); only byte-level BPE ('gpt2') "
            "can be imported"
        )
    pre = file.text("tokenizer.ggml.pre", "default")
    family = next((family for family, names in _FAMILIES.items() if pre in names), None)
    if family is None:
        known = ", ".join(name for names in _FAMILIES.values() for name in names)
        raise CheckpointError(f"{file.path}: tokenizer.ggml.pre {pre!r} is not known; known are {known}")
    tokens, merges = file.texts("tokenizer.ggml.tokens"), file.texts("tokenizer.ggml.merges")
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise CheckpointError(f"{file.path}: tokenizer.ggml.tokens holds a token twice")
    ids = {name: _token_id(file, name, len(tokens)) for name in ("bos", "eos", "unknown", "padding", "eot")}
    added = _added_tokens(file, tokens, {ids["bos"], ids["eos"], ids["eot"]})
    by_id = {token.id: token for token in added}
    add_bos = file.flag("tokenizer.ggml.add_bos_token", family == "llama3") and ids["bos"] is not None
    data = build(
        vocab,
        [merge.split(" ") for merge in merges],
        added,
        pre_tokenizer=_pre_tokenizer(family),
        leading=by_id[ids["bos"]] if add_bos and ids["bos"] is not None else None,
        normalizer={"type": "NFC"} if family == "qwen2" else None,
        ignore_merges=family in ("llama3", "tekken"),
    )
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    named = {name: tokens[token_id] for name, kind in names.items() if (token_id := ids[kind]) is not None}
    return Tokenizer.from_json(data, {**named, "add_bos_token": add_bos}, source=f"{file.path} (tokenizer.ggml)")


def end_ids(file: GgufFile) -> list[int]:
    """The ids that end an answer: end of text, and end of turn where that is another one."""
    n_tokens = len(file.texts("tokenizer.ggml.tokens"))
    found = (_token_id(file, name, n_tokens) for name in ("eos", "eot"))
    return list(dict.fromkeys(token_id for token_id in found if token_id is not None))


def _token_id(file: GgufFile, name: str, n_tokens: int) -> int | None:
    field = f"tokenizer.ggml.{name}_token_id"
    token_id = file.number(field, -1)
    if token_id >= n_tokens:
        raise CheckpointError(f"{file.path}: {field} is {token_id}, but there are {n_tokens} tokens")
    return None if token_id < 0 else token_id


def _added_tokens(file: GgufFile, tokens: Sequence[str], ends: set[int | None]) -> list[AddedToken]:
    kinds = file.numbers("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(kinds) != len(tokens):
        raise CheckpointError(
            f"{file.path}: tokenizer.ggml.token_type has {len(kinds)} entries for {len(tokens)} tokens"
        )
    added: list[AddedToken] = []
    for token_id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        special = kind in (_UNKNOWN, _CONTROL) or token_id in ends
        if special or kind == _USER_DEFINED:
            added.append(AddedToken(token_id, token, special=special))
    return added


def _pre_tokenizer(family: str) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if family == "gpt2":
        return byte_level
    if family == "digits":
        first: dict[str, Any] = {"type": "Digits", "individual_digits": True}
    else:
        first = {"type": "Split", "pattern": {"Regex": _PATTERNS[family]}, "behavior": "Isolated", "invert": False}
        byte_level["use_regex"] = False
    return {"type": "Sequence", "pretokenizers": [first, byte_level]}
