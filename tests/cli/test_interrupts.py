"""Ctrl-C, as a real signal to a real process: exit code 130, no traceback, and nothing half written."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oracle import make_adapters
from serving import ROOT, wait_for
from terminal import OnTerminal
from tiny import random_model, tiny_config

ROWS = 1200

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes its time: answers of any length, and a text a millisecond."""
    from model.checkpoint import save_model
    from model.tokenizer import Tokenizer

    directory = tmp_path_factory.mktemp("models") / "patient"
    config = tiny_config("llama", context_length=32768, eos_token_ids=(), d_model=128, head_dim=32, d_ff=512)
    save_model(random_model(config), directory)
    Tokenizer.gpt2().save(directory)
    return directory


class Running:
    """`homegrown ...` with its streams on pipes, in a process group of its own as a shell would have it."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env=dict(os.environ),
        )  # fmt: skip

    def interrupt(self) -> tuple[str, str]:
        """Ctrl-C to the whole group; checks how it ends, and returns what it has printed."""
        os.killpg(self.process.pid, signal.SIGINT)
        output, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 130, errors
        assert "Traceback" not in errors
        assert "Exception ignored" not in errors
        assert "socket" not in errors
        assert errors.endswith("homegrown: interrupted\n")
        return output, errors


def test_classify_goes_on_where_it_was(patient: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "rows.csv", tmp_path / "rows.classified.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("text",), *((f"This is text number {i}, {'good' * (i % 5)}.",) for i in range(ROWS))]
        )
    command = ("classify", table, "--model", patient, "--label", "good", "--label", "bad", "--threads", "1")
    journal = tmp_path / ".rows.classified.csv.unfinished"
    running = Running(*command)
    wait_for(
        lambda: running.process.poll() is not None or (journal.exists() and journal.stat().st_size > 5000), what="rows"
    )
    _, errors = running.interrupt()
    assert f"of {ROWS:,} rows; --resume goes on from there" in errors
    assert not out.exists()
    done = len(journal.read_text().splitlines()) - 1
    assert 0 < done < ROWS
    python = [sys.executable, "-m", "cli", *map(str, command)]
    resumed = subprocess.run([*python, "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {table.name, out.name}
    again = tmp_path / "again.csv"
    subprocess.run([*python, "--out", again], cwd=ROOT, check=True, capture_output=True)
    assert out.read_bytes() == again.read_bytes()


def test_generate_stops_in_the_middle(patient: Path) -> None:
    running = Running(
        "generate", "Hello", "--model", patient, "--temperature", "0", "--max-tokens", "30000", "--threads", "1"
    )
    assert running.process.stdout is not None
    started = running.process.stdout.read(60)
    assert started.startswith("Hello")
    running.interrupt()


def test_bench_stops_in_the_middle(patient: Path) -> None:
    screen = OnTerminal("bench", "--model", str(patient), "--new-tokens", "4000", "--streams", "1,8", "--threads", "1")
    try:
        screen.expect("measuring")
        screen.type("\x03")
        assert screen.wait() == 130
    finally:
        screen.close()
    assert "Traceback" not in screen.screen
    assert screen.screen.endswith("homegrown: interrupted\n")


def test_evaluate_keeps_what_it_has_measured(patient: Path, tmp_path: Path) -> None:
    few, many, out = tmp_path / "few.jsonl", tmp_path / "many.jsonl", tmp_path / "e.json"
    for path, rows in ((few, 2), (many, 20_000)):
        path.write_text('{"text": "The boy saw his mother at the door. He ran to his mother"}\n' * rows)
    data = ("--on", f"lambada={few}", "--on", f"lambada={many}")
    running = Running("evaluate", patient, *data, "--json", out, "--threads", "1")
    wait_for(lambda: running.process.poll() is not None or out.exists(), what="the first results")
    output, _ = running.interrupt()
    assert "last-word accuracy" in output
    assert [result["data"] for result in json.loads(out.read_text())["results"]] == [str(few)]
    assert {path.name for path in tmp_path.iterdir()} == {"few.jsonl", "many.jsonl", "e.json"}


def test_merge_leaves_nothing(patient: Path, tmp_path: Path) -> None:
    adapter, place = make_adapters(patient, tmp_path / "made")["one"], tmp_path / "merged"
    place.mkdir()
    running = Running("merge", adapter, "--out", place / "model", "--model", patient)
    wait_for(lambda: running.process.poll() is not None or any(place.iterdir()), what="the directory in the making")
    running.interrupt()
    assert list(place.iterdir()) == []


def test_a_command_that_is_still_loading(patient: Path) -> None:
    running = Running("chat", "--model", patient)
    maps = Path(f"/proc/{running.process.pid}/maps")
    wait_for(lambda: "torch" in maps.read_text(), what="PyTorch's libraries")
    running.interrupt()


@pytest.mark.parametrize("after", [0.5, 0.9, 1.3, 1.7, 2.5])
def test_a_server_that_is_starting(patient: Path, after: float) -> None:
    """Whenever it comes: ended by the signal, or, once there is somebody to drain, in order."""
    running = Running("serve", "--model", patient, "--port", "0", "--threads", "1")
    time.sleep(after)
    os.killpg(running.process.pid, signal.SIGINT)
    _, errors = running.process.communicate(timeout=60)
    assert running.process.returncode in (0, 130), errors
    assert "Traceback" not in errors
