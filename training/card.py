"""Model cards: the README.md of what a run made, written from the run's own figures.

`model_card` is pretraining's; the parts below it are shared by all tasks.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.config import ModelConfig
from training.data.shards import Manifest
from training.evaluate.perplexity import Score
from training.pretrain_recipe import PretrainSettings
from training.recipe import OptimSettings, RunSection
from training.state import Counters
from training.table import Table

_PRETRAINED_LIMITS = (
    "It continues text in the manner of its training data. It knows few facts, follows no instructions, and what it writes is "
    "neither checked nor filtered."
)


@dataclass(frozen=True)
class Change:
    """What continued pretraining did to one kind of text, both scores over the same tokens. `n_bytes`: of that text."""

    text: str
    before: Score
    after: Score
    n_bytes: int


@dataclass(frozen=True)
class PretrainResult:
    """A finished pretraining run. `baselines`: rows of training.evaluate.ngram.baselines on the same split, with a
    `baselines_note` where they are of a part of the training split, or there are none; `base`: the model
    that it went on from, with `changes` since; `environment`: of training.environment."""

    settings: PretrainSettings
    config: ModelConfig
    manifest: Manifest
    counters: Counters
    score: Score
    baselines: list[dict[str, float]]
    baselines_note: str = ""
    base: str | None = None
    changes: Sequence[Change] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> float:
        """Of the validation text."""
        return self.score.bits_per_byte(self.manifest.splits["validation"].bytes)


def model_card(result: PretrainResult) -> str:
    """The README.md of a pretrained model directory, with the front matter that model hubs read."""
    settings, counters = result.settings, result.counters
    passes = counters.tokens / max(1, result.manifest.splits["train"].tokens)
    about = settings.data.about.strip() or "Files: " + ", ".join(result.manifest.corpus)
    tables = [measures_table(result), *([changes_table(result.changes)] if result.changes else [])]
    sections = {table.title: table.markdown() for table in tables} | {
        "Data": f"{about}\n\n{data_table(result.manifest).markdown()}",
        "Training": training_text(
            settings.optim, settings.run, counters, batch=f"{settings.optim.batch_tokens:,} tokens", passes=passes
        ),
        "Made with": environment_text(result.environment),
        "What it is not for": _PRETRAINED_LIMITS,
    }
    return card(settings.name, _summary(result), sections, tags=[result.config.architecture], base=result.base)


def card(
    title: str,
    summary: str,
    sections: Mapping[str, str],
    *,
    tags: Sequence[str] = (),
    task: str = "text-generation",
    library: str = "transformers",
    base: str | None = None,
) -> str:
    """A whole card: front matter, title, summary, and the sections (title -> text) that aren't empty. `task`, `library`: as model
    hubs name them (`peft` for an adapter); `base`: the model that it was made from, a name or a directory."""
    front = {"library_name": library, "pipeline_tag": task, "tags": ["homegrown", *tags]}
    # A hub refuses what can't be a repository's name, and what lies on this disk is in none.
    if base is not None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not Path(base).is_dir():
        front["base_model"] = base
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---"]
    parts = ["\n".join(lines) + f"\n# {title}", summary.strip()]
    parts += [f"## {name}\n\n{text.strip()}" for name, text in sections.items() if text.strip()]
    return "\n\n".join(parts) + "\n"


def changes_table(changes: Sequence[Change]) -> Table:
    """Perplexity and bits a byte of each text before and after continued pretraining."""
    rows = [
        [
            change.text,
            f"{change.before.perplexity:.2f}",
            f"{change.after.perplexity:.2f}",
            f"{change.before.bits_per_byte(change.n_bytes):.4f}",
            f"{change.after.bits_per_byte(change.n_bytes):.4f}",
        ]
        for change in changes
    ]
    header = ["text", "token perplexity before", "after", "bits a byte before", "after"]
    note = "The base model's tokenizer is kept, so before and after are over the same tokens."
    return Table("What the new text changed", header, rows, note)


def training_text(
    optim: OptimSettings, run: RunSection, counters: Counters, *, batch: str, passes: float, method: str = ""
) -> str:
    """How it was trained, in a paragraph. `batch`: what an update is made of ("8,192 tokens", "16 examples"); `passes`: over the
    training data; `method`: what was trained, where that isn't everything."""
    rates = (
        f"{optim.matrix_lr:g} for matrices, {optim.lr:g} for the rest" if optim.optimizer == "muon" else f"{optim.lr:g}"
    )
    fall = "half a cosine" if optim.schedule == "cosine" else f"linear over the last {optim.cooldown:.0%}"
    sentences = [
        f"{counters.step:,} updates of {batch}, {counters.tokens:,} tokens in all ({passes:.2f} passes over the training data), "
        f"{_time(counters.seconds)}.",
        f"{method}." if method else "",
        f"Optimiser {optim.optimizer}, peak learning rate {rates}; {optim.warmup_steps} updates of warm-up, cool-down "
        f"{fall} to {optim.floor:.0%}; weight decay {optim.weight_decay:g}; gradients clipped at {optim.clip:g};",
        f"{'bfloat16 products with float32 weights' if run.precision_bf16 else 'float32'}; seed {run.seed}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def environment_text(environment: Mapping[str, str]) -> str:
    """The command in a block, and a line of what it ran on; empty when nothing is known."""
    rest = [f"{name} {value}" for name, value in environment.items() if name != "command"]
    block = f"```\n{environment['command']}\n```\n\n" if "command" in environment else ""
    return block + ", ".join(rest) + ("." if rest else "")


def base_name(base: str) -> str:
    """What to call a base model: a name as it is; a directory by its own name, since where it lay says nothing to others. Every
    run calls its result "model", so that is called by the run's."""
    path = Path(base)
    if not (path.is_absolute() or path.is_dir()):
        return base
    path = path.absolute()
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def _summary(result: PretrainResult) -> str:
    config, manifest = result.config, result.manifest
    origin = "pretrained from scratch" if result.base is None else f"pretrained further from {base_name(result.base)}"
    vocabulary = "own byte-level BPE vocabulary" if result.base is None else "that model's vocabulary"
    return (
        f"A language model {origin} by Homegrown: {config.architecture} architecture, {config.n_layer} layers x "
        f"{config.d_model}, {config.n_head} heads, context {config.context_length}, {vocabulary} of {manifest.vocab_size:,} "
        "tokens; bfloat16 safetensors in the Hugging Face layout."
    )


def _time(seconds: float) -> str:
    return f"{seconds / 60:,.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def measures_table(result: PretrainResult) -> Table:
    """Loss and bits a byte on the validation split, beside the n-gram models'."""
    score = result.score
    rows = [["this model", f"{score.loss:.4f}", f"{result.bits_per_byte:.4f}"]]
    rows += [
        [
            f"{row['order']:.0f}-gram, interpolated modified Kneser-Ney",
            f"{row['loss']:.4f}",
            f"{row['bits_per_byte']:.4f}",
        ]
        for row in result.baselines
    ]
    text = "each document alone" if result.settings.data.document_mask else "the split as one stream"
    note = (
        f"Token perplexity {score.perplexity:.2f} over {score.tokens:,} tokens. Convention: {text}, in windows of "
        f"{result.config.context_length} tokens overlapping by half, every token counted once, end-of-text tokens too; in float32, "
        "with the weights as stored here."
    )
    if result.baselines:
        note += " The n-gram models are of the same training split, over the same tokens as one stream."
    if result.baselines_note:
        note += f" {result.baselines_note}"
    return Table(
        "Measures on the validation split", ["model", "loss (nats a token)", "bits a byte"], rows, note, strong=0
    )


def data_table(manifest: Manifest) -> Table:
    """What was read: documents, tokens, bytes of each split; and what was left out, for which reason."""
    rows = [
        [name, f"{split.documents:,}", f"{split.tokens:,}", f"{split.bytes:,}"]
        for name, split in manifest.splits.items()
    ]
    cut: Mapping[str, int] = manifest.account.get("cut", {})
    if cut.get("documents"):
        what = "cut out: passages of text that models are measured on"
        rows.append([what, f"{cut['documents']:,}", "", f"{cut['bytes']:,}"])
    dropped: Mapping[str, Mapping[str, int]] = manifest.account.get("dropped", {})
    rows += [
        [f"left out: {reason}", f"{count['documents']:,}", "", f"{count['bytes']:,}"]
        for reason, count in dropped.items()
    ]
    return Table("Data", ["split", "documents", "tokens", "bytes"], rows, "Split by document, by a hash of its text.")
