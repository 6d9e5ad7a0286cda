"""What fast arithmetic costs in quality: each format against float32, token by token on the same text.

    python benchmarks/quality.py homegrown-base --text wiki.valid.txt.gz lambada_test.jsonl.gz
    python benchmarks/quality.py homegrown-base path/to/model --text wiki.valid.txt.gz --tokens 8192 --backend torch

The reference is the plain PyTorch model in float32. Texts are cut into rows of the model's context (at most --row tokens) that
don't see each other, and all formats read each row one after another. The ratio of perplexities has a 95 % interval, from the
paired differences of the tokens' log-probabilities. The limits are those the project holds itself to; the exit status is 1 when
a ratio lies over its limit.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from model.backend import Backend, BackendSpec, Segment, load_backend  # noqa: E402
from model.hub import resolve_model  # noqa: E402
from model.tokenizer import Tokenizer  # noqa: E402
from training.data.readers import corpus_files, read_documents  # noqa: E402
from training.evaluate.corpus import tokenize_stream  # noqa: E402

FORMATS = {  # dtype, quantize, the most that perplexity may grow
    "float32": ("float32", "none", 1e-4),
    "bfloat16": ("bfloat16", "none", 0.002),
    "int8": ("float32", "int8", 0.01),
    "int4": ("float32", "int4", 0.05),
}
_CHUNK = 256  # rows of logits at a time


@dataclass
class Tally:
    """One format on one text, summed over its tokens."""

    nats: float = 0.0
    gains: list[Tensor] = field(default_factory=list)  # the reference's log-probability less this one's, of each target
    agreeing: int = 0
    kl: float = 0.0
    seconds: float = 0.0

    def add(self, reference: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Logits [R, V] of the reference and of this format, targets [R]."""
        ours, theirs = logits.log_softmax(1), reference.log_softmax(1)
        own = ours.gather(1, targets[:, None])[:, 0].double()
        self.nats -= float(own.sum())
        self.gains.append(theirs.gather(1, targets[:, None])[:, 0].double() - own)
        self.agreeing += int((ours.argmax(1) == theirs.argmax(1)).sum())
        self.kl += float((theirs.exp() * (theirs - ours)).sum(dtype=torch.float64))

    def report(self, name: str, kernels: str) -> dict[str, Any]:
        """Its figures."""
        gains = torch.cat(self.gains)
        n, mean = len(gains), float(gains.mean())
        spread = 1.96 * float(gains.std()) / math.sqrt(n)
        limit = 1 + FORMATS[name][2]
        return {
            "format": name, "kernels": kernels, "tokens": n, "perplexity": math.exp(self.nats / n),
            "ratio": math.exp(mean), "low": math.exp(mean - spread), "high": math.exp(mean + spread),
            "argmax": self.agreeing / n, "kl": self.kl / n, "tokens_per_second": n / self.seconds,
            "limit": limit, "over": math.exp(mean) > limit,
        }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or directories")
    parser.add_argument("--text", nargs="+", required=True, help="files that the corpus readers read")
    parser.add_argument("--tokens", type=int, default=8192, help="of each text, from its begin")
    parser.add_argument("--row", type=int, default=1024, help="tokens of a row at most")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--backend", choices=["auto", "native", "torch"], default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for model in options.models:
        found = measure(resolve_model(model), options)
        results += [{"model": model} | result for result in found]
        print(table(model, found), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    sys.exit(any(result["over"] for result in results))


def measure(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every format's figures on every text."""
    plain = BackendSpec(
        model=directory, dtype="float32", quantize="none", backend="torch", device="cpu", threads=options.threads,
        max_slots=1,
    )  # fmt: skip
    reference = load_backend(plain)
    backends = {name: load_format(plain, name, options.backend) for name in options.formats}
    tokenizer = Tokenizer.from_directory(directory)
    results = []
    for path in options.text:
        stream = tokenize_stream(list(read_documents(corpus_files([path]))), tokenizer, threads=options.threads)
        tokens = [int(token) for token in stream[: options.tokens + 1]]
        tallies = compare(reference, backends, tokens, min(options.row, reference.context))
        for name, tally in tallies.items():
            results.append({"text": Path(path).name} | tally.report(name, backends[name].kernels))
    for backend in (reference, *backends.values()):
        backend.close()
    return results


def load_format(plain: BackendSpec, name: str, backend: str) -> Backend:
    """The model in that format."""
    dtype, quantize, _ = FORMATS[name]
    return load_backend(
        BackendSpec(
            model=plain.model, dtype=dtype, quantize=quantize, backend=backend, device=plain.device,
            threads=plain.threads, max_slots=1,
        )
    )  # fmt: skip


def compare(reference: Backend, backends: dict[str, Backend], tokens: Sequence[int], row: int) -> dict[str, Tally]:
    """Tokens in rows end to end, each of which predicts the next."""
    tallies = {name: Tally() for name in backends}
    for start in range(0, len(tokens) - 1, row):
        fed = tokens[start : min(start + row, len(tokens) - 1)]
        targets = torch.tensor(tokens[start + 1 : start + 1 + len(fed)])
        segment = Segment(0, 0, fed, len(fed))
        known = reference.forward([segment])
        for name, backend in backends.items():
            tally, began = tallies[name], time.perf_counter()
            hidden = backend.forward([segment])
            tally.seconds += time.perf_counter() - began
            for at in range(0, len(fed), _CHUNK):
                theirs = reference.logits(known[at : at + _CHUNK])
                began = time.perf_counter()
                ours = backend.logits(hidden[at : at + _CHUNK])
                tally.seconds += time.perf_counter() - began
                tally.add(theirs, ours, targets[at : at + _CHUNK])
    return tallies


def table(model: str, results: Sequence[dict[str, Any]]) -> str:
    """The figures of one model as lines of text."""

    def lines() -> Iterator[str]:
        yield f"\n{model}"
        yield (
            f"{'text':28}{'format':10}{'kernels':16}{'tokens':>8}{'perplexity':>12}{'ratio':>9}{'95 % interval':>18}"
            f"{'limit':>8}{'argmax':>8}{'KL':>10}{'tok/s':>8}"
        )
        for r in results:
            interval = f"{r['low']:.4f}-{r['high']:.4f}"
            yield (
                f"{r['text'][:27]:28}{r['format']:10}{r['kernels'][:15]:16}{r['tokens']:8}{r['perplexity']:12.3f}{r['ratio']:9.4f}"
                f"{interval:>18}{r['limit']:8.4g}{r['argmax']:8.4f}{r['kl']:10.2e}{r['tokens_per_second']:8.0f}"
                f"{'  OVER' if r['over'] else ''}"
            )

    return "\n".join(lines())


if __name__ == "__main__":
    main()
