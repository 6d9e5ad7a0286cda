"""What a run leaves to read: the model card, written from the run's own figures."""

from dataclasses import dataclass

from model.config import ModelConfig
from training.data.shards import Manifest
from training.evaluate.perplexity import Score
from training.recipe import PretrainSettings
from training.state import Counters


@dataclass(frozen=True)
class PretrainResult:
    """A finished pretraining run. `baselines`: rows of training.evaluate.ngram.baselines on the same split."""

    settings: PretrainSettings
    config: ModelConfig
    manifest: Manifest
    counters: Counters
    score: Score
    baselines: list[dict[str, float]]

    @property
    def bits_per_byte(self) -> float:
        """Of the validation text."""
        return self.score.bits_per_byte(self.manifest.splits["validation"].bytes)


def model_card(result: PretrainResult) -> str:
    """The README.md of a pretrained model directory, with the front matter that model hubs read."""
    parts = [_front_matter(result), _summary(result), _measures(result), _data(result), _settings(result), _LIMITS]
    return "\n".join(parts)


def _front_matter(result: PretrainResult) -> str:
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [homegrown, {result.config.architecture}]
---
# {result.settings.name}
"""


def _summary(result: PretrainResult) -> str:
    config = result.config
    return f"""A language model pretrained from scratch by Homegrown: {config.architecture} architecture, {config.n_layer}
layers x {config.d_model}, {config.n_head} heads, context {config.context_length}, own byte-level BPE vocabulary of
{result.manifest.vocab_size:,} tokens; bfloat16 safetensors in the Hugging Face layout.
"""


def _measures(result: PretrainResult) -> str:
    score = result.score
    rows = [
        f"| {row['order']:.0f}-gram, interpolated modified Kneser-Ney | {row['loss']:.4f} | {row['bits_per_byte']:.4f} |"
        for row in result.baselines
    ]
    table = "\n".join(rows)
    return f"""## Measures on the validation split

| model | loss (nats a token) | bits a byte |
|---|---|---|
| **this model** | **{score.loss:.4f}** | **{result.bits_per_byte:.4f}** |
{table}

Token perplexity {score.perplexity:.2f} over {score.tokens:,} tokens. Convention: the split as one stream, windows of
{result.config.context_length} tokens overlapping by half, every token counted once, end-of-text tokens too; in float32, with
the weights as stored here. The n-gram models are of the same training split and the same tokens.
"""


def _data(result: PretrainResult) -> str:
    train, validation = result.manifest.splits["train"], result.manifest.splits["validation"]
    return f"""## Data

{result.settings.data.about or "Files: " + ", ".join(result.manifest.corpus)}

| split | documents | tokens | bytes |
|---|---|---|---|
| train | {train.documents:,} | {train.tokens:,} | {train.bytes:,} |
| validation | {validation.documents:,} | {validation.tokens:,} | {validation.bytes:,} |

Split by document, by a hash of its text.
"""


def _settings(result: PretrainResult) -> str:
    counters = result.counters
    optim, run = result.settings.optim, result.settings.run
    passes = counters.tokens / result.manifest.splits["train"].tokens
    rates = f"{optim.matrix_lr} for matrices, {optim.lr} for the rest" if optim.optimizer == "muon" else f"{optim.lr}"
    return f"""## Training

{counters.step:,} updates of {optim.batch_tokens:,} tokens, {counters.tokens:,} tokens in all ({passes:.2f} passes
over the training split), {counters.seconds / 60:.0f} minutes on {run.device}. Optimiser {optim.optimizer},
peak learning rate {rates}; {optim.warmup_steps} updates of warm-up, linear cool-down over the
last {optim.cooldown:.0%}; weight decay {optim.weight_decay}; gradients clipped at {optim.clip};
{"bfloat16 products" if run.bf16 else "float32"} with float32 weights; seed {run.seed}.
"""


_LIMITS = """## What it is not for

It continues text in the manner of its training data. It knows few facts, follows no instructions, and what it writes is neither
checked nor filtered.
"""
