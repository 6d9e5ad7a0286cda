"""Perplexity and bits per byte of any text."""

from pathlib import Path

import numpy as np

from training.data.readers import corpus_files, read_documents
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram_baseline import LEFT_OUT, ORDER, Ngrams
from training.evaluate.perplexity import score_windows
from training.evaluate.results import Baseline, Figure, Result
from training.evaluate.subject import Options, Subject, taken


def evaluate_text(subject: Subject, path: Path | str, options: Options) -> Result:
    """Token and word perplexity and bits per byte of the documents that `path` holds (whatever the corpus readers read)."""
    scorer = subject.scorer()
    documents = list(read_documents(corpus_files([path])))
    chosen = documents[: taken(len(documents), options.limit)]
    tokens = tokenize_stream(chosen, subject.tokenizer, threads=options.threads)
    n_words = sum(len(document.split()) for document in chosen)
    n_bytes = sum(len(document.encode()) for document in chosen)
    score = score_windows(scorer, tokens, stride=options.stride)
    context = subject.model.config.context_length
    stride = options.stride or max(1, context // 2)
    stream = (
        f"documents as one stream, each behind the token that begins a text, which is predicted too except the first; windows of "
        f"{context} tokens, {stride} apart, each token counted once"
    )
    figures = [
        Figure("token perplexity", score.perplexity, f"e to the mean of {score.tokens:,} tokens' nats; {stream}"),
        Figure("loss", score.loss, "nats a token, of the same"),
        Figure(
            "word perplexity",
            score.word_perplexity(n_words),
            f"the same nats over {n_words:,} words between white space",
        ),
        Figure("bits per byte", score.bits_per_byte(n_bytes), f"the same nats over {n_bytes:,} bytes of UTF-8"),
    ]
    result = Result("text", str(path), len(chosen), len(documents), "documents", figures)
    if options.ngrams:
        result.baselines.extend(ngram_baselines(options.ngrams, tokens, n_words, n_bytes))
    else:
        result.notes.append(LEFT_OUT)
    return result


def ngram_baselines(
    ngrams: Ngrams, tokens: np.ndarray, n_words: int, n_bytes: int, *, by_token: bool = True
) -> list[Baseline]:
    """1- to 5-gram models on the same stream of tokens; `by_token`: their figures a token too."""
    baselines = []
    for n in range(1, ORDER + 1):
        score = ngrams.model(n).score(tokens)
        values = {"word perplexity": score.word_perplexity(n_words), "bits per byte": score.bits_per_byte(n_bytes)}
        if by_token:
            values |= {"token perplexity": score.perplexity, "loss": score.loss}
        baselines.append(ngrams.baseline(n, [Figure(name, value, "") for name, value in values.items()]))
    return baselines
