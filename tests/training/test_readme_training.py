"""The README's training commands, run as they stand there, on small data and for a few updates each."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text("utf-8").split("## Train your own")[1].split("\n## ")[0]
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("homegrown ") and " serve " not in line
]
SHORT = {  # what keeps each short; the recipe's own length otherwise
    "pretrain": "--steps 3 --set run.compile=false --set run.eval_tokens=2000 --set data.vocab_size=300",
    "finetune": "--set run.steps=3 --set run.eval_every=2",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the data that the commands name."""
    place = tmp_path_factory.mktemp("newcomer")
    (place / "training").symlink_to(ROOT / "training")
    for name in ("my_texts", "my_domain"):
        (place / name).mkdir()
        lines = [f"Text number {i} of {name} tells of {i % 7} boats and {i % 5} cats by the sea." for i in range(400)]
        (place / name / "a.txt").write_text("\n<|endoftext|>\n".join(lines))
    (place / "other.txt").write_text("A quite different text, about mountains. " * 20)
    for name, numbers in (("reviews.csv", range(60)), ("new_reviews.csv", range(60, 90))):
        rows = [[f"{i}: {('a fine film', 'a dull film')[i % 2]}, I thought", ("good", "bad")[i % 2]] for i in numbers]
        with (place / name).open("w", newline="") as file:
            csv.writer(file).writerows([["review", "stars"], *rows])
    answers = [{"instruction": f"Add {i} and 1.", "output": f"It is {i + 1}."} for i in range(40)]
    (place / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    pairs = [{"prompt": f"Add {i} and 1.", "chosen": f"{i + 1}, please.", "rejected": f"{i + 1}!"} for i in range(40)]
    (place / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return place


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 10
    assert {"pretrain", "finetune", "merge", "evaluate"} == {command.split()[1] for command in COMMANDS}


def test_nothing_is_measured_on_what_it_was_trained_on() -> None:
    words = [shlex.split(command) for command in COMMANDS]
    learned = {word for each in words if each[1] == "finetune" for word in each if "." in word}
    measured = {word.partition("=")[2] for each in words if each[1] == "evaluate" for word in each if "=" in word}
    assert learned
    assert measured
    assert not learned & measured


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.timeout(900)
def test_they_run_one_after_the_other(place: Path) -> None:
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        extra = SHORT.get(words[0], "")
        if "--start" in words:
            extra = extra.replace("--set data.vocab_size=300", "")
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words, *extra.split()], cwd=place, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=250, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for model in ("mine", "domain", "reviews", "instruct", "preferred"):
        assert (place / "runs" / model / "model" / "model.safetensors").is_file()
        assert (place / "runs" / model / "report.html").is_file()
    assert (place / "runs" / "adapter" / "model" / "adapter_model.safetensors").is_file()
    assert (place / "runs" / "merged" / "model.safetensors").is_file()
