"""The README keeps its word: its commands run against a real server and answer what it shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CHANGING = {  # differ by run or machine
    "id", "created", "timings", "torch", "threads", "slots", "device", "dtype", "kernels", "python", "cached_tokens",
}  # fmt: skip


def examples() -> Iterator[tuple[str, str]]:
    """Every command of the README's console blocks with the output shown for it."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            length = 1 + next(i for i, line in enumerate(lines) if not line.endswith("\\"))
            yield "\n".join(lines[:length]), "\n".join(lines[length:]).strip()


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `make serve`: the bundled model, nothing set but a folder into which an adapter `reviews` is put later."""
    from oracle import make_adapters

    folder = tmp_path_factory.mktemp("adapters")
    running = Server({"adapters_dir": folder}).wait_ready()
    made = make_adapters(ROOT / "checkpoints" / "homegrown-base", tmp_path_factory.mktemp("made"))
    shutil.copytree(made["mood"], folder / "reviews")
    yield running
    assert running.stop() == 0


def shape(value: Any) -> Any:
    """What must be as shown: all of it but what differs by run, machine or the last bit of a float."""
    if isinstance(value, dict):
        return {key: "..." if key in CHANGING else shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__ if isinstance(value, float | str) else value


def events(text: str) -> list[Any]:
    """The JSON of each server-sent event; [DONE] as it is."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples use curl")
@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[re.sub(r"\W+", "-", c)[-40:] for c, _ in EXAMPLES])
def test_a_command_answers_as_shown(server: Server, command: str, shown: str) -> None:
    here = command.replace("http://127.0.0.1:8000", "http://{}:{}".format(*server.address))
    assert here != command
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if shown.startswith("data: "):
        # How many tokens share a frame is a matter of timing; what they say together, and how they end, is not.
        got, expected = events(done.stdout), events(shown)
        assert got[-1] == expected[-1] == "[DONE]"
        assert shape(got[-2]) == shape(expected[-2])
        assert all(set(event) == {"text"} for event in got[:-2])
        assert len("".join(event["text"] for event in got[:-1])) > 10
    elif shown.startswith("{"):
        assert shape(json.loads(done.stdout)) == shape(json.loads(shown))
    else:
        assert done.stdout.strip() == shown


def test_every_route_of_the_service_is_shown(server: Server) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    shown = {path for command, _ in EXAMPLES for path in re.findall(r":8000(/[\w/.-]*)", command)}
    assert len(paths) >= 6
    assert {path.replace("{model}", "homegrown-base").replace("{name}", "reviews") for path in paths} == shown


def test_files_that_it_names_are_there() -> None:
    for path in re.findall(r"\b(?:docs|training|checkpoints|model|app|tests)/[\w./-]*\w", README):
        assert (ROOT / path).exists(), path
