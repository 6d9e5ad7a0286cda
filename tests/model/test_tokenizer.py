"""GPT-2's tokenizer and the incremental decoder, against tiktoken and transformers built from the same vocabulary."""

import base64
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import TokenizerError
from model.gpt2_vocabulary import PATH as GPT2_VOCABULARY
from model.gpt2_vocabulary import SHA256
from model.tokenizer import IncrementalDecoder, Tokenizer

TEXT = st.text(max_size=60) | st.text(alphabet="ab 12\n\t'.éü中文🙂\u0301\u00a0<|>endoftext", max_size=60)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def saved(gpt2: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpt2")
    gpt2.save(directory)
    return directory


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    lines = GPT2_VOCABULARY.read_text().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


@pytest.fixture(scope="module")
def reference(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """tiktoken's own construction of gpt2 (tiktoken_ext/openai_public.py), without its download."""
    from tiktoken_ext.openai_public import r50k_pat_str

    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
        explicit_n_vocab=50257,
    )


def test_the_vocabulary_is_the_published_one():
    assert hashlib.sha256(GPT2_VOCABULARY.read_bytes()).hexdigest() == SHA256


def test_every_id_decodes_to_its_exact_bytes(gpt2: Tokenizer, ranks: dict[bytes, int]):
    expected = {rank: token for token, rank in ranks.items()} | {50256: b"<|endoftext|>"}
    assert gpt2.vocab_size == 50257
    assert sorted(expected) == list(range(50257))
    assert {token: gpt2.token_bytes(token) for token in range(50257)} == expected
    assert gpt2.decode_bytes(range(50257)) == b"".join(expected[token] for token in range(50257))


def test_facts_about_gpt2(gpt2: Tokenizer):
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert (gpt2.eos_token_id, gpt2.bos_token_id, gpt2.add_bos) == (50256, 50256, False)
    assert gpt2.is_special(50256)
    assert not gpt2.is_special(0)


def test_an_id_without_a_token_decodes_to_nothing(gpt2: Tokenizer):
    assert gpt2.decode([39, 50300, 72, -1]) == "Hi"


@settings(max_examples=500, deadline=None)
@given(text=TEXT)
def test_encode_equals_tiktoken(gpt2: Tokenizer, reference: tiktoken.Encoding, text: str):
    assert gpt2.encode(text) == reference.encode(text, disallowed_special=()) == gpt2.encode_array(text).tolist()
    assert gpt2.encode(text, allow_special=True) == reference.encode(text, allowed_special="all")
    assert gpt2.decode(gpt2.encode(text)) == text


@pytest.fixture(scope="module")
def transformers_gpt2(ranks: dict[bytes, int]):
    """transformers' GPT2TokenizerFast from the same vocabulary, its merges recovered by the textbook procedure."""
    from transformers import GPT2TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spell = bytes_to_unicode()
    spelled = {"".join(spell[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in ranks.items():
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 10**9))
            assert ranks[parts[at] + parts[at + 1]] < rank
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append(tuple("".join(spell[byte] for byte in part) for part in parts))
    return GPT2TokenizerFast(vocab={**spelled, "<|endoftext|>": 50256}, merges=merges)


@settings(max_examples=500, deadline=None)
@given(text=TEXT)
def test_encode_equals_transformers(gpt2: Tokenizer, transformers_gpt2, text: str):
    assert gpt2.encode(text, allow_special=True) == transformers_gpt2(text)["input_ids"]


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_the_saved_directory_encodes_the_same_in_ours_and_theirs(saved: Path, gpt2: Tokenizer, text: str):
    ours, theirs = _loaded(saved)
    expected = gpt2.encode(text, allow_special=True)
    assert ours.encode(text, allow_special=True) == expected
    assert theirs(text)["input_ids"] == expected
    assert theirs.decode(expected) == text


_cache: dict[Path, tuple] = {}


def _loaded(directory: Path):
    from transformers import AutoTokenizer

    if directory not in _cache:
        _cache[directory] = Tokenizer.from_directory(directory), AutoTokenizer.from_pretrained(directory)
    return _cache[directory]


def test_the_saved_directory_keeps_the_ends_of_a_text(saved: Path, gpt2: Tokenizer):
    ours, theirs = _loaded(saved)
    assert (ours.eos_token_id, ours.bos_token_id, ours.add_bos, ours.vocab_size) == (50256, 50256, False, 50257)
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (50256, 50256, 50257)
    assert [ours.token_bytes(token) for token in range(50257)] == [gpt2.token_bytes(token) for token in range(50257)]


def test_special_tokens_in_a_text_are_plain_text_unless_allowed(gpt2: Tokenizer):
    text = "a<|endoftext|>b"
    assert 50256 not in gpt2.encode(text)
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.encode(text, allow_special=True) == [64, 50256, 65]


def test_skip_special(gpt2: Tokenizer):
    assert gpt2.decode([64, 50256, 65]) == "a<|endoftext|>b"
    assert gpt2.decode([64, 50256, 65], skip_special=True) == "ab"


def test_a_lone_surrogate_becomes_the_replacement_character(gpt2: Tokenizer):
    assert gpt2.decode(gpt2.encode("a\ud800b")) == "a\ufffdb"
    assert gpt2.decode(gpt2.encode("\ud83d\ude42")) == "🙂"  # a pair is the character that it spells


@settings(max_examples=300, deadline=None)
@given(text=TEXT | st.text(alphabet="a1_.' \n\t\x1c\u2028", max_size=60), size=st.integers(1, 9))
def test_a_text_cut_in_parts_has_the_ids_of_the_whole(gpt2: Tokenizer, text: str, size: int):
    parts = list(gpt2.cut(text, size))
    assert "".join(parts) == text
    assert [token for part in parts for token in gpt2.encode(part)] == gpt2.encode(text)
    assert all(len(part) >= size for part in parts[:-1])


@pytest.mark.parametrize("unit", ["a", " ", "\n", "ab", "!", "1", "é", "\u0300", "\x00", "🙂", " x", "<|endoftext|"])
@pytest.mark.parametrize("tail", ["", "x", "1", " x"])
def test_a_megabyte_of_one_thing(gpt2: Tokenizer, unit: str, tail: str):
    text = unit * (1_000_000 // len(unit.encode())) + tail
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text


@pytest.mark.parametrize("unit", ["a", " ", "\n", " \n", "!?"])
@pytest.mark.parametrize("tail", ["", "x", "1", " x"])
def test_long_runs_are_encoded_exactly(gpt2: Tokenizer, transformers_gpt2, unit: str, tail: str):
    text = "start" + unit * (150_000 // len(unit)) + tail
    assert gpt2.encode(text) == transformers_gpt2(text)["input_ids"]


def test_encode_batch_with_threads(gpt2: Tokenizer):
    texts = [f"text number {n} 🙂 " * (n % 7) for n in range(200)]
    expected = [gpt2.encode(text) for text in texts]
    assert gpt2.encode_batch(texts) == expected
    assert gpt2.encode_batch(texts, threads=4) == expected


def test_many_threads_share_a_tokenizer(gpt2: Tokenizer):
    texts = ["one two three", "中文" * 50, "<|endoftext|>" * 20, " " * 200_000]
    expected = [gpt2.encode(text, allow_special=True) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: gpt2.encode(texts[n % 4], allow_special=True), range(80)))
    assert results == [expected[n % 4] for n in range(80)]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=24) | TEXT.map(str.encode), cuts=st.lists(st.integers(0, 24), max_size=6))
def test_incremental_decoding_equals_decoding_the_whole(gpt2: Tokenizer, data: bytes, cuts: list[int]):
    """Over random splits, GPT-2 has a token for every byte, so that any bytes can be cut anywhere."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    by_byte = {gpt2.token_bytes(token): token for token in range(256)}
    decoder = IncrementalDecoder(gpt2)
    text = ""
    for start, end in pairwise(edges):
        for byte in data[start:end]:
            text += decoder.push(by_byte[bytes([byte])])
    assert text + decoder.flush() == data.decode("utf-8", "replace") == gpt2.decode([by_byte[bytes([b])] for b in data])


def test_no_split_of_a_text_into_tokens_shows_half_a_character(gpt2: Tokenizer):
    """Every way of cutting the text's bytes into tokens, not only the one that `encode` takes."""
    text = "é🙂\ufffdz"
    known = {gpt2.token_bytes(token): token for token in range(gpt2.vocab_size - 1)}
    data = text.encode()
    ways = 0

    def walk(at: int, ids: list[int]) -> None:
        nonlocal ways
        if at == len(data):
            ways += 1
            decoder = IncrementalDecoder(gpt2)
            pushed = [decoder.push(token) for token in ids]
            assert "".join(pushed) == text
            assert decoder.flush() == ""
            done = b""
            for token, piece in zip(ids, pushed, strict=True):
                before, done = done, done + gpt2.token_bytes(token)
                whole = text.encode()[: len(done)].decode("utf-8", "ignore")
                assert before.decode("utf-8", "ignore") + piece == whole
            return
        for end in range(at + 1, len(data) + 1):
            if data[at:end] in known:
                walk(end, [*ids, known[data[at:end]]])

    walk(0, [])
    assert ways > 20


def test_a_truncated_last_character_is_replaced_at_the_end(gpt2: Tokenizer):
    ids = gpt2.encode("ok 🦙")
    decoder = IncrementalDecoder(gpt2)
    text = "".join(decoder.push(token) for token in ids[:-1])
    assert text == "ok "
    assert decoder.flush() == "\ufffd"
    assert "".join(decoder.push(token) for token in gpt2.encode("é")) == "é"  # as new after a flush


def test_the_incremental_decoder_and_special_tokens(gpt2: Tokenizer):
    quiet, loud = IncrementalDecoder(gpt2), IncrementalDecoder(gpt2, skip_special=False)
    assert quiet.push(50256) == ""
    assert loud.push(50256) == "<|endoftext|>"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-100], lambda data: data.replace(b"IQ==", b"IR==", 1), lambda _: b""]
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage):
    path = tmp_path / "gpt2.tiktoken"
    path.write_bytes(damage(GPT2_VOCABULARY.read_bytes()))
    monkeypatch.setattr("model.gpt2_vocabulary.PATH", path)
    with pytest.raises(TokenizerError, match=r"gpt2\.tiktoken: is damaged"):
        Tokenizer.gpt2()


