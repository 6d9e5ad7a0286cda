"""HellaSwag (Zellers et al., 2019): which of four endings goes on a description.

An ending's score is its log-probability after the context. Longer endings have lower ones, so each of three conventions divides
by something else: by nothing, by the ending's characters (the lm-eval harness's acc_norm), by its tokens (what reproductions of
GPT-2 print, 29.4 to 29.6 % for 124M).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.tables import Row, read_rows, required
from training.errors import DataError
from training.evaluate.ngram_baseline import LEFT_OUT, Ngrams
from training.evaluate.results import Baseline, Result, share_figure
from training.evaluate.scoring import Request, encode_pair
from training.evaluate.subject import Options, Subject, drawn

ACCURACY, BY_CHARACTERS, BY_TOKENS = "accuracy", "accuracy by characters", "accuracy by tokens"


_IN_ONE_PIECE = (
    "the file has each context in one piece, whose last sentence begins as it stands; lm-eval begins it with a capital"
)


@dataclass(frozen=True)
class Item:
    """A context, its endings, and which of them is right."""

    context: str
    endings: tuple[str, ...]
    label: int
    parted: bool  # the file has the context's two sentences apart


def evaluate_hellaswag(subject: Subject, path: Path | str, options: Options) -> Result:
    """Accuracy of the likeliest ending, under the three conventions."""
    scorer = subject.scorer()
    items = read_items(path)
    chosen = drawn(items, options)
    requests = [
        encode_pair(subject.tokenizer, item.context, f" {ending}") for item in chosen for ending in item.endings
    ]
    totals = np.array([scored.total for scored in scorer.score(requests, desc="HellaSwag")])
    hits = _hits(chosen, requests, totals)
    prompt = "the ending behind the context and a blank, zero-shot; the context with its activity in front where the file has it"
    figures = [
        share_figure(ACCURACY, hits[ACCURACY], f"the ending of the highest log-probability; {prompt} (lm-eval's acc)"),
        share_figure(
            BY_CHARACTERS,
            hits[BY_CHARACTERS],
            "log-probability divided by the ending's characters (lm-eval's acc_norm)",
        ),
        share_figure(
            BY_TOKENS,
            hits[BY_TOKENS],
            "log-probability divided by the ending's tokens (what reproductions of GPT-2 print)",
        ),
    ]
    result = Result("hellaswag", str(path), len(chosen), len(items), "items", figures)
    chance = float(np.mean([1 / len(item.endings) for item in chosen]))
    result.baselines.append(Baseline("chance", dict.fromkeys(hits, chance), ""))
    if options.ngrams:
        result.baselines.append(_ngrams(options.ngrams, chosen, requests))
    else:
        result.notes.append(LEFT_OUT)
    if not all(item.parted for item in chosen):
        result.notes.append(_IN_ONE_PIECE)
    return result


def read_items(path: Path | str) -> list[Item]:
    """The items of a file of rows with `endings`, `label` and either `ctx` or the published file's `ctx_a`, `ctx_b` and
    `activity_label`. DataError names file and row."""
    return [_item(row) for row in read_rows([path])]


def _item(row: Row) -> Item:
    endings = row.values.get("endings")
    if not isinstance(endings, list) or len(endings) < 2 or not all(isinstance(e, str) and e.strip() for e in endings):
        raise DataError(f"{row.where}: 'endings' must be a list of at least two texts")
    label = required(row, "label")
    if not label.isdecimal() or int(label) >= len(endings):
        raise DataError(
            f"{row.where}: 'label' must be from 0 to {len(endings) - 1}, the number of the right ending, not {label!r}"
        )
    if "ctx_a" in row.values and "ctx_b" in row.values:
        second = required(row, "ctx_b")
        context = f"{required(row, 'ctx_a')} {second.capitalize()}"
        context = f"{required(row, 'activity_label')}: {context}" if "activity_label" in row.values else context
    else:
        context = required(row, "ctx")
    return Item(_clean(context), tuple(_clean(ending) for ending in endings), int(label), "ctx_b" in row.values)


def _clean(text: str) -> str:
    """Without the marks that WikiHow's pages left behind, as the lm-eval harness cleans it."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hits(items: list[Item], requests: list[Request], totals: np.ndarray) -> dict[str, list[bool]]:
    """Per convention, whether each item's best ending is the right one; `totals` [all endings]: log-probabilities."""
    hits: dict[str, list[bool]] = {ACCURACY: [], BY_CHARACTERS: [], BY_TOKENS: []}
    start = 0
    for item in items:
        end = start + len(item.endings)
        scores, own = totals[start:end], requests[start:end]
        characters = np.array([len(ending) for ending in item.endings])
        tokens = np.array([len(request.target) for request in own])
        for name, lengths in ((ACCURACY, 1), (BY_CHARACTERS, characters), (BY_TOKENS, tokens)):
            hits[name].append(int((scores / lengths).argmax()) == item.label)
        start = end
    return hits


def _ngrams(ngrams: Ngrams, items: list[Item], requests: list[Request]) -> Baseline:
    """The same choice by a 5-gram model."""
    totals = [
        float(ngrams.longest.logprobs(np.concatenate([request.context, request.target]))[-len(request.target) :].sum())
        for request in requests
    ]
    hits = _hits(items, requests, np.array(totals))
    return ngrams.baseline(5, [share_figure(name, values, "") for name, values in hits.items()])
