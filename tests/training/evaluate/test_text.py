"""Perplexity of texts, WikiText's conventions, and the n-gram models beside them."""

import gzip
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import ConfigError
from model.tokenizer import Tokenizer
from training.data.bpe import train_bpe
from training.data.readers import read_documents
from training.errors import DataError
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram import KneserNey, NgramCounts
from training.evaluate.ngram_baseline import Ngrams
from training.evaluate.subject import Options, Subject, load_subject
from training.evaluate.text import evaluate_text
from training.evaluate.wikitext import articles, count_words, detokenize, evaluate_wikitext

DOCUMENTS = [
    "The boat — a small one — went out at dawn.\nNobody saw it.",
    "A red house stood by the sea. " * 12 + "Then it rained.",
    "Words.",
]
# WikiText's lines begin and end in a blank.
WIKI = "".join(
    f" {line} \n" if line else " \n"
    for line in (
        "",
        "= Green Boat =",
        "",
        'The Green Boat ( built 1900 – 1901 ) was " the first " of its kind ; it cost $ 3 @.@ 5 million , a well @-@ known '
        "1 @,@ 000 <unk> sum .",
        "",
        "= = Crew = =",
        "",
        "The crew 's captain , O 'Neil , said : \" No ! \" Why ? It is [ not ] known . The sailors ' song was heard at 51 ° N .",
        "",
        "= = = Later = = =",
        "",
        "It sank .",
        "",
        "= Red House =",
        "",
        'A house { of red bricks } . It stands , he said , " by the sea " .',
    )
)


@pytest.fixture(scope="module")
def subject(tiny_llama_dir: Path) -> Subject:
    return load_subject(tiny_llama_dir)


def nats(subject: Subject, tokens: list[int]) -> np.ndarray:
    """Of every token but the first; at most the context of them."""
    with torch.no_grad():
        table = subject.language_model(torch.tensor([tokens[:-1]]))[0].double().log_softmax(-1)
    return -table[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy()


def test_text_of_any_packing(subject: Subject, tmp_path: Path) -> None:
    """One stream, 256 tokens and more in windows of 128: the first counts whole, then the second half of each."""
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(DOCUMENTS * 3), "utf-8")
    rows = "\n".join(json.dumps({"text": d}) for d in DOCUMENTS * 3)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    end, stream = 50256, []
    for document in DOCUMENTS * 3:
        stream += [end, *subject.tokenizer.encode(document)]
    expected, counted = nats(subject, stream[:129]).tolist(), 128
    while counted < len(stream) - 1:
        start = counted - 64
        expected += nats(subject, stream[start : start + 129])[64:].tolist()
        counted = len(expected)
    n_words, n_bytes = 3 * sum(len(d.split()) for d in DOCUMENTS), 3 * sum(len(d.encode()) for d in DOCUMENTS)
    for path in (tmp_path / "a.txt", tmp_path / "b.jsonl.gz"):
        result = evaluate_text(subject, path, Options())
        assert len(expected) == len(stream) - 1
        assert result.figure("loss").value == pytest.approx(np.mean(expected), rel=1e-5)
        assert result.figure("token perplexity").value == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)
        assert result.figure("word perplexity").value == pytest.approx(math.exp(sum(expected) / n_words), rel=1e-4)
        assert result.figure("bits per byte").value == pytest.approx(sum(expected) / math.log(2) / n_bytes, rel=1e-5)
        assert (result.items, result.total) == (9, 9)
    assert evaluate_text(subject, tmp_path / "a.txt", Options(limit=2)).items == 2


@pytest.mark.parametrize("stride", [0, 129])
def test_a_stride_beyond_the_context_is_refused(subject: Subject, tmp_path: Path, stride: int) -> None:
    (tmp_path / "a.txt").write_text(DOCUMENTS[1])
    with pytest.raises(ConfigError, match="from 1 to the model's context of 128"):
        evaluate_text(subject, tmp_path / "a.txt", Options(stride=stride))


def test_wikitext_is_cut_into_articles_and_read_as_people_write() -> None:
    found = articles(WIKI, "wiki")
    assert [article.split("\n")[0] for article in found] == [" = Green Boat = ", " = Red House = "]
    assert "".join(found) == WIKI[WIKI.index(" = Green") :]
    text = detokenize(found[0])
    assert text.startswith(
        ' = Green Boat =\n\nThe Green Boat (built 1900 – 1901) was "the first" of its kind; it cost $ 3.5 million,'
    )
    assert "a well-known 1,000 <unk> sum." in text
    assert "\n== Crew ==\n" in text
    assert "\n=== Later ===\n" in text
    assert "The crew's captain" in text
    with pytest.raises(DataError, match="not a WikiText file"):
        articles("Just text.", "x.txt")


def test_the_cutting_is_undone_as_the_harness_undoes_it() -> None:
    pytest.importorskip("lm_eval")
    theirs = importlib.import_module("lm_eval.tasks.wikitext.preprocess_wikitext").wikitext_detokenizer
    marks = ' = Marks = \n Zero ? ! " , he said ; Mid @-@ Ohio . . . at 18 ? ? Us ? : All , . : ; it \n 5 @,@ 000 . \n'
    for article in [*articles(WIKI, "wiki"), marks]:
        assert detokenize(article) == theirs({"page": article})
    assert detokenize(" The N class ") == " The N class "  # theirs makes it a number