def test_a_missing_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("model.gpt2_vocabulary.PATH", tmp_path / "none")
    with pytest.raises(TokenizerError, match="none: can't be read"):
        Tokenizer.gpt2()


def test_a_gpt2_directory_without_a_tokenizer_has_gpt2s(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 50257}))
    assert Tokenizer.from_directory(tmp_path).encode("Hello") == [15496]


def test_a_directory_of_another_vocabulary_without_a_tokenizer_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 1000}))
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        Tokenizer.from_directory(tmp_path)


def test_a_vocabulary_that_the_embedding_has_no_rows_for_is_refused(saved: Path, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 1000}))
    with pytest.raises(TokenizerError, match=r"ids up to 50256, but vocab_size in config\.json is 1000"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 50304}))  # padded: fine
    assert Tokenizer.from_directory(tmp_path).vocab_size == 50257


def test_vocab_json_and_merges_txt(saved: Path, tmp_path: Path, gpt2: Tokenizer):
    model = json.loads((saved / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(model["merges"]) + "\n")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "vocab_size": 50257, "eos_token_id": 50256})
    )
    tokenizer = Tokenizer.from_directory(tmp_path)
    text = "It's 2024: naïve 中文 🙂<|endoftext|>"
    assert tokenizer.encode(text) == gpt2.encode(text)
    assert tokenizer.eos_token_id == 50256


def _modules_after(code: str) -> set[str]:
    root = Path(__file__).parents[2]
    code += "; import sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_stays_light():
    heavy = {"torch", "transformers", "tokenizers", "numpy"}
    loaded = _modules_after("import model.tokenizer, model.prompts")
    assert not loaded & (heavy | {"tiktoken", "regex", "jinja2"})
    assert not _modules_after("from model.tokenizer import Tokenizer; Tokenizer.gpt2().encode('x')") & heavy


def test_a_raw_prompt_is_never_empty_and_its_special_tokens_count():
    tokenizer = Tokenizer.gpt2()
    assert tokenizer.encode_prompt("") == [50256]
    assert tokenizer.encode_prompt("a<|endoftext|>b") == [64, 50256, 65]
    assert tokenizer.encode_prompt("Hello") == tokenizer.encode("Hello")
