"""docs/models.md and what stands beside it, and the README's table: all from the figures, so that they can be made again
without the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.errors import ConfigError
from model.files import read_json, write_json, write_whole
from training.curves import curves
from training.evaluate.answers import F1
from training.models.figures import Figures, collect, measure, sizes
from training.models.limits import limits
from training.models.places import ADAPTERS, BASE, Places
from training.models.tables import (
    ACCURACY,
    BITS,
    CLASSIFIED,
    LOGISTIC,
    answers_table,
    beside,
    classified,
    classifiers_table,
    confusion_table,
    few_shot_table,
    margin,
    models,
    short_table,
    texts_table,
)
from training.table import Table

FIGURES, CURVE = "figures.json", "loss.png"
BEGIN, END = "<!-- models: begin (written by make models) -->", "<!-- models: end -->"
_QUOTED = 1200  # characters of a request that the page shows
_WHAT = {
    "base": "goes on with a text",
    "instruct": "answers instructions and questions about a text",
    "sms-spam": "ham or spam",
    "sentiment": "negative or positive, of film reviews",
}
_DATA = (
    ("832 books of simple fiction", "base", "Project Gutenberg, from rcdm-uga/Gutenberg_Text@a0b16d35", "public domain in the US"),
    ("14 textbooks", "base", "OpenStax, Rice University (openstax/osbooks-*)",
     "CC BY 4.0: attribution to OpenStax, Rice University"),
    ("316 children's tales", "base", "African Storybook, from global-asp/asp-source@99e02236", "CC BY"),
    ("1,100 instructions", "instruct", "rasbt/LLMs-from-scratch@28c65cdf", "Apache-2.0"),
    ("FairytaleQA (Xu et al., 2022)", "instruct", "uci-soe/FairytaleQAData@a24ddc17", "Apache-2.0"),
    ("T0's short answers (Sanh et al., 2022), seed tasks (Wang et al., 2023)", "instruct",
     "yizhongw/self-instruct@0b26ccaa, tatsu-lab/stanford_alpaca@761dc5bf", "Apache-2.0; the sets beneath T0 keep their own"),
    ("SMS Spam Collection (Almeida et al., 2011)", "sms-spam", "justmarkham/DAT8@ff04af83", "CC BY 4.0"),
    ("Sentence polarity (Pang and Lee, 2005)", "sentiment", "dennybritz/cnn-text-classification-tf@18762b45", "CC BY 4.0"),
    ("SST-2 (Socher et al., 2013)", "sentiment", "awake020/pytorch_Bert_sst2@ce2ab171", "none stated, research use"),
    ("WikiText-2, LAMBADA, HellaSwag", "measures alone",
     "pytorch/examples@77f55b91, cybertronai/bflm@620fff70, klosax/hellaswag_text_data@1105d370",
     "CC BY-SA 3.0; CC BY 4.0; MIT"),
)  # fmt: skip


def write_page(places: Places, commands: Mapping[str, str]) -> Path:
    """Write figures.json, the curve, docs/models.md and the README's table, and return the page. `commands`: by task, for the page.
    DataError or ConfigError names what isn't there."""
    figures = collect(places) | {"commands": dict(commands)}
    with_table(
        places.readme.read_text("utf-8"), figures
    )  # a README without the marks is to be known before anything is written
    (places.docs / "models").mkdir(parents=True, exist_ok=True)
    write_json(places.docs / "models" / FIGURES, figures)
    return rebuild(places)


def rebuild(places: Places) -> Path:
    """Write all that but the figures again, from docs/models/figures.json, without the runs; the sizes are those of now. Without
    matplotlib the old picture stays."""
    beside_page = places.docs / "models"
    figures: Figures = read_json(beside_page / FIGURES, ConfigError)
    figures |= {"sizes": sizes(places.checkpoints / BASE)}
    write_json(beside_page / FIGURES, figures)
    try:
        drawn = curves(figures["curve"], references=_references(figures)).get(CURVE)
    except ImportError:
        drawn = None
    if drawn is not None:
        write_whole(beside_page / CURVE, lambda part: part.write_bytes(drawn))
    readme, text = with_table(places.readme.read_text("utf-8"), figures), page(figures)
    write_whole(places.readme, lambda part: part.write_text(readme, "utf-8"))
    write_whole(places.docs / "models.md", lambda part: part.write_text(text, "utf-8"))
    return places.docs / "models.md"


