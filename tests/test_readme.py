"""The README and docs/http.md keep their word: their commands run against a real server and answer what is shown."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundled_server import bundled_server
from serving import Server
from shown import check_on_server, name

from docs.refresh import REFERENCE
from docs.tools.examples import Example, examples

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = examples(README)
REFERENCE_EXAMPLES = examples((ROOT / REFERENCE).read_text("utf-8"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with bundled_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")
@pytest.mark.parametrize("example", [*EXAMPLES, *REFERENCE_EXAMPLES], ids=name)
def test_a_command_answers_as_shown(server: Server, example: Example) -> None:
    check_on_server(example, server.address)


def test_it_shows_commands_and_is_short() -> None:
    assert len(EXAMPLES) >= 4
    assert len(REFERENCE_EXAMPLES) >= 20
    assert len(README.splitlines()) < 300


def test_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"\b(?:docs|deploy|training|checkpoints|model|app|tests)/[\w./-]*\w", README))
    assert named
    assert {path for path in named if not (ROOT / path).exists()} == set()
