"""Tokenising a corpus to shards, beside tiktoken's own batch call on the same text, and what filters cost.

    python benchmarks/tokenization.py                      # made-up text
    python benchmarks/tokenization.py my_texts/ --megabytes 64 --json figures.json

`shards` is training.data.shards.write_shards from a text file to synced shards: reading, hashing, splitting, tokenising, writing.
`tiktoken` is Encoding.encode_ordinary_batch on the same documents, already in memory, its lists of ids thrown away. Both with the
same vocabulary, loaded before the clock starts (GPT-2's takes 0.4 s), and as many threads. The cases take turns, each turn in a
process of its own, so that its peak memory is its own; what is shown is the median of the turns. "A core" is by processor time, so
that other work on the machine counts less. Memory is measured once more on the same text four times over: it should not grow.
Filters work on one core, here on the corpus's lines.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VOCABULARIES = {"gpt2": "GPT-2's 50,257 tokens", "homegrown-base": "the bundled model's own 4,096"}
SEPARATOR = "\n<|endoftext|>\n"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="*", help="text to measure on, as for pretraining; by default made-up words")
    parser.add_argument("--megabytes", type=float, default=24, help="of text, at most")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    parser.add_argument("--worker", nargs=3, metavar=("CASE", "CORPUS", "VOCABULARY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case, corpus, vocabulary = options.worker
        print(json.dumps(WORKERS[case](Path(corpus), Path(vocabulary), options.threads)))
        return
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(options, Path(directory))
    print(tables(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """All cases in turn -> their median figures."""
    from model.tokenizer import Tokenizer

    once, fourfold = directory / "corpus.txt", directory / "fourfold.txt"
    write_corpus(documents(options.corpus), once, options.megabytes * 1e6)
    with fourfold.open("wb") as file:
        for _ in range(4):
            file.write(once.read_bytes() + SEPARATOR.encode())
    figures: dict[str, Any] = {
        "corpus": options.corpus or "made up", "megabytes": once.stat().st_size / 1e6, "threads": options.threads,
        "rounds": options.rounds, "speed": {}, "memory": {}, "filters": {},
    }  # fmt: skip

    def run(case: str, corpus: Path, vocabulary: Path, rounds: int = options.rounds) -> Callable[[], dict[str, float]]:
        turns: list[dict[str, float]] = []
        command = [
            sys.executable,
            __file__,
            "--threads",
            str(options.threads),
            "--worker",
            case,
            str(corpus),
            str(vocabulary),
        ]

        def turn() -> dict[str, float]:
            if len(turns) < rounds:
                environment = os.environ | {"PYTHONPATH": str(ROOT)}
                said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout
                turns.append(json.loads(said))
            return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}

        return turn

    for name in VOCABULARIES:
        tokenizer = Tokenizer.gpt2() if name == "gpt2" else Tokenizer.from_directory(ROOT / "checkpoints" / name)
        tokenizer.save(directory / name)
        vocabulary = directory / name / "tokenizer.json"
        cases = {case: run(case, once, vocabulary) for case in ("tiktoken", "shards")}
        for _ in range(options.rounds):
            figures["speed"][name] = {case: turn() for case, turn in cases.items()}
        larger = run("shards", fourfold, vocabulary, 1)()
        figures["memory"][name] = {"1x": figures["speed"][name]["shards"]["peak_mb"], "4x": larger["peak_mb"]}
        print(f"{name}: done", file=sys.stderr)
    for kind in ("none", "exact", "near"):
        figures["filters"][kind] = run(f"filter-{kind}", once, once, 1)()
    return figures


def documents(corpus: list[str]) -> Iterator[str]:
    """Those of `corpus`; without one, words by Zipf's law, the same each time, in documents of some hundred to ten thousand."""
    if corpus:
        from training.data.readers import corpus_files, read_documents

        yield from read_documents(corpus_files(corpus))
        return
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ar", "en", "ing", "or", "un")]
    words = ["".join(rng.choices(syllables, k=1 + min(3, i // 400))) for i in range(20_000)]
    weights = [1 / (i + 2) for i in range(len(words))]
    while True:
        made = rng.choices(words, weights, k=int(min(10_000, 100 + rng.expovariate(1 / 900))))
        sentences = [" ".join(made[i : i + 12]).capitalize() + "." for i in range(0, len(made), 12)]
        yield "\n".join(" ".join(sentences[i : i + 6]) for i in range(0, len(sentences), 6))


def write_corpus(texts: Iterable[str], path: Path, limit: float) -> None:
    """A text file of whole documents, up to `limit` bytes."""
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(text + SEPARATOR)
            if file.tell() >= limit:
                return


def tiktoken_batch(corpus: Path, vocabulary: Path, threads: int) -> dict[str, float]:
    """tiktoken's own call, on documents in memory."""
    from model.tokenizer import Tokenizer
    from training.data.readers import read_documents

    encoding = Tokenizer.from_file(vocabulary)._encoder._core  # a tiktoken.Encoding
    texts = list(read_documents([corpus]))
    encoding.encode_ordinary_batch(texts[:20], num_threads=threads)
    with Clock() as clock:
        ids = encoding.encode_ordinary_batch(texts, num_threads=threads)
    return clock.figures(sum(len(text.encode()) for text in texts), sum(map(len, ids)))


def shards(corpus: Path, vocabulary: Path, threads: int) -> dict[str, float]:
    """The whole road, from file to shards."""
    from model.tokenizer import Tokenizer
    from training.data.readers import read_documents
    from training.data.shards import write_shards

    loaded = Tokenizer.from_file(vocabulary)
    Tokenizer.from_file = lambda _: loaded  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as target, Clock() as clock:
        manifest = write_shards(
            read_documents([corpus]), vocabulary, Path(target) / "shards", corpus=[corpus], validation_fraction=0.02, seed=0,
            threads=threads,
        )  # fmt: skip
    splits = manifest.splits.values()
    return clock.figures(sum(split.bytes for split in splits), sum(split.tokens for split in splits))


def filters(dedup: str) -> Callable[[Path, Path, int], dict[str, float]]:
    """The filters alone, over the corpus's lines: short documents, as web pages are."""

    def work(corpus: Path, _: Path, __: int) -> dict[str, float]:
        from training.data.account import Account
        from training.data.filters import FilterSettings, filtered

        account, settings = Account(), FilterSettings(min_letters=0.5, dedup=dedup)  # type: ignore[arg-type]
        with corpus.open(encoding="utf-8") as lines:
            texts = (line for line in lines if line.strip())
            list(filtered(["to load what is needed"], settings, Account()))
            before = after = resident_mb()
            with Clock() as clock:
                for _ in filtered(texts, settings, account):
                    if account.kept.documents % 1000 == 0:  # what is remembered goes with the last document
                        after = resident_mb()
        counts = [account.kept, *account.dropped.values()]
        figures = clock.figures(sum(count.bytes for count in counts), 0)
        n = sum(count.documents for count in counts)
        grown = 1e6 * (after - before) / max(1, account.kept.documents)
        return figures | {"documents_per_cpu_second": n / clock.cpu, "documents": n, "bytes_per_document": grown}

    return work


class Clock:
    """Wall and processor time of a stretch of work."""

    def __enter__(self) -> "Clock":
        self.seconds, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu += time.process_time()

    def figures(self, n_bytes: int, n_tokens: int) -> dict[str, float]:
        """Rates over that time, and the process's peak memory."""
        return {
            "mb_per_second": n_bytes / self.seconds / 1e6,
            "mb_per_cpu_second": n_bytes / self.cpu / 1e6,
            "tokens_per_second": n_tokens / self.seconds,
            "peak_mb": peak_mb(),
        }


def resident_mb() -> float:
    """The memory that the process holds now, in MB; 0 where the system doesn't tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if status.exists() else 0.0


def peak_mb() -> float:
    """The most memory that the process held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure is also that of the process that this one was started from
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            * 1024
            / 1e6
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


WORKERS: dict[str, Callable[[Path, Path, int], dict[str, float]]] = {
    "tiktoken": tiktoken_batch, "shards": shards, **{f"filter-{kind}": filters(kind) for kind in ("none", "exact", "near")},
}  # fmt: skip


def tables(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{figures['megabytes']:.1f} MB of text, {figures['threads']} threads, median of {figures['rounds']} rounds", "",
        "| vocabulary | case | MB/s | MB/s a core | tokens/s | peak memory | 4x the text |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, cases in figures["speed"].items():
        for case, row in cases.items():
            more = f"{figures['memory'][name]['4x']:,.0f} MB" if case == "shards" else ""
            lines.append(
                f"| {VOCABULARIES[name]} | {case} | {row['mb_per_second']:.1f} | {row['mb_per_cpu_second']:.1f} | "
                f"{row['tokens_per_second']:,.0f} | {row['peak_mb']:,.0f} MB | {more} |"
            )
        wall, core = (cases["shards"][key] / cases["tiktoken"][key] for key in ("mb_per_second", "mb_per_cpu_second"))
        lines.append(f"| | shards / tiktoken | {wall:.2f} | {core:.2f} | | | |")
    lines += ["", "| filter | documents/s a core | MB/s a core | memory a kept document |", "|---|---|---|---|"]
    for kind, row in figures["filters"].items():
        lines.append(
            f"| letters, dedup {kind} | {row['documents_per_cpu_second']:,.0f} | {row['mb_per_cpu_second']:.1f} | "
            f"{row['bytes_per_document']:,.0f} bytes |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
