"""Any byte-level `tokenizer.json`: ours against the `tokenizers` library that defines the format."""

import itertools
import json
import random
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Reference

from model.bpe import LONG_TEXT, spell_bytes
from model.errors import TokenizerError
from model.normalizers import unicode_form
from model.tokenizer import Tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CORPUS = [
    "The year 1999 was followed by 2000; 12345678 people didn't notice.\n\n  They'll say: it's fine!  ",
    "def f(x):\n    return x * 2  # naïve café, 中文字符, и русский текст\r\n\t\tif x > 10:\n",
    "Aaaa aaaa bbbb 🙂🙂 the then there these three thesis anthem. I'VE SEEN 'TIS and DON'T 3.14159 ...",
] * 3

# Characters of Unicode 14: the engines know different versions, and would cut newer ones differently.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn", "Co"))
TEXT = (
    st.text(CHARACTERS, max_size=50)
    | st.text(alphabet="abtheTHE 0123\n\r\t'.,!éü中字🙂\u0301\u00a0<|>x²½ſK", max_size=80)
    | st.lists(st.sampled_from([*CORPUS[1].split(" "), " ", "  ", "<|end|>", "<user>", "12", "'s", "'LL"])).map("".join)
)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PRETOKENIZERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "prefix space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "no regex": BYTE_LEVEL,
    "no regex, prefix space": pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "digits, prefix space": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    ),
    "digits together": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTE_LEVEL]),
    "gaps": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[ab]+|\p{N}+(?= )"), "isolated"), BYTE_LEVEL]),
    "string": pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "merged_with_next"), BYTE_LEVEL]),
    "deepseek": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split(Regex("[一-龥]+"), "isolated"),
            pre_tokenizers.Split(Regex(r"[!\"#]?[A-Za-z]+|\s+(?!\S)|\s+"), "isolated"),
            BYTE_LEVEL,
        ]
    ),
    "falcon": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    ),
    **{
        f"{behavior}{' inverted' * invert}": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s|[a-c]+"), behavior, invert=invert), BYTE_LEVEL]
        )
        for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
        for invert in (False, True)
    },
}
# The `tokenizers` library counts punctuation by an old Unicode: leave newer marks out of that comparison.
OLD_PUNCTUATION = {"falcon"}


def _trained(pre_tokenizer: Any, *, vocab_size: int = 420, normalizer: Any = None) -> Reference:
    reference = Reference(models.BPE())
    reference.pre_tokenizer = pre_tokenizer
    reference.decoder = decoders.ByteLevel()
    if normalizer is not None:
        reference.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(CORPUS, trainer)
    reference.add_tokens([AddedToken("<user>", special=False, normalized=False)])
    return reference


def _ours(reference: Reference) -> Tokenizer:
    return Tokenizer.from_json(json.loads(reference.to_str()), {}, source="test")


def _check(reference: Reference, ours: Tokenizer, text: str) -> None:
    reference.encode_special_tokens = True  # the library's name for: special tokens in a text are text
    assert ours.encode_array(text).tolist() == ours.encode(text)
    assert ours.encode(text) == reference.encode(text, add_special_tokens=False).ids
    reference.encode_special_tokens = False
    assert ours.encode(text, allow_special=True) == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_pretokenizers(name: str):
    reference = _trained(PRETOKENIZERS[name])
    ours = _ours(reference)

    @settings(max_examples=150, deadline=None)
    @given(text=TEXT)
    def check(text: str) -> None:
        if name in OLD_PUNCTUATION and any(ord(c) > 0x600 and unicodedata.category(c)[0] == "P" for c in text):
            return
        _check(reference, ours, text)
        ids = ours.encode(text)
        assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=False)

    check()
    for text in CORPUS:
        _check(reference, ours, text)


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_a_text_cut_in_parts_has_the_ids_of_the_whole(name: str):
    data = json.loads(_trained(PRETOKENIZERS[name]).to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["special"]]  # others forbid any cut
    ours, cuts = Tokenizer.from_json(data, {}, source="test"), 0

    @settings(max_examples=100, deadline=None)
    @given(text=TEXT, size=st.integers(1, 9))
    def check(text: str, size: int) -> None:
        nonlocal cuts
        parts = list(ours.cut(text, size))
        assert "".join(parts) == text
        assert [token for part in parts for token in ours.encode(part)] == ours.encode(text)
        cuts += len(parts) - 1

    check()
    assert (cuts > 0) == (name in ("gpt2", "smollm"))


@pytest.mark.parametrize("name", ["smollm", "llama3", "digits together", "no regex"])
@pytest.mark.parametrize("unit", [" ", "a", "1", "\n ", "ab1 "])
def test_long_texts_take_the_slow_way_with_the_same_result(name: str, unit: str):
    reference = _trained(PRETOKENIZERS[name])
    text = "x" + unit * (LONG_TEXT * 2 // len(unit)) + "y"
    assert _ours(reference).encode(text) == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["smollm", "llama3", "digits together", "no regex"])
