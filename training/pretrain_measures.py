"""What a pretraining run measures: its held-out text; general text besides, before and after, where it goes on from a model; and
the n-gram models that stand beside it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.errors import HomegrownError
from model.files import file_sha256, read_json, write_json
from model.gpt import GPT
from model.hub import resolve_model
from model.processors import available_cpus
from model.tokenizer import Tokenizer
from training.card import Change
from training.data.account import utf8_length
from training.data.readers import corpus_files, read_documents
from training.data.shards import Manifest, describe, open_split
from training.devices import memory_free
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram import BYTES_PER_TOKEN, baselines
from training.evaluate.perplexity import Score, score_documents, score_windows
from training.evaluate.scoring import Scorer
from training.pretrain_recipe import PretrainSettings

HELD_OUT = "the new text, held out"
_NGRAM_TOKENS = 50_000_000


@dataclass(frozen=True)
class Measures:
    """How a run measures a model, in float32 on `device`. `shards`, `manifest`: its data; `before`: the file that keeps what the
    model scored that the run goes on from."""

    settings: PretrainSettings
    shards: Path
    manifest: Manifest
    tokenizer: Tokenizer
    device: torch.device
    before: Path

    @property
    def eot(self) -> int:
        """The token that each document of the shards stands behind; the first one too."""
        return int(open_split(self.shards, "train")[:1][0])

    def score(self, model: GPT, tokens: Any, *, stride: int | None = None, bf16: bool = False) -> Score:
        """Of tokens [n], where the model is: as it was trained, documents alone (each begins as the first does) or one stream."""
        scorer = Scorer(model, bf16=bf16, progress=stride is None)
        if self.settings.data.document_mask:
            return score_documents(scorer, tokens, int(tokens[:1][0]), stride=stride)
        return score_windows(scorer, tokens, stride=stride)

    def scores(self, model: GPT) -> dict[str, tuple[Score, int]]:
        """Of the held-out text and the recipe's general text, each with the text's bytes. The model comes back where it was."""
        home = next(model.parameters()).device
        model.to(self.device)
        try:
            found = {HELD_OUT: (self.score(model, open_split(self.shards, "validation")), self._held_out_bytes)}
            for label, path in labelled(self.settings.data.general).items():
                documents = list(read_documents(corpus_files([path]), field=self.settings.data.field))
                tokens = tokenize_stream(documents, self.tokenizer, threads=available_cpus())
                found[label] = self.score(model, tokens), sum(utf8_length(text) for text in documents)
            return found
        finally:
            model.to(home)

    def measure_start(self, model: GPT) -> None:
        """Before the first update of a run that goes on from a model: keep its scores. Those that are kept already stay, if they
        are of this model and these texts."""
        of = self._of()
        with suppress(HomegrownError):  # not there, or damaged
            if read_json(self.before).get("of") == of:
                return
        scores = {name: asdict(score) for name, (score, _) in self.scores(model).items()}
        write_json(self.before, {"of": of, "scores": scores})

    def changes(self, after: dict[str, tuple[Score, int]]) -> list[Change]:
        """What became of the scores that `measure_start` kept; nothing for a run from scratch."""
        if self.settings.model.start is None:
            return []
        before = {name: Score(**values) for name, values in read_json(self.before)["scores"].items()}
        return [Change(name, before[name], *measure) for name, measure in after.items()]

    def ngrams(self) -> tuple[list[dict[str, float]], str]:
        """The rows of evaluate.ngram.baselines over the held-out text, and what is to be said of them: that they are of the first
        tokens of the training split alone, or why there are none. Whatever fails, a finished run is not to be lost for them."""
        try:
            train = open_split(self.shards, "train")
            n = min(len(train), _NGRAM_TOKENS, max(1, memory_free("cpu") // 2 // BYTES_PER_TOKEN))
            validation = open_split(self.shards, "validation")
            rows = baselines(train[:n], validation, self.manifest.vocab_size, self._held_out_bytes)
        except Exception as error:
            return [], f"The n-gram models could not be made ({type(error).__name__}: {error})."
        return rows, "" if n == len(train) else f"They are of its first {n:,} tokens alone, to bound their memory."

    @property
    def _held_out_bytes(self) -> int:
        return self.manifest.splits["validation"].bytes

    def _of(self) -> dict[str, Any]:
        """What the scores at the start follow from, as JSON."""
        data, start = self.settings.data, self.settings.model.start
        assert start is not None
        weights = sorted(resolve_model(start).glob("*.safetensors"))
        general = {
            label: [asdict(describe(file)) for file in corpus_files([path])]
            for label, path in labelled(data.general).items()
        }
        return {
            "start": {path.name: file_sha256(path) for path in weights},
            "data": self.manifest.splits["validation"].sha256,
            "document_mask": data.document_mask,
            "general": general,
            "field": data.field,
        }


def labelled(paths: Sequence[str]) -> dict[str, str]:
    """Each path, once, by as much of its end as tells it from the others."""
    by_parts = {Path(path).parts or (path,): path for path in paths}
    shown = 1
    while len({parts[-shown:] for parts in by_parts}) < len(by_parts):
        shown += 1
    return {"/".join(parts[-shown:]): path for parts, path in by_parts.items()}
