"""The bundled instruct model's rows: open instruction sets and what can be asked about the pretraining corpus, put together.

What models are measured on stays out: rows that share thirteen words with it, T0's templates over the film reviews that the
sentiment classifier is tested on, and documents of the base's validation split.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from model.errors import ConfigError
from model.files import staged_directory, write_json
from training.data.held_out import HeldOut, held_out
from training.data.readers import read_documents
from training.data.shards import split_of
from training.data.tables import read_rows, write_jsonl
from training.pretrain_recipe import PretrainSettings

Row = dict[str, Any]
TRAIN, HELD_OUT, REPORT = "train.jsonl", "held_out.jsonl", "report.json"
_OWN = Path(__file__).with_name("own_rows.jsonl")
_OWN_TIMES = 4  # so few rows would be lost among the others
_LONGEST = 3000  # characters of a request: more seldom fits into the context with its answer
_END = "<|endoftext|>"

# T0's data sets and how many rows of each are taken: those that ask about a text first, none of rotten_tomatoes (rt-polarity's
# sentences) and trec (whose answers are missing).
_T0 = {
    "adversarial_qa": 1200, "sciq": 700, "common_gen": 900, "cosmos_qa": 700, "samsum": 700, "social_i_qa": 600, "gigaword": 500,
    "dream": 400, "ag_news": 500, "wiki_bio": 300, "xsum": 350, "amazon_polarity": 400, "qasc": 300, "quartz": 300,
    "quarel": 200, "ropes": 200, "commonsense_qa": 300, "dbpedia_14": 300, "imdb": 300, "glue_mrpc": 300, "kilt": 200,
    "app_reviews": 200, "yelp": 200, "paws": 200, "wiqa": 300, "wiki_qa": 100, "glue_qqp": 100,
}  # fmt: skip
_TALES, _CONTINUATIONS = 400, 1500
_QUOTES = 1500  # characters to a quotation mark, at most
_CHILDRENS_TALE = 3500  # characters: longer documents are excerpts of books
_SCHOOL = re.compile(
    r"learning (outcomes|objectives)|this (section|chapter|module)|figure \d|\d\.\d|^\s*[-*] ", re.I | re.M
)
_ASK_TALE = (
    "Tell me a story called {title}.",
    "Write a short story for children: {title}.",
    "Tell me the tale of {title}.",
)
_ASK_ON = ("Continue the story.", "What happens next?", "Go on with this story.", "Write how the story goes on.")


def write_mixture(data: Path, directory: Path, *, seed: int = 0, recipe: Path | None = None) -> Path:
    """Write `directory` with the rows to train on (train.jsonl), a tenth of the short instructions, held out (held_out.jsonl), and
    what was taken from where (report.json); return the first. A directory that is there is replaced, when all is written.
    A row's `group` is the text that it is about, or what it asks: rows of one group are not to be parted when rows to validate with
    are taken out.

    `data`: the folder with pretrain/, instruct/, eval/ and classify/; `recipe`: the base's, whose held-out files and validation
    split are kept out. DataError or ConfigError names what can't be read.
    """
    recipe = recipe or Path(__file__).parents[1] / "recipes" / "base.toml"
    base = PretrainSettings.from_toml(recipe)
    own, kept_out = _short_instructions(data, seed)
    known = held_out(_relocated(base.data.filters.held_out, data))
    known_rows = HeldOut(f"{row['instruction']} {row['input']} {row['output']}" for row in kept_out)
    sources: dict[str, Iterable[Row]] = {
        "short instructions (rasbt)": own,
        "FairytaleQA": _fairy_tales(data),
        "FairytaleQA, several questions": _conversations(data),
        "T0": _t0(data, seed),
        "seed tasks": _seed_tasks(data),
        "the corpus's own tales": _stories(data, base, known, seed),
        "own rows": [row for row in _rows(_OWN) for _ in range(_OWN_TIMES)],
    }
    rows, report = [], {}
    for name, source in sources.items():
        given = list(source)
        clean = [row for row in given if not known.passages(text := _text(row)) and not known_rows.passages(text)]
        rows += [{**row, "source": name, "group": row.get("group", row.get("instruction"))} for row in clean]
        report[name] = {"rows": len(clean), "left out, held-out text": len(given) - len(clean)}
    random.Random(seed).shuffle(rows)
    with staged_directory(directory, overwrite=True) as stage:
        write_jsonl(rows, stage / TRAIN)
        write_jsonl(kept_out, stage / HELD_OUT)
        write_json(stage / REPORT, {"sources": report, "rows": len(rows), "held out": len(kept_out)})
    return directory / TRAIN


def _relocated(files: Sequence[str], data: Path) -> list[Path]:
    """The recipe's held-out files, looked for in `data` where they aren't where the recipe says."""
    found = []
    for name in files:
        path = Path(name)
        found.append(path if path.is_file() else data / path.parent.name / path.name)
    return found


def _short_instructions(data: Path, seed: int) -> tuple[list[Row], list[Row]]:
    """Raschka's 1,100 rows: nine tenths to train on and one to measure on, by a hash of the instruction."""
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in _rows(data / "instruct/rasbt_instruction-data.json"):
        digest = hashlib.blake2b(f"{seed} {row['instruction']}".encode(), digest_size=8).digest()
        kept = {name: row[name] for name in ("instruction", "input", "output")}
        sides[int.from_bytes(digest, "big") < 2**64 // 10].append(kept)
    return sides


def _fairy_tales(data: Path) -> Iterator[Row]:
    for row in _rows(data / "instruct/fairytaleqa_train.jsonl.gz"):
        yield {name: row[name].strip() for name in ("instruction", "input", "output")} | {"group": row["input"].strip()}


def _conversations(data: Path) -> Iterator[Row]:
    """Every section with at least three questions once more, as one conversation: the text comes with the first."""
    rows = sorted(_rows(data / "instruct/fairytaleqa_train.jsonl.gz"), key=lambda row: row["input"])
    for section, group in groupby(rows, key=lambda row: row["input"]):
        questions = list(group)
        if len(questions) < 3:
            continue
        messages = []
        for n, row in enumerate(questions[:4]):
            asked = row["instruction"].strip()
            messages += [
                {"role": "user", "content": asked if n else f"{asked}\n\n{section.strip()}"},
                {"role": "assistant", "content": row["output"].strip()},
            ]
        yield {"messages": messages, "group": section.strip()}


def _t0(data: Path, seed: int) -> Iterator[Row]:
    """Rows drawn from each data set, as instructions. ConfigError when a set of the list isn't there: a name would be wrong."""
    rows = list(_rows(data / "instruct/t0_short.jsonl.gz"))
    random.Random(seed).shuffle(rows)
    taken: Counter[str] = Counter()
    for row in rows:
        name = next((name for name in _T0 if row["template"].startswith(name)), None)
        answer = row["completion"].removesuffix(_END).strip()
        if name is None or taken[name] >= _T0[name] or not answer or len(row["prompt"]) > _LONGEST:
            continue
        taken[name] += 1
        yield {"instruction": row["prompt"].strip(), "input": "", "output": answer}
    if missing := sorted(set(_T0) - set(taken)):
        raise ConfigError(f"{data}/instruct/t0_short.jsonl.gz: holds no rows of {', '.join(missing)}")


def _seed_tasks(data: Path) -> Iterator[Row]:
    for row in _rows(data / "instruct/self_instruct_seed_tasks.jsonl"):
        for instance in row["instances"]:
            if len(instance["input"]) + len(row["instruction"]) <= _LONGEST:
                yield {"instruction": row["instruction"], "input": instance["input"], "output": instance["output"]}


def _stories(data: Path, base: PretrainSettings, known: HeldOut, seed: int) -> Iterator[Row]:
    """Children's tales asked for by their titles, and passages of stories to go on with, of documents that the base trains on."""
    draw = random.Random(seed)
    tales, passages = [], []
    for document in read_documents([data / "pretrain/mix_train.txt.gz"]):
        for text in known.cut(document):
            if split_of(text, base.data.validation_fraction, base.run.seed) != "train" or _SCHOOL.search(text[:5000]):
                continue
            paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
            if len(text) <= _CHILDRENS_TALE and len(paragraphs[0]) <= 60 and len(paragraphs) > 3:
                tales.append(_tale(paragraphs, draw))
            if text.count('"') * _QUOTES > len(text):  # people talk: it is a story
                passages += _continuations(paragraphs, draw)
    yield from draw.sample(tales, min(len(tales), _TALES))
    yield from draw.sample(passages, min(len(passages), _CONTINUATIONS))


def _tale(paragraphs: Sequence[str], draw: random.Random) -> Row:
    asked = draw.choice(_ASK_TALE).format(title=paragraphs[0].rstrip("."))
    return {"instruction": asked, "input": "", "output": "\n\n".join(paragraphs[1:]), "group": paragraphs[0]}


def _continuations(paragraphs: Sequence[str], draw: random.Random) -> Iterator[Row]:
    """At most three places of a document where a paragraph of prose follows another."""
    places = [
        n
        for n in range(1, len(paragraphs))
        if all(
            150 <= len(text) <= 700 and text[-1] in '.!?"' and text[0].isalpha() for text in paragraphs[n - 1 : n + 1]
        )
    ]
    for n in draw.sample(places, min(3, len(places))):
        yield {
            "instruction": draw.choice(_ASK_ON), "input": paragraphs[n - 1], "output": paragraphs[n], "group": paragraphs[0],
        }  # fmt: skip


def _text(row: Mapping[str, Any]) -> str:
    """All that a row says."""
    if "messages" in row:
        return "\n".join(message["content"] for message in row["messages"])
    return f"{row['instruction']}\n{row['input']}\n{row['output']}"


def _rows(path: Path) -> Iterator[Row]:
    return (row.values for row in read_rows([path]))