@pytest.mark.parametrize("unit", ["a", " ", "1", "\n", "\u0300\u0316", "é"])
def test_a_megabyte_of_one_thing(name: str, unit: str):
    tokenizer = _ours(_trained(PRETOKENIZERS[name], normalizer=normalizers.NFC()))
    text = unit * (1_000_000 // len(unit.encode())) + "x"
    assert tokenizer.decode(tokenizer.encode(text)) == unicode_form("NFC")(text)


def test_a_pattern_that_takes_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("model.pretokenizers.PATTERN_SECONDS", 0.2)
    tokenizer = _ours(_trained(PRETOKENIZERS["gaps"]))  # quadratic in a run of digits
    with pytest.raises(TokenizerError, match=r"pre_tokenizer: the pattern .* takes over 0\.2 s"):
        tokenizer.encode("1" * 200_000)


def _bare(merges: list[tuple[str, str]], vocab: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "vocab": {token: n for n, token in enumerate(vocab)},
            "merges": [list(pair) for pair in merges],
            **fields,
        },
    }


def _pair(data: dict[str, Any]) -> tuple[Reference, Tokenizer]:
    return Reference.from_str(json.dumps(data)), Tokenizer.from_json(data, {}, source="test")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_merge_lists_that_no_trainer_would_write(seed: int, ignore_merges: bool):
    """Several pairs for one token, unreachable tokens, merges before those of their parts, ids in another order."""
    rng = random.Random(seed)
    vocab = list("abc")
    merges: list[tuple[str, str]] = []
    for _ in range(rng.randrange(3, 25)):
        left, right = rng.choice(vocab), rng.choice(vocab)
        if len(left + right) <= 8 and (left, right) not in merges:
            merges.append((left, right))
            if left + right not in vocab:
                vocab.append(left + right)
    if seed % 2:
        rng.shuffle(merges)
    if seed % 4 > 1:
        rng.shuffle(vocab)
    vocab += [token for token in ("abcab", "ccc", "bca", "cab") if token not in vocab]
    reference, ours = _pair(_bare(merges, vocab, ignore_merges=ignore_merges))
    for length in range(1, 7):
        for text in map("".join, itertools.product("abc", repeat=length)):
            assert ours.encode(text) == reference.encode(text).ids
    for _ in range(300):
        text = "".join(rng.choices("abc", k=rng.randrange(7, 300)))
        assert ours.encode(text) == reference.encode(text).ids


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unk_token": "<unk>"},
        {"unk_token": "<unk>", "fuse_unk": True},
        {"unk_token": "<unk>", "ignore_merges": True},
    ],
)
def test_bytes_that_the_vocabulary_lacks(fields: dict[str, Any]):
    """SmolLM2's lacks a few: they vanish, and their neighbours meet, or become the unknown token."""
    data = _bare([("a", "b"), ("ab", "c"), ("c", "a")], ["<unk>", "a", "b", "c", "ab", "abc", "ca", "cxxa"], **fields)
    reference, ours = _pair(data)
    for text in ["", "abc", "axbc", "xabcx", "axxxb", "xxx", "abxca", "cxxa", "cxxaab", "é", "aéb"]:
        assert ours.encode(text) == reference.encode(text).ids, text


@pytest.mark.parametrize("merges_as", ["pairs", "strings"])
def test_both_spellings_of_merges(merges_as: str):
    reference = _trained(PRETOKENIZERS["gpt2"])
    data = json.loads(reference.to_str())
    if merges_as == "strings":
        data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    ours = Tokenizer.from_json(data, {}, source="test")
    for text in CORPUS:
        _check(reference, ours, text)


def test_a_piece_of_text_never_becomes_a_special_token_of_the_vocabulary():
    data = _bare([], ["|", "a", "||"], ignore_merges=True)
    assert _pair(data)[1].encode("||") == [2]
    data["added_tokens"] = [{"id": 2, "content": "||", "special": True}]
    tokenizer = Tokenizer.from_json(data, {}, source="test")
    assert tokenizer.encode("||") == [0, 0]
    assert tokenizer.encode("||", allow_special=True) == [2]


NORMALIZERS = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "NFKD": normalizers.NFKD(),
    "lowercase": normalizers.Lowercase(),
    "replace": normalizers.Replace("e", "3\\1"),
    "replace regex": normalizers.Replace(Regex(r"\s+"), " "),
    "prepend": normalizers.Prepend("_"),
    "sequence": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "empty sequence": normalizers.Sequence([]),
}


