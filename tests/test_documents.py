"""The documents: links lead somewhere, commands exist; and what keeps the rest true is itself held to its word."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli import COMMANDS, commands
from docs.refresh import refresh_commands
from docs.tools.examples import examples, with_outputs
from docs.tools.fields import Reference
from docs.tools.openapi import openapi_document
from docs.tools.running import ROOT, CommandFailed, Session

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "deploy" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def anchors(page: Path) -> set[str]:
    """What links into a page can name, as GitHub makes it of the headings."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?(?:\S*/)?homegrown (.*)$", blocks, re.MULTILINE):
        words = shlex.split(re.split(r" (?:&&|[|>]) ", line)[0], comments=True)
        if words[0] == "--help":
            continue
        assert words[0] in COMMANDS, line
        command = commands.get_command(click.Context(commands), words.pop(0))
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, line
        known = {option for parameter in command.get_params(click.Context(command)) for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line


PAGE = """Text.

```console
$ echo one \\
    two
old
$ cat <<'END'
not a command
END
old

older
```

```sh
echo never run
```

```console
$ echo '{"a":
  1}'
```
Behind.
"""


def test_commands_are_told_from_what_they_print() -> None:
    found = examples(PAGE)
    assert [example.command for example in found] == [
        "echo one \\\n    two", "cat <<'END'\nnot a command\nEND", "echo '{\"a\":\n  1}'",
    ]  # fmt: skip
    assert [example.shown for example in found] == ["old", "old\n\nolder", ""]
    assert with_outputs(PAGE, {example: example.shown for example in found}) == PAGE


def test_outputs_are_written_anew(tmp_path: Path) -> None:
    page, work = tmp_path / "page.md", tmp_path / "work"
    page.write_text(PAGE)
    work.mkdir()
    with Session(work, links=()) as session:
        assert refresh_commands(page, session) == 3
        first = page.read_text()
        assert first == PAGE.replace("two\nold", "two\none two").replace(
            "END\nold\n\nolder", "END\nnot a command"
        ).replace("1}'\n", '1}\'\n{"a":\n  1}\n')
    assert "never run" not in first.replace("echo never run", "")


def test_a_session_shows_what_a_terminal_would_but_no_progress(tmp_path: Path) -> None:
    with Session(tmp_path, links=()) as session:
        assert session.run("pwd; echo ' 10%  step 1' >&2; echo error >&2; echo http://127.0.0.1:8000/x") == "\n".join(
            [str(tmp_path), "error", "http://127.0.0.1:8000/x"]
        )
        with pytest.raises(CommandFailed, match=r"false\nended with status 1"):
            session.run("false")


def test_a_server_that_does_not_come_up_is_told_with_its_words(tmp_path: Path) -> None:
    with Session(tmp_path, links=()) as session, pytest.raises(CommandFailed, match="no/such"):
        session.run("homegrown serve --model no/such")


def test_tables_of_a_route_that_there_is_not_are_refused() -> None:
    with pytest.raises(LookupError, match="GET /nowhere"):
        Reference(openapi_document()).fill("<!-- fields: GET /nowhere -->\n<!-- end -->")