def test_words_are_counted_as_the_harness_counts_them() -> None:
    pytest.importorskip("lm_eval")
    theirs = importlib.import_module("lm_eval.tasks.wikitext.preprocess_wikitext").process_results
    for article in articles(WIKI, "wiki"):
        found = theirs({"page": article}, (-7.0,))
        assert found["word_perplexity"] == (-7.0, count_words(article))
        assert found["bits_per_byte"] == (-7.0, len(article.encode()))
        assert count_words(article) == len(article.split()) + 2


def test_wikitext_conventions(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "wiki.tokens"
    path.write_text(WIKI)
    result = evaluate_wikitext(subject, path, Options())
    total, n_words, n_bytes = 0.0, 0, 0
    for article in articles(WIKI, "wiki"):
        tokens = [50256, *subject.tokenizer.encode(detokenize(article))]
        for begin in range(0, len(tokens) - 1, 128):  # end to end; the last window reaches back
            end = min(begin + 128, len(tokens) - 1)
            total += nats(subject, tokens[max(0, end - 128) : end + 1])[begin - end :].sum()
        n_words += len(article.split()) + 2
        n_bytes += len(article.encode())
    assert result.figure("word perplexity").value == pytest.approx(math.exp(total / n_words), rel=1e-4)
    assert result.figure("bits per byte").value == pytest.approx(total / math.log(2) / n_bytes, rel=1e-5)
    raw = subject.tokenizer.encode(WIKI[WIKI.index(" = Green") :])
    expected = np.concatenate([nats(subject, raw[i : i + 129]) for i in range(0, len(raw) - 1, 128)])
    assert result.figure("token perplexity").value == pytest.approx(math.exp(expected.mean()), rel=1e-4)
    assert "with <unk>" in result.figure("word perplexity").convention
    assert (result.items, result.total) == (2, 2)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_distribution_has_the_probabilities_that_are_scored(order: int) -> None:
    rng = np.random.default_rng(order)
    train, held_out = (np.cumsum(rng.integers(0, 3, n)) % 11 for n in (500, 80))
    model = KneserNey(NgramCounts(train, 4, 13), order)
    logprobs = model.logprobs(held_out)
    for i in range(1, 80):
        probabilities = model.distribution(held_out[:i])
        assert probabilities.sum() == pytest.approx(1.0)
        assert math.log(probabilities[held_out[i]]) == pytest.approx(logprobs[i - 1])
    assert model.distribution(np.array([12, 12])).sum() == pytest.approx(1.0)  # tokens never seen


def test_ngrams_of_text_and_of_shards_are_the_same(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(DOCUMENTS), "utf-8")
    tokens = tokenize_stream(read_documents([path]), subject.tokenizer)
    assert tokens.tolist()[0] == 50256
    assert (tokens == 50256).sum() == 3
    (tmp_path / "held_out.txt").write_text("The boat went out by the sea. Nobody saw a red house.")
    result = evaluate_text(subject, tmp_path / "held_out.txt", Options(ngrams=Ngrams(path, subject.tokenizer)))
    names = ["1-gram", "2-gram", "3-gram", "4-gram", "5-gram"]
    assert [baseline.name for baseline in result.baselines] == names
    stream = tokenize_stream(read_documents([tmp_path / "held_out.txt"]), subject.tokenizer)
    score = KneserNey(NgramCounts(tokens, 5, 50257), 3).score(stream)
    assert result.baselines[2].values["token perplexity"] == pytest.approx(score.perplexity)
    assert result.baselines[2].values["bits per byte"] == pytest.approx(
        score.nats / math.log(2) / len((tmp_path / "held_out.txt").read_bytes())
    )


def test_without_a_corpus_the_ngrams_are_said_to_be_missing(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(DOCUMENTS[1])
    (tmp_path / "wiki.tokens").write_text(WIKI)
    for result in (
        evaluate_text(subject, tmp_path / "a.txt", Options()),
        evaluate_wikitext(subject, tmp_path / "wiki.tokens", Options()),
    ):
        assert "--baseline-corpus" in " ".join(result.notes)
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        Ngrams(tmp_path / "none.txt", subject.tokenizer)


def test_ngrams_that_memory_has_no_room_for_are_refused_before_they_are_counted(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("A red house by the sea. " * 40)
    monkeypatch.setattr("training.evaluate.ngram_baseline.memory_free", lambda device: 10_000)
    with pytest.raises(DataError, match=r"a\.txt: n-gram models of its \d+ tokens may need 0\.\d GB"):
        Ngrams(tmp_path / "a.txt", subject.tokenizer).model(3)


def test_shards_serve_as_a_corpus_for_their_own_tokenizer_alone(subject: Subject, tmp_path: Path) -> None:
    from training.data.shards import write_shards

    documents = [f"Document {i} tells of a red house number {i * i} by the sea." for i in range(60)]
    train_bpe(documents, 300, tmp_path / "tokenizer.json")
    own = Tokenizer.from_file(tmp_path / "tokenizer.json")
    write_shards(
        documents, tmp_path / "tokenizer.json", tmp_path / "s", corpus=["x"], validation_fraction=0.2, seed=3, threads=1
    )
    (tmp_path / "new.txt").write_text("A red house by the sea tells of a document.")
    stream = tokenize_stream(read_documents([tmp_path / "new.txt"]), own)
    assert Ngrams(tmp_path / "s", own).model(3).score(stream).loss < math.log(300)
    with pytest.raises(DataError, match="another tokenizer"):
        Ngrams(tmp_path / "s", subject.tokenizer).model(3)