@cache
def _newer_marks() -> str:
    """Combining marks that are newer than the library's tables: it doesn't put them in order, as the standard library does."""
    nfd = normalizers.NFD().normalize_str
    found = []
    for char in map(chr, range(0x300, 0x3000)):
        around = (f"a\u0301{char}\u0316b", f"a{char}\u0301\u0316", f"a\u0327\u0301{char}", f"a\u3099{char}\u0301")
        if unicodedata.combining(char) and any(nfd(text) != unicodedata.normalize("NFD", text) for text in around):
            found.append(char)
    assert len(found) < 100  # few, or the comparison below would say nothing
    return "".join(found)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers(name: str):
    reference = _trained(PRETOKENIZERS["gpt2"], normalizer=NORMALIZERS[name])
    ours = _ours(reference)
    # The library's tables are of another Unicode version, mostly for characters that are new or compatibility forms.
    alphabet = st.characters(
        max_codepoint=0x2FFF, exclude_categories=("Cs", "Cn", "Co", "Lo"), exclude_characters=_newer_marks()
    )

    @settings(max_examples=150, deadline=None)
    @given(text=st.text(alphabet, max_size=40) | st.text("aAeEÉé\u0301\u0316ﬁ²ΣİK \n<|end|>", max_size=60))
    def check(text: str) -> None:
        _check(reference, ours, text)

    check()


def test_normalization_of_many_marks_is_exact():
    rng = random.Random(0)
    marks = "\u0300\u0316\u0327\u0344\u0f73\u3099\u20d2é"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for _ in range(50):
            text = "a" + "".join(rng.choices(marks, k=rng.randrange(50, 400))) + "b"
            assert unicode_form(form)(text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized", None])
@pytest.mark.parametrize("special", [False, True])
def test_added_tokens(flag: str | None, special: bool):
    reference = _trained(PRETOKENIZERS["gpt2"], normalizer=normalizers.Lowercase() if flag == "normalized" else None)
    flags = {"normalized": False, **({flag: True} if flag else {})}
    add = reference.add_special_tokens if special else reference.add_tokens
    add([AddedToken("<A>", special=special, **flags), AddedToken("<A>b", special=special, normalized=False)])
    add([AddedToken("é|", special=special, **flags), AddedToken(">b<", normalized=False)])
    ours = _ours(reference)

    @settings(max_examples=200, deadline=None)
    @given(
        text=st.lists(
            st.sampled_from(["<A>", "<a>", "<A>b", "é|", ">b<", "x", " ", "\n", "  ", "\u00a0", "\x1c", ".", "<|end|>"])
        ).map("".join)
    )
    def check(text: str) -> None:
        _check(reference, ours, text)

    check()
    for token, token_id in ((token, reference.token_to_id(token)) for token in ("<A>", "é|")):
        assert token_id is not None
        assert ours.token_bytes(token_id) == token.encode()
        assert ours.is_special(token_id) is special


def test_a_tokenizer_of_our_own_training_makes_the_round_trip(tmp_path: Path):
    reference = _trained(PRETOKENIZERS["smollm"])
    reference.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "model_max_length": 512}))
    ours = Tokenizer.from_directory(tmp_path)
    ours.save(tmp_path / "again")
    again = Tokenizer.from_directory(tmp_path / "again")
    theirs = Reference.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert again.eos_token_id == ours.eos_token_id == reference.token_to_id("<|end|>")
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["model_max_length"] == 512
    for text in CORPUS:
        expected = reference.encode(text).ids
        assert ours.encode(text) == again.encode(text) == theirs.encode(text).ids == expected
    assert ours.vocab_size == reference.get_vocab_size()
    assert [ours.token_bytes(n) for n in range(ours.vocab_size)] == [
        again.token_bytes(n) for n in range(ours.vocab_size)
    ]


def test_transformers_loads_what_we_save(tmp_path: Path):
    from transformers import AutoTokenizer

    reference = _trained(PRETOKENIZERS["llama3"], normalizer=normalizers.NFC())
    config = {
        "eos_token": {"__type": "AddedToken", "content": "<|end|>", "special": True},
        "bos_token": "<|end|>",
        "chat_template": "x",
    }
    Tokenizer.from_json(json.loads(reference.to_str()), config, source="test").save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token == "<|end|>"
    assert theirs.chat_template is None  # it stands in chat_template.jinja
    for text in CORPUS:
        assert theirs(text)["input_ids"] == reference.encode(text).ids


