"""What the bundled models can't do, said by their own figures."""

from training.evaluate.answers import ENDED, F1, MATCH
from training.evaluate.hellaswag import BY_CHARACTERS
from training.evaluate.lambada import WORD_ACCURACY
from training.evaluate.results import Figure, Result, percent
from training.models.figures import Figures, measure
from training.models.tables import ACCURACY, BITS, FEW, beside, models

_ALWAYS = (
    "They know English alone, in the manner of old fiction, textbooks and children's tales. What they say of the world is not to "
    "be relied on: they hold few facts, no dates, no arithmetic.",
    "Nothing that they read was filtered for what it says, and nothing that they write is: views and words of old "
    "books are in them.",
    "A classifier gives every text one of its two labels, whatever the text is about. Its figures hold for texts like its rows: "
    "British and Singaporean messages of around 2010, sentences of film reviews around 2000.",
)


def limits(figures: Figures) -> list[str]:
    """Sentences, those that hold for any such model last."""
    found = [
        *_long_range(figures),
        *_common_sense(figures),
        *_answers(figures),
        *_unasked(figures),
        *_stronger(figures),
    ]
    context = f"They see {figures['base']['context']:,} tokens at once, prompt and answer together; what is longer is refused."
    return [*found, context, *_ALWAYS]


def _long_range(figures: Figures) -> list[str]:
    if (result := measure(figures, "base-text", "lambada")) is None:
        return []
    missed = 1 - result.figure(WORD_ACCURACY).value
    return [f"A last word that takes the whole passage to know (LAMBADA) is missed in {percent(missed)} of passages."]


def _common_sense(figures: Figures) -> list[str]:
    if (result := measure(figures, "base-hellaswag", "hellaswag")) is None:
        return []
    figure, chance = result.figure(BY_CHARACTERS), beside(result, "chance", BY_CHARACTERS)
    if chance is None:
        return []
    if figure.low is not None and figure.low > chance:
        said = f"{100 * (figure.value - chance):.1f} points above chance ({percent(chance)}), so it is mostly guessing"
        said = said if figure.value < 0.5 else f"right in {figure.shown}"
    else:
        said = f"not surely better than chance ({figure.shown}, chance {percent(chance)})"
    return [f"Which of four endings makes sense (HellaSwag): {said}."]


def _answers(figures: Figures) -> list[str]:
    result = measure(figures, "instruct-fairytale", "answers")
    if result is None:
        return []
    exact, lead = result.figure(MATCH), beside(result, "first sentence", F1)
    parts = [f"Of questions about a given tale, the instruct adapter answers {exact.shown} in the reference's words"]
    if lead is not None and lead > result.figure(F1).value:
        parts.append(
            f"and the tale's first sentence has more of the reference than its answers do (F1 {percent(lead)})"
        )
    unended = 1 - result.figure(ENDED).value
    ends = f" {percent(unended)} of its answers go on until they are cut." if unended > 0 else ""
    return [f"{' '.join(parts)}.{ends}"]


def _unasked(figures: Figures) -> list[str]:
    """Labels that a request names: where a model is no better than the commonest of them."""
    poor = []
    for kind, title in FEW.items():
        for key in ("base", "instruct"):
            for shots in (0, 4):
                result = measure(figures, f"{key}-{kind}-{shots}", "fewshot")
                majority = beside(result, "majority", ACCURACY) if result else None
                if result and majority is not None and _low(result.figure(ACCURACY)) <= majority:
                    poor.append(f"{title}, {models(figures)[key]}, {shots or 'no'} examples")
    if not poor:
        return []
    return [f"Labels that a request names: not surely better than always the commonest one in {'; '.join(poor)}."]


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _stronger(figures: Figures) -> list[str]:
    """What the stronger model is better and worse at, all measures that both have."""
    if not (name := figures["stronger"]):
        return []
    ahead, behind, level = [], [], []
    for title, ours, theirs, figure, less in _pairs(figures):
        if ours is not None and theirs is not None:
            mine, other = ours.figure(figure), theirs.figure(figure)
            if _overlap(mine, other):
                level.append(title)
            else:
                (ahead if (other.value < mine.value) == less else behind).append(title)
    sentences = [
        f"{name} is ahead in {', '.join(ahead)}." if ahead else "",
        f"It is behind in {', '.join(behind)}." if behind else "",
        f"Not told apart, since their intervals overlap: {', '.join(level)}." if level else "",
    ]
    return [" ".join(sentence for sentence in sentences if sentence)] if ahead or behind or level else []


def _overlap(a: Figure, b: Figure) -> bool:
    """Whether two figures aren't told apart by their 95 % intervals; without intervals only the same is the same."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return a.value == b.value
    return a.low <= b.high and b.low <= a.high


def _pairs(figures: Figures) -> list[tuple[str, Result | None, Result | None, str, bool]]:
    """(measure, our result, the stronger model's, figure, whether less is better)."""

    def both(ours: str, theirs: str, task: str) -> tuple[Result | None, Result | None]:
        return measure(figures, ours, task), measure(figures, theirs, task)

    pairs = [
        ("WikiText-2", *both("base-text", "stronger-text", "text"), BITS, True),
        ("LAMBADA", *both("base-text", "stronger-text", "lambada"), WORD_ACCURACY, False),
        ("HellaSwag", *both("base-hellaswag", "stronger-hellaswag", "hellaswag"), BY_CHARACTERS, False),
        ("FairytaleQA's F1", *both("instruct-fairytale", "stronger-fairytale", "answers"), F1, False),
        ("the held-out instructions' F1", *both("instruct-held-out", "stronger-held-out", "answers"), F1, False),
    ]
    for kind, title in FEW.items():
        for shots in (0, 4):
            results = both(f"instruct-{kind}-{shots}", f"stronger-{kind}-{shots}", "fewshot")
            pairs.append((f"{title} with {shots or 'no'} examples", *results, ACCURACY, False))
    return pairs
