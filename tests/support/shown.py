"""Pages whose commands are run: what a command answers compared with what the page shows."""

import json
import re
import subprocess
from typing import Any

from docs.tools.examples import Example

CHANGING = {  # differ by run or machine
    "id", "created", "timings", "torch", "threads", "slots", "device", "dtype", "kernels", "python", "cached_tokens",
}  # fmt: skip


def name(example: Example) -> str:
    """A test's name for a command."""
    return re.sub(r"\W+", "-", example.command)[-40:]


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


def check_answer(answer: str, shown: str) -> None:
    """AssertionError unless this is what the page shows, but for what changes."""
    if shown.startswith("data: "):
        # How many tokens share a frame is a matter of timing; what they say together, and how they end, is not.
        got, expected = events(answer), events(shown)
        assert got[-1] == expected[-1] == "[DONE]"
        assert shape(got[-2]) == shape(expected[-2])
        if "choices" in expected[0]:  # OpenAI's chunks: the first tells the role
            assert shape(got[0]) == shape(expected[0])
            assert _content(got[1:-1]) == _content(expected[1:-1]) != ""
        else:
            assert all(set(event) == {"text"} for event in got[:-2])
            assert len("".join(event["text"] for event in got[:-1])) > 10
    elif shown.startswith("{"):
        assert shape(json.loads(answer)) == shape(json.loads(shown))
    else:
        assert answer.strip() == shown


def _content(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def check_on_server(example: Example, address: tuple[str, int]) -> None:
    """Run a command that asks the server of `make serve` of this one instead, and compare."""
    here = example.command.replace("http://127.0.0.1:8000", "http://{}:{}".format(*address))
    assert here != example.command, "asks no server"
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    check_answer(done.stdout, example.shown)
