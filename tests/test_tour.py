"""docs/tour.md: its commands run one after the other in an empty folder, and say what the tour shows."""

import filecmp
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from shown import events, name, shape

from docs.refresh import TOUR
from docs.tools.examples import Example, examples
from docs.tools.running import ROOT, Session

EXAMPLES = examples((ROOT / TOUR).read_text("utf-8"))
ALIKE = 0.5  # share of words, numbers left out: what is drawn or timed differs by machine
TEXTS = ("town.txt", "later.txt", "messages.csv", "more_messages.csv", "questions.jsonl")


def test_the_texts_are_what_the_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "tour" / "write_texts.py", tmp_path], check=True)
    assert filecmp.cmpfiles(ROOT / "docs" / "tour", tmp_path, TEXTS, shallow=False) == (list(TEXTS), [], [])


def test_what_is_measured_on_is_not_learnt_from() -> None:
    folder = ROOT / "docs" / "tour"
    for learnt, measured, between in (
        ("town.txt", "later.txt", "<|endoftext|>"),
        ("messages.csv", "more_messages.csv", "\n"),
    ):
        rows = [
            {row.strip() for row in (folder / file).read_text("utf-8").split(between)} for file in (learnt, measured)
        ]
        assert min(map(len, rows)) > 10
        assert rows[0] & rows[1] <= {"text,label", ""}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Example, str]]:
    """Each command with what it printed, all of them run in their order."""
    with Session(tmp_path_factory.mktemp("tour")) as session:
        yield {example: session.run(example.command) for example in EXAMPLES}
        assert session.stop() == 0


def of(said: dict[Example, str], words: str) -> str:
    """What the last command with these words printed."""
    return next(text for example, text in reversed(said.items()) if words in example.command)


slow = [
    pytest.mark.slow,
    pytest.mark.walk,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the tour's commands use curl"),
]


class TestWalked:
    pytestmark = slow

    @pytest.mark.parametrize("example", EXAMPLES, ids=name)
    def test_a_command_says_what_is_shown(self, said: dict[Example, str], example: Example) -> None:
        text, shown = said[example], example.shown
        if shown.startswith("data: "):
            assert events(text)[-1] == events(shown)[-1] == "[DONE]"
        elif shown.startswith("{") and "\n" not in shown:
            got, expected = json.loads(text), json.loads(shown)
            assert shape({**got, "usage": 0}) == shape({**expected, "usage": 0})
        else:
            assert SequenceMatcher(None, _words(text), _words(shown), autojunk=False).ratio() >= ALIKE, text

    def test_the_model_has_learnt_more_than_three_words_back(self, said: dict[Example, str]) -> None:
        row = re.search(r"^loss +([\d. ]+)$", of(said, "--on docs/tour/later.txt"), re.MULTILINE)
        assert row
        ours, _, _, trigram, *_ = map(float, row[1].split())
        assert ours < trigram

    def test_the_classifier_knows_new_wordings(self, said: dict[Example, str]) -> None:
        row = re.search(r"^accuracy +([\d.]+) %", of(said, "classify=docs/tour/more_messages.csv"), re.MULTILINE)
        assert row
        assert float(row[1]) > 70

    def test_messages_get_their_labels(self, said: dict[Example, str]) -> None:
        answer = json.loads(of(said, ":8000/classify"))
        assert [entry["label"] for entry in answer["data"][:2]] == ["request", "warning"]

    def test_a_question_is_answered(self, said: dict[Example, str]) -> None:
        assert "Nora" in json.loads(of(said, ":8000/instruct"))["text"]


def _words(text: str) -> list[str]:
    return re.sub(r"[\d.,:]*\d", "#", text).split()
