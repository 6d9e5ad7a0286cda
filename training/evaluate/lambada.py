"""LAMBADA (Paperno et al., 2016): the last word of a passage, which takes the whole passage to guess.

The file is OpenAI's, with natural punctuation: `{"text"}`, the last word being the target. Two conventions are in use, and their
figures can't be compared: the lm-eval harness wants the whole last word, token after token (GPT-2 124M: accuracy 32.56 %,
perplexity 40.06). GPT-2's paper prints 45.99 % and 35.13; it speaks of a filter of stop words, whose list was not published, and
those who measured again came near by scoring the last token alone, given the rest of the word (46.7 to 46.9 %).
"""

from pathlib import Path

import numpy as np

from training.data.tables import read_rows, required
from training.errors import DataError
from training.evaluate.ngram_baseline import LEFT_OUT, Ngrams
from training.evaluate.results import Baseline, Figure, Result, perplexity_figure, share_figure
from training.evaluate.scoring import Request, encode_pair
from training.evaluate.subject import Options, Subject, drawn

_WORD = "the text behind the passage's last blank, with the blank"
WORD_ACCURACY, WORD_PERPLEXITY = "last-word accuracy", "last-word perplexity"
TOKEN_ACCURACY, TOKEN_PERPLEXITY = "last-token accuracy", "last-token perplexity"


def evaluate_lambada(subject: Subject, path: Path | str, options: Options) -> Result:
    """Accuracy and perplexity of the last word and of the last token."""
    scorer = subject.scorer()
    passages = read_passages(path)
    chosen = drawn(passages, options)
    requests = [encode_pair(subject.tokenizer, context, word) for context, word in chosen]
    scores = scorer.score(requests, desc="LAMBADA")
    per_word = float(np.mean([len(scored.greedy) for scored in scores]))
    bos = "BOS in front" if subject.tokenizer.add_bos else "nothing in front of the passage"
    figures = _figures(
        [scored.exact for scored in scores],
        [-scored.total for scored in scores],
        [bool(scored.greedy[-1]) for scored in scores],
        [-float(scored.logprobs[-1]) for scored in scores],
        f"greedy decoding writes the whole last word ({_WORD}); {bos}; the lm-eval harness's convention (lambada_openai)",
        "the passage's last token alone is the likeliest, given all tokens before it, those of the last word too: an "
        f"easier question, the more so the smaller the vocabulary (here {per_word:.2f} tokens a word); near GPT-2's paper",
    )
    result = Result("lambada", str(path), len(chosen), len(passages), "passages", figures)
    if options.ngrams:
        result.baselines.append(_ngrams(options.ngrams, requests))
    else:
        result.notes.append(LEFT_OUT)
    return result


def _figures(
    exact: list[bool], nats: list[float], last: list[bool], last_nats: list[float], by_word: str, by_token: str
) -> list[Figure]:
    """Of each passage's last word, and of its last token, whether it was hit and its nats; with the accuracies' conventions."""
    return [
        share_figure(WORD_ACCURACY, exact, by_word),
        perplexity_figure(WORD_PERPLEXITY, np.array(nats), "e to the mean nats of the whole last word; the same"),
        share_figure(TOKEN_ACCURACY, last, by_token),
        perplexity_figure(TOKEN_PERPLEXITY, np.array(last_nats), "e to the mean nats of that last token"),
    ]


def read_passages(path: Path | str) -> list[tuple[str, str]]:
    """Each passage's text before its last word, and the last word behind its blank. DataError names file and row."""
    passages = []
    for row in read_rows([path]):
        context, blank, word = required(row, "text").strip().rpartition(" ")
        if not context.strip() or not word:
            raise DataError(f"{row.where}: has only one word; LAMBADA wants a passage and its last word")
        passages.append((context, blank + word))
    return passages


def _ngrams(ngrams: Ngrams, requests: list[Request]) -> Baseline:
    """The 5-gram model's likeliest token at each place of the word, and its log-probabilities."""
    model, exact, last, nats, last_nats = ngrams.longest, [], [], [], []
    for request in requests:
        tokens = np.concatenate([request.context, request.target]).astype(np.int64)
        n = len(request.target)
        logprobs, hits = [], []
        for i in range(len(tokens) - n, len(tokens)):
            probabilities = model.distribution(tokens[:i])
            logprobs.append(np.log(probabilities[tokens[i]]))
            hits.append(int(probabilities.argmax()) == tokens[i])
        exact.append(all(hits))
        last.append(hits[-1])
        nats.append(-sum(logprobs))
        last_nats.append(-logprobs[-1])
    return ngrams.baseline(5, _figures(exact, nats, last, last_nats, "", ""))
