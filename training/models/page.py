"""docs/models.md and what stands beside it, and the README's table: all from the figures, so that they can be made again
without the runs."""

from collections.abc import Mapping
from pathlib import Path

from model.errors import ConfigError
from model.files import read_json, write_json, write_whole
from training.curves import curves
from training.evaluate.answers import F1
from training.models import sections
from training.models.figures import Figures, collect, measure, sizes
from training.models.limits import limits
from training.models.places import BASE, Places
from training.models.sections import CURVE
from training.models.tables import ACCURACY, BITS, LOGISTIC, beside, classified
from training.table import Table

FIGURES = "figures.json"
BEGIN, END = "<!-- models: begin (written by make models) -->", "<!-- models: end -->"
_HEAD = """\
# The bundled models

<!-- Written by `make models` from models/figures.json; change training/models/, not this file. -->

What this repository trained itself and ships: one base model, from scratch, and three adapters on it, so that one
`make serve` answers `/generate`, `/instruct`, `/v1/chat/completions` and `/classify`. Every figure below was measured
by `homegrown evaluate` or by the run itself; none is typed by hand."""
_WHAT = {
    "base": "goes on with a text",
    "instruct": "answers instructions and questions about a text",
    "sms-spam": "ham or spam",
    "sentiment": "negative or positive, of film reviews",
}


def write_page(places: Places, commands: Mapping[str, str]) -> Path:
    """Write figures.json, the curve, docs/models.md and the README's table, and return the page. `commands`: by task, for the page.
    DataError or ConfigError names what isn't there."""
    figures = collect(places, commands)
    # A README without the marks is to be known before anything is written.
    with_table(places.readme.read_text("utf-8"), figures)
    (places.docs / "models").mkdir(parents=True, exist_ok=True)
    write_json(places.docs / "models" / FIGURES, figures)
    return rebuild(places)


def rebuild(places: Places) -> Path:
    """Write all that but the figures again, from docs/models/figures.json, without the runs; the sizes are those of now. Without
    matplotlib the old picture stays."""
    beside_page = places.docs / "models"
    if not (beside_page / FIGURES).is_file():
        raise ConfigError(f"{beside_page / FIGURES}: isn't there; a finished course writes it, with --only page")
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
    body = {
        "Making them again": sections.making(figures),
        "The base": sections.base(figures),
        "What it writes": sections.samples(figures),
        "Answers": sections.answers(figures),
        "Classifiers": sections.classifiers(figures),
        "Labels named in the request": sections.few_shot(figures),
        "The same again": sections.again(figures),
        "What they can't do": ["\n".join(f"- {sentence}" for sentence in limits(figures))],
        "Texts, licences, attribution": sections.data(figures),
    }
    parts = [_HEAD, sizes_table(figures).markdown()]
    for title, paragraphs in body.items():
        parts += [f"## {title}", *(paragraph for paragraph in paragraphs if paragraph)]
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
    text = measure(figures, "base-text", "text", "wikitext2")
    rows = []
    if text is not None:
        gram = beside(text, "5-gram", BITS)
        reached = f"WikiText-2: {text.figure(BITS).value:.3f} bits a byte" + (f", a 5-gram {gram:.3f}" if gram else "")
        rows.append([f"`{BASE}`", _WHAT["base"], reached])
    if asked is not None and told is not None:
        before, after = asked.figure(F1), told.figure(F1)
        reached = f"FairytaleQA: F1 {after.shown} ({after.interval}), the base {before.shown}"
        rows.append(["`instruct`", _WHAT["instruct"], reached])
    for name, result, title in (("sms-spam", sms, "SMS spam"), ("sentiment", tone, "SST-2's dev set")):
        if result is not None:
            accuracy, words = result.figure(ACCURACY), beside(result, LOGISTIC, ACCURACY)
            other = f", logistic regression {100 * words:.2f} %" if words is not None else ""
            rows.append([f"`{name}`", _WHAT[name], f"{title}: {accuracy.shown} ({accuracy.interval}){other}"])
    return Table("Models", ["model", "what it does", "measured"], rows)


def _place(name: str) -> str:
    where = f"checkpoints/{BASE}" if name == "base" else f"checkpoints/{BASE}/adapters/{name}"
    return f"[{BASE if name == 'base' else name}](../{where}/README.md)"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _references(figures: Figures) -> dict[str, float]:
    """Losses to draw beside the curve, of the validation split."""
    result = measure(figures, "base-text", "text", "validation/documents")
    gram = beside(result, "5-gram", "loss") if result else None
    return {} if gram is None else {"5-gram": gram}