def page(figures: Figures) -> str:
    """The whole page."""
    parts = [
        "# The bundled models",
        "<!-- Written by `make models` from models/figures.json; change training/models/, not this file. -->",
        "What this repository trained itself and ships: one base model, from scratch, and three adapters on it, so "
        "that one `make serve` "
        "answers `/generate`, `/instruct`, `/v1/chat/completions` and `/classify`. Every figure below was measured "
        "by "
        "`homegrown evaluate` or by the run itself; none is typed by hand.",
        sizes_table(figures).markdown(),
        _section("Making them again", *_making(figures)),
        _section("The base", *_base(figures)),
        _section("What it writes", *_samples(figures)),
        _section("Answers", answers_table(figures).markdown(), *_examples(figures)),
        _section("Classifiers", classifiers_table(figures).markdown(), _rows_text(figures), *_confusions(figures)),
        _section("Labels that nobody trained for", few_shot_table(figures).markdown(), *_prompts(figures)),
        _section("The same again", *_again(figures)),
        _section("What they can't do", "\n".join(f"- {sentence}" for sentence in limits(figures))),
        _section("Texts, licences, attribution", _data_table().markdown(), *_kept_apart(figures)),
    ]
    return "\n\n".join(parts) + "\n"


def sizes_table(figures: Figures) -> Table:
    """What there is, and how large."""
    parameters = f"{figures['base']['parameters'] / 1e6:.1f} M parameters"
    rows = [
        [_place(name), _WHAT[name], parameters if name == "base" else "low-rank pairs", _mb(size)]
        for name, size in figures["sizes"].items()
    ]
    total = sum(figures["sizes"].values())
    return Table("Sizes", ["model", "what it does", "", "MB"], [*rows, ["all", "", "", _mb(total)]])


