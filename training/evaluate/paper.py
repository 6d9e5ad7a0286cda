"""GPT-2's published figures, to lay a model of the same shape beside them, each with its source and convention."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.config import PRESETS, ModelConfig
from training.evaluate import hellaswag, lambada
from training.evaluate.results import Baseline, Figure, Result, percent, plain

SIZES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
_PAPER = "Radford et al., 2019, table 3"


@dataclass(frozen=True)
class Published:
    """A measure that was published for GPT-2's sizes. `task` and `figure` name ours that is to be compared with it; `values`: by
    size; `share`: parts of 1; `remark`: how near the two conventions are."""

    measure: str
    task: str
    figure: str
    values: dict[str, float]
    source: str
    remark: str
    share: bool = False


PUBLISHED = (
    Published(
        "WikiText-103, word perplexity", "wikitext2", "word perplexity",
        {"gpt2": 37.50, "gpt2-medium": 26.37, "gpt2-large": 22.05, "gpt2-xl": 17.48}, _PAPER,
        "test split, cutting undone; WikiText-2 has the same test articles, so its file can be used; the lm-eval harness has 37.37 "
        "for 124M",
    ),
    Published(
        "WikiText-2, perplexity", "wikitext2", "token perplexity",
        {"gpt2": 29.41, "gpt2-medium": 22.76, "gpt2-large": 19.93, "gpt2-xl": 18.34}, _PAPER,
        "the paper doesn't say how it differs from WikiText-103's; token perplexity of the file as it stands comes near it (29.94 "
        "for 124M, test split)",
    ),
    Published(
        "LAMBADA, accuracy", "lambada", lambada.TOKEN_ACCURACY,
        {"gpt2": 0.4599, "gpt2-medium": 0.5548, "gpt2-large": 0.6012, "gpt2-xl": 0.6324}, _PAPER,
        "with a filter of stop words that was not published; the last token alone comes near it (46.7 to 46.9 % for 124M)",
        share=True,
    ),
    Published(
        "LAMBADA, perplexity", "lambada", lambada.TOKEN_PERPLEXITY,
        {"gpt2": 35.13, "gpt2-medium": 15.60, "gpt2-large": 10.87, "gpt2-xl": 8.63}, _PAPER,
        "the paper doesn't say of what; laid beside the last token's",
    ),
    Published(
        "LAMBADA, whole last word, accuracy", "lambada", lambada.WORD_ACCURACY, {"gpt2": 0.3256},
        "lm-eval harness, lambada_openai", "the same convention as ours", share=True,
    ),
    Published(
        "LAMBADA, whole last word, perplexity", "lambada", lambada.WORD_PERPLEXITY, {"gpt2": 40.06},
        "lm-eval harness, lambada_openai", "the same convention as ours",
    ),
    Published(
        "HellaSwag, by tokens", "hellaswag", hellaswag.BY_TOKENS,
        {"gpt2": 0.294, "gpt2-medium": 0.375, "gpt2-large": 0.432, "gpt2-xl": 0.489}, "reproductions of GPT-2 (llm.c)",
        "validation split; there without the activity's name in front of the context", share=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A published measure beside ours, as texts; `ours` is empty where it wasn't taken."""

    measure: str
    ours: str
    published: str
    source: str
    remark: str


def family_member(config: ModelConfig) -> str | None:
    """Which of GPT-2's four sizes a model has the shape of; a vocabulary padded to a multiple of 64 is of the shape."""
    for name in SIZES:
        base = PRESETS[name]
        fields = ("architecture", "n_layer", "n_head", "d_model", "d_ff", "context_length")
        same = all(getattr(config, field) == getattr(base, field) for field in fields)
        if same and base.vocab_size <= config.vocab_size <= -(-base.vocab_size // 64) * 64:
            return name
    return None


def compare(config: ModelConfig, results: Sequence[Result]) -> list[Comparison] | None:
    """GPT-2's figures of that size beside the model's; None when the model is of another shape."""
    member = family_member(config)
    if member is None:
        return None
    rows = []
    for published in PUBLISHED:
        if member not in published.values:
            continue
        result = next((result for result in results if result.task == published.task), None)
        ours = next((f for f in result.figures if f.name == published.figure), None) if result else None
        show = percent if published.share else plain
        rows.append(
            Comparison(
                published.measure,
                _ours(result, ours),
                show(published.values[member]),
                published.source,
                published.remark,
            )
        )
    return rows


def published_baseline(config: ModelConfig, task: str) -> Baseline | None:
    """GPT-2's figures of that size, to stand beside a result's own; None when there are none."""
    member = family_member(config)
    found = [p for p in PUBLISHED if p.task == task and member in p.values]
    if member is None or not found:
        return None
    values = {p.figure: p.values[member] for p in found}
    return Baseline(f"GPT-2 {SIZES[member]}", values, "as published; sources and conventions stand with the comparison")


def paper_text(config: ModelConfig, comparisons: Sequence[Comparison] | None) -> str:
    """The comparison as lines of text, or that there is none."""
    if comparisons is None:
        return (
            "published figures: none to compare with; the shape is not one of GPT-2's four sizes "
            f"({config.architecture}, {config.n_layer} layers x {config.d_model}, context {config.context_length})"
        )
    name = SIZES[family_member(config) or "gpt2"]
    rows = [("", "this model", f"GPT-2 {name}"), *((c.measure, c.ours or "not run", c.published) for c in comparisons)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}" for a, b, c in rows]
    return "\n".join(
        [
            "published figures of this shape",
            "",
            *lines,
            "",
            *(f"{c.measure}: {c.source}; {c.remark}." for c in comparisons),
        ]
    )


def as_json(comparisons: Sequence[Comparison] | None) -> list[dict[str, Any]] | None:
    """The comparison as JSON's own types."""
    return None if comparisons is None else [asdict(comparison) for comparison in comparisons]


def _ours(result: Result | None, figure: Figure | None) -> str:
    if result is None or figure is None:
        return ""
    return figure.shown + (f" ({result.items:,} of {result.total:,})" if result.items < result.total else "")