def test_bos_from_the_post_processor_and_from_the_configuration():
    reference = _trained(PRETOKENIZERS["gpt2"])
    end = reference.token_to_id("<|end|>")
    plain = json.loads(reference.to_str())
    reference.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|end|> $A", pair="<|end|> $A <|end|> $B:1", special_tokens=[("<|end|>", end)]
            ),
        ]
    )
    templated = json.loads(reference.to_str())
    cases = [
        (plain, {}, False, None),
        (plain, {"bos_token": "<|end|>"}, False, end),
        (plain, {"bos_token": "<|end|>", "add_bos_token": True}, True, end),
        (plain, {"add_bos_token": True}, False, None),
        (templated, {}, True, end),
        (templated, {"bos_token": "<|end|>", "add_bos_token": False}, False, end),
    ]
    for data, config, add_bos, bos in cases:
        tokenizer = Tokenizer.from_json(data, config, source="test")
        assert (tokenizer.add_bos, tokenizer.bos_token_id) == (add_bos, bos)
        assert tokenizer.encode("a") == reference.encode("a", add_special_tokens=False).ids


def test_from_file_takes_the_usual_end_of_text(tmp_path: Path):
    reference = _trained(PRETOKENIZERS["gpt2"])
    reference.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").eos_token_id is None
    reference.add_special_tokens(["<|endoftext|>"])
    reference.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tokenizer.eos_token_id == reference.token_to_id("<|endoftext|>")


def _changed(**changes: Any) -> dict[str, Any]:
    data = _bare([("a", "b")], ["a", "b", "ab"])
    for field, value in changes.items():
        *path, last = field.split("__")
        target = data
        for step in path:
            target = target[step]
        target[last] = value
    return data


REFUSED = {
    "model: is missing": _changed(model=None),
    "model.type: is 'Unigram'": _changed(model__type="Unigram"),
    "model.type: is 'WordPiece'": _changed(model__type="WordPiece"),
    "model.vocab: is missing": _changed(model__vocab=None),
    "model.vocab: expected dict, found list": _changed(model__vocab=["a"]),
    "model.vocab['a']: is -1": _changed(model__vocab={"a": -1}),
    "model.vocab['a']: is 'x'": _changed(model__vocab={"a": "x"}),
    "model.vocab: gives one id to several": _changed(model__vocab={"a": 0, "b": 0}),
    "model.merges: is missing": _changed(model__merges=None),
    "model.merges[0]: is 'abc', not a pair": _changed(model__merges=["abc"]),
    "model.merges[0]: is ['a'], not a pair": _changed(model__merges=[["a"]]),
    "model.merges[0]: is 7, not a pair": _changed(model__merges=[7]),
    "model.merges[0]: needs the token 1, which": _changed(model__merges=[[1, 2]]),
    "model.merges[1]: needs the token 'ba'": _changed(model__merges=[["a", "b"], ["b", "a"]]),
    "model.unk_token: '?' is not in": _changed(model__unk_token="?"),
    "model.byte_fallback: is set": _changed(model__byte_fallback=True),
    "model.continuing_subword_prefix: is '##'": _changed(model__continuing_subword_prefix="##"),
    "model.dropout: is 0.1": _changed(model__dropout=0.1),
    "pre_tokenizer: has no ByteLevel": _changed(pre_tokenizer=None),
    "pre_tokenizer.type: is 'Metaspace'": _changed(pre_tokenizer={"type": "Metaspace"}),
    "pre_tokenizer.pretokenizers[0].behavior: is 'Sideways'": _changed(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Split", "pattern": {"String": " "}, "behavior": "Sideways"}],
        }
    ),
    "pre_tokenizer.pretokenizers[0].pattern: ": _changed(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "("}}]}
    ),
    "pre_tokenizer: expected an object": _changed(pre_tokenizer=3),
    "normalizer.type: is 'Precompiled'": _changed(normalizer={"type": "Precompiled"}),
    "normalizer.normalizers[0].type: is 'Nmt'": _changed(
        normalizer={"type": "Sequence", "normalizers": [{"type": "Nmt"}]}
    ),
    "decoder.type: is 'Metaspace'": _changed(decoder={"type": "Metaspace"}),
    "post_processor.type: is 'Odd'": _changed(post_processor={"type": "Odd"}),
    "added_tokens[0].id: is missing": _changed(added_tokens=[{"content": "x"}]),
    "added_tokens[0].content: expected str": _changed(added_tokens=[{"id": 1, "content": 3}]),
    "added_tokens[0].special: expected bool": _changed(added_tokens=[{"id": 1, "content": "x", "special": "yes"}]),
    "added_tokens: expected list": _changed(added_tokens={}),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_cannot_be_read_is_named(problem: str, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(REFUSED[problem]))
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_file(path)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff\xfe", b"[]", b"3", b'{"model": {"type": "BPE", "vo'])
def test_garbage_is_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: .*get the file again"):
        Tokenizer.from_file(path)


def test_an_end_token_that_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(TokenizerError, match=r"eos_token of tokenizer_config\.json, '</s>', is not in the vocabulary"):
        Tokenizer.from_json(_changed(), {"eos_token": "</s>"}, source="test")


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: can't be read: No such file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_spelling_of_bytes():
    assert spell_bytes(b" a\n\x00\xff") == "ĠaĊĀÿ"