def with_table(readme: str, figures: Figures) -> str:
    """The README with its table of models made anew. ConfigError when it lacks the marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"README.md: the lines {BEGIN} and {END} must stand where the table of models belongs")
    more = "[docs/models.md](docs/models.md) has the rest: samples, other models beside them, what they can't do."
    return f"{before}{begin}\n\n{readme_table(figures).markdown()}\n\n{more}\n\n{end}{after}"


def readme_table(figures: Figures) -> Table:
    """The models in short."""
    sms, tone = classified(figures, "sms-spam"), classified(figures, "sentiment")
    asked, told = (measure(figures, f"{key}-fairytale", "answers") for key in ("base", "instruct"))
    text = measure(figures, "base-text", "text")
    rows = []
    if text is not None:
        gram = beside(text, "5-gram", BITS)
        reached = f"WikiText-2: {text.figure(BITS).value:.3f} bits a byte" + (f", a 5-gram {gram:.3f}" if gram else "")
        rows.append([f"`{BASE}`", _WHAT["base"], reached])
    if asked is not None and told is not None:
        before, after = asked.figure(F1), told.figure(F1)
        rows.append(
            [
                "`instruct`",
                _WHAT["instruct"],
                f"FairytaleQA: F1 {after.shown} ({after.interval}), the base {before.shown}",
            ]
        )
    for name, result, title in (("sms-spam", sms, "SMS spam"), ("sentiment", tone, "SST-2's dev set")):
        if result is not None:
            accuracy, words = result.figure(ACCURACY), beside(result, LOGISTIC, ACCURACY)
            other = f", logistic regression {100 * words:.2f} %" if words is not None else ""
            rows.append([f"`{name}`", _WHAT[name], f"{title}: {accuracy.shown} ({accuracy.interval}){other}"])
    return Table("Models", ["model", "what it does", "measured"], rows)


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


def _place(name: str) -> str:
    where = f"checkpoints/{BASE}" if name == "base" else f"checkpoints/{BASE}/adapters/{name}"
    return f"[{BASE if name == 'base' else name}](../{where}/README.md)"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _making(figures: Figures) -> list[str]:
    commands: Mapping[str, str] = figures["commands"]
    lines = [commands[name] for name in (BASE, *ADAPTERS) if name in commands]
    return [
        "```sh\nmake models DATA=../shared/data WORK=runs/models\n```",
        "That takes many hours on two cores. It can be stopped at any moment: what is done is skipped, runs go on "
        "from their saved "
        "states. `python -m training.models --dry-run` prints every command; `--only STEP` and `--from STEP` "
        "choose. These four "
        "train (the rows for them are made by the steps `instruct-data`, `sms-data` and `sentiment-data`):",
        "```sh\n" + "\n".join(lines) + "\n```",
    ]


def _base(figures: Figures) -> list[str]:
    base = figures["base"]
    train = base["splits"]["train"]
    where = base["environment"]
    shape = (
        f"Llama's architecture, {base['layers']} layers of width {base['width']}, {base['heads']} heads, context "
        f"{base['context']:,}, an own "
        f"byte-level BPE vocabulary of {base['vocabulary']:,} tokens: {base['parameters']:,} parameters. "
        f"{base['updates']:,} updates, "
        f"{base['tokens']:,} tokens ({base['passes']} passes over {train['tokens']:,} tokens of "
        f"{train['documents']:,} documents) in "
        f"{_hours(base['minutes'])} on {where.get('device', 'a device not named')}, PyTorch "
        f"{where.get('PyTorch', 'unknown')}."
    )
    gains = margin(figures)
    better = ", ".join(f"{value:.3f} on {name}" for name, value in gains.items())
    return [
        shape,
        f"![Training and validation loss against tokens seen](models/{CURVE})",
        texts_table(figures).markdown(),
        f"Bits a byte less than the 5-gram: {better}." if gains else "",
    ]


def _hours(minutes: int) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes} minutes"


def _samples(figures: Figures) -> list[str]:
    if not figures["samples"]:
        return ["No sample was drawn."]
    first = "Fixed prompts, seeds 0 and 1: none was chosen or left out. Each can be had again with its command."
    return [first, *(f"`{each['command']}`\n\n{quoted(each['text'])}" for each in figures["samples"])]


def _examples(figures: Figures) -> list[str]:
    """The same drawn questions, answered by each model that was asked them."""
    results = {key: measure(figures, f"{key}-fairytale", "answers") for key in models(figures)}
    asked = {key: result.details["examples"] for key, result in results.items() if result is not None}
    if "instruct" not in asked:
        return []
    parts = [
        "Which update's weights the adapter has was chosen by the loss on FairytaleQA's validation split, which "
        "the table's first rows "
        "are drawn from; by the held-out instructions nothing was chosen. Some of its questions, drawn by seed 0, "
        "as they were "
        "answered:"
    ]
    for example in asked["instruct"]:
        parts.append(f"**Request**\n\n{quoted(example['request'])}\n\n**Reference**\n\n{quoted(example['reference'])}")
        for key, examples in asked.items():
            given = next((each["answer"] for each in examples if each["request"] == example["request"]), None)
            if given is not None:
                parts.append(f"**{models(figures)[key]}**\n\n{quoted(given)}")
        parts.append("---")
    return parts[:-1]


def _confusions(figures: Figures) -> list[str]:
    found = {title: classified(figures, key) for key, title in CLASSIFIED.items()}
    return [confusion_table(result, title).markdown() for title, result in found.items() if result is not None]


def _rows_text(figures: Figures) -> str:
    rows: Mapping[str, Mapping[str, int]] = figures["rows"]["sentiment"]
    return (
        f"Sentiment: {rows['train.jsonl']['rows']:,} rows of SST-2 and rt-polarity train, "
        f"{rows['validation.jsonl']['rows']:,} choose the "
        "weights. SST-2 was made of rt-polarity's sentences: what trains, what chooses and what tests shares no "
        "run of six words. "
        "Nothing was chosen by the figures of test rows."
    )


def _prompts(figures: Figures) -> list[str]:
    found = [measure(figures, f"base-{kind}-0", "fewshot") for kind in ("sms", "sentiment")]
    shown = [result.details["prompt"] for result in found if result is not None and "prompt" in result.details]
    return ["The prompts, of the first row each:", *map(quoted, shown)] if shown else []


def _again(figures: Figures) -> list[str]:
    table, runs = short_table(figures), figures["short"]
    if not runs:
        return [table.note]
    text = (
        "The base's recipe, cut to 150 updates of a quarter of its batch on the smaller part of the corpus: twice "
        "with one seed, once "
        "with another, which also draws another validation split. "
    )
    return [
        text + table.note,
        Table(table.title, table.header, table.rows).markdown(),
        "```sh\n" + "\n".join(r["command"] for r in runs) + "\n```",
    ]


def _data_table() -> Table:
    return Table("Data", ["text", "for", "source", "licence"], _DATA)


def _kept_apart(figures: Figures) -> list[str]:
    cut = figures["base"]["cut"]
    documents, size = cut.get("documents", 0), cut.get("bytes", 0)
    sources: Mapping[str, Mapping[str, Any]] = figures["instruct"]["rows"].get("sources", {})
    rows = [[name, *(f"{count:,}" for count in counts.values())] for name, counts in sources.items()]
    header: Sequence[str] = ["instruct's rows from", *next(iter(sources.values()), {})]
    text = (
        "What the models are measured on was kept out of what they learned: runs of thirteen words of the measured "
        "texts were looked for "
        f"in the corpus, and cut out of {documents:,} documents, {size / 1e6:.2f} MB with their surroundings; rows "
        "of instructions that "
        "hold such a run were left out."
    )
    return [text, Table("", header, rows).markdown() if rows else ""]


def quoted(text: str) -> str:
    """A text as an indented block, so that nothing in it is taken for Markdown."""
    shown = text if len(text) <= _QUOTED else text[:_QUOTED] + " [...]"
    return "\n".join(f"    {line}".rstrip() for line in (shown or "(nothing)").splitlines())


def _references(figures: Figures) -> dict[str, float]:
    return {row["name"]: row["loss"] for row in figures["base"]["validation"][1:]}
