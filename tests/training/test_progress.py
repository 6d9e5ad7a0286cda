"""The diary of a run: whole after any kill, the same in log, TensorBoard and on the screen."""

import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from training import progress
from training.errors import TrainingError
from training.loop import Metrics
from training.progress import Recorder, RunPlan, forget_after, read_log
from training.state import Counters


def metrics(loss: float = 2.0, tokens: int = 1000, weight: float = 1000.0) -> Metrics:
    return Metrics(loss=loss, grad_norm=0.5, lr_factor=0.25, weight=weight, tokens=tokens)


def at(step: int) -> Counters:
    return Counters(step=step, samples=step, tokens=1000 * step, seconds=2.0 * step)


def record(
    directory: Path,
    first: int,
    last: int,
    *,
    tensorboard: bool = False,
    log_every: int = 1,
    plan: RunPlan | None = None,
) -> None:
    """Steps `first` to `last` of a run of 100, with a validation and a sample at every fifth."""
    with Recorder(
        directory, plan=plan or RunPlan(), tensorboard=tensorboard, log_every=log_every, resumed_at=first - 1
    ) as recorder:
        for step in range(first, last + 1):
            recorder.update(metrics(loss=10.0 / step), at(step), step / 100, 2.0)
            if step % 5 == 0:
                recorder.validation({"validation_loss": 9.0 / step}, at(step))
                recorder.sample(f"Es war einmal … \u2028 \x85 {step}", at(step))


def lines(directory: Path) -> list[dict[str, object]]:
    """Every line, read strictly: NaN and infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = (directory / "log.jsonl").read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse) for line in content.splitlines()]


def test_a_line_of_the_log_has_the_rates_of_its_window(tmp_path: Path) -> None:
    record(tmp_path, 1, 10, log_every=4, plan=RunPlan(flops_per_token=3e6, peak_flops=1e10))
    updates = [line for line in lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in updates] == [4, 8]
    assert updates[1] | {"memory_mb": 1} == {
        "step": 8, "tokens_seen": 8000, "loss": 1.25, "grad_norm": 0.5, "lr_factor": 0.25, "tokens": 1000,
        "tokens_per_second": 500, "mfu": 0.15, "memory_mb": 1, "seconds": 16.0,
    }  # fmt: skip
    assert isinstance(updates[1]["memory_mb"], int)
    assert updates[1]["memory_mb"] > 10


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    with Recorder(tmp_path, plan=RunPlan(), tensorboard=False, log_every=1) as recorder:
        recorder.update(metrics(loss=0.0, weight=0.0), at(1), 0.1, 2.0)  # nothing in the batch counted
        recorder.validation({"validation_loss": float("nan"), "accuracy": float("inf")}, at(1))
    update, validation = lines(tmp_path)
    assert update["loss"] is None
    assert "mfu" not in update  # no peak, no share of it
    assert validation["validation_loss"] is validation["accuracy"] is None


@given(cut=st.integers(0, 6000), resumed_at=st.integers(min_value=0, max_value=25))
def test_killed_anywhere_the_log_keeps_the_whole_lines_up_to_the_saved_state(
    whole_log: bytes, cut: int, resumed_at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("cut") / "log.jsonl"
    kept = whole_log[: cut % (len(whole_log) + 1)]
    log.write_bytes(kept)
    n_whole = kept.count(b"\n") + kept.endswith(b"}")  # a line without its end is whole when its object is closed
    before = whole_log.splitlines(keepends=True)[:n_whole]
    assert read_log(log) == [json.loads(line) for line in before]
    forget_after(resumed_at, log)
    expected = [line for line in before if resumed_at and json.loads(line)["step"] <= resumed_at]
    assert log.read_bytes() == b"".join(expected)
    assert list(log.parent.iterdir()) == [log]


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("whole")
    record(directory, 1, 25)
    return (directory / "log.jsonl").read_bytes()


@pytest.mark.parametrize("damage", [b"\x00" * 50, b'{"step": 3', b"[1, 2]\n", b'{"loss": 1}\n', b"\xff\xfe\n"])
def test_a_damaged_end_is_taken_out(tmp_path: Path, damage: bytes) -> None:
    record(tmp_path, 1, 3)
    whole = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(whole + damage)
    forget_after(3, tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_bytes() == whole


def test_a_resumed_runs_log_is_that_of_one_never_stopped(tmp_path: Path) -> None:
    record(tmp_path / "straight", 1, 20)
    record(tmp_path / "killed", 1, 13)
    with (tmp_path / "killed" / "log.jsonl").open("a") as file:
        file.write('{"step": 14, "tok')  # killed in the middle of a line, after a state was saved at step 10
    record(tmp_path / "killed", 11, 20)

    def content(name: str) -> list[dict[str, object]]:
        return [{k: v for k, v in line.items() if k != "memory_mb"} for line in lines(tmp_path / name)]

    assert content("killed") == content("straight")


def test_a_run_that_begins_anew_begins_its_log_anew(tmp_path: Path) -> None:
    """Killed before its first saved state: everything is done again, the measure before the first update too."""
    with Recorder(tmp_path, plan=RunPlan(), tensorboard=False, log_every=1) as recorder:
        recorder.validation({"validation_loss": 8.0}, at(0))
    record(tmp_path, 1, 2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def endless(directory: Path) -> None:
    tqdm.set_lock(
        threading.RLock()
    )  # its own is shared with the parent, who would wait for ever for one that was killed
    sys.stderr = io.StringIO()
    with Recorder(directory, plan=RunPlan(), tensorboard=False, log_every=1) as recorder:
        for step in range(1, 10**9):
            recorder.update(metrics(), at(step), 0.5, 0.1)
            recorder.sample("x" * 20_000, at(step))  # longer than a buffer: written in pieces


@pytest.mark.parametrize("wait", [0.0, 0.003, 0.011])
def test_sigkill_leaves_at_most_one_half_line(tmp_path: Path, wait: float) -> None:
    child = multiprocessing.get_context("fork").Process(target=endless, args=(tmp_path,), daemon=True)
    child.start()
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 60
    while not (log.is_file() and log.stat().st_size > 200_000) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(wait)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    content = log.read_bytes()
    assert len(read_log(log)) in (content.count(b"\n"), content.count(b"\n") + 1)
    record(tmp_path, 4, 6)
    assert [line["step"] for line in lines(tmp_path)] == [1, 1, 2, 2, 3, 3, 4, 5, 5, 5, 6]


def scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def test_tensorboard_reads_what_was_logged_each_step_once(tmp_path: Path) -> None:
    plan = RunPlan(flops_per_token=3e6, peak_flops=1e10)
    record(tmp_path, 1, 8, tensorboard=True, plan=plan)
    record(tmp_path, 6, 10, tensorboard=True, plan=plan)  # killed, and resumed from the state of step 5
    assert scalars(tmp_path, "train/loss") == [(step, round(10 / step, 4)) for step in range(1, 11)]
    assert scalars(tmp_path, "validation/loss") == [(5, 1.8), (10, 0.9)]
    assert [value for _, value in scalars(tmp_path, "speed/tokens_per_second")] == [500.0] * 10
    assert scalars(tmp_path, "speed/mfu")[0] == (1, 0.15)
    assert {step for step, _ in scalars(tmp_path, "train/grad_norm")} == set(range(1, 11))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("sample/text_summary")]
    assert [text.split()[-1] for text in texts] == ["5", "10"]
    assert all(line.startswith("    ") for text in texts for line in text.split("\n"))  # not read as Markdown


def test_without_tensorboard_a_note_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    record(tmp_path, 1, 2, tensorboard=True)
    assert "tensorboard isn't installed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_without_a_terminal_there_are_plain_lines_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = RunPlan(flops_per_token=3e6, peak_flops=1e10, total_tokens=100_000)
    record(tmp_path / "often", 1, 4, plan=plan)
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1  # the first; the next is due in half a minute
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    record(tmp_path / "always", 1, 5, plan=plan)
    first, _, _, fourth, fifth, validation, sample = capsys.readouterr().err.split("\n")[:7]
    assert "left" not in first  # no pace yet
    assert fourth.split(" · ")[0] == "  4%  step 4"
    for part in (
        "4.00k/100k tokens",
        "500 tokens/s",
        "MFU 15%",
        "lr x0.25",
        "GiB",
        "03:12 left",
    ):  # 96 steps of 2 seconds
        assert part in fourth
    assert "step 5" in fifth
    assert validation == "step 5: 5,000 tokens, validation loss 1.8000"
    assert sample.startswith("step 5, a sample: Es war einmal")


def test_a_resumed_run_tells_the_time_left_by_its_own_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hours before the kill, on another machine, say nothing about it."""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    with Recorder(tmp_path, plan=RunPlan(), tensorboard=False, log_every=1, resumed_at=50) as recorder:
        for step in (51, 52):
            counters = Counters(step=step, samples=step, tokens=step, seconds=100_000 + step)
            recorder.update(metrics(), counters, step / 100, 1.0)
    assert capsys.readouterr().err.splitlines()[-1].endswith("00:48 left")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_lives_and_the_rest_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_LIVE_SECONDS", 0.0)
    record(tmp_path, 1, 6)
    shown = terminal.getvalue()
    assert shown.count("\r") > 6  # drawn over
    assert "  6%|" in shown
    assert "loss" in shown
    # the bar was cleared away before the line was printed
    assert any(line.strip("\r ").startswith("step 5: 5,000 tokens") for line in shown.replace("\r", "\n").split("\n"))


def test_the_loss_shown_is_smoothed_and_unbiased() -> None:
    smooth = progress._Smooth(decay=0.9)
    assert smooth.value != smooth.value  # nothing yet
    smooth.add(4.0)
    assert smooth.value == pytest.approx(4.0)
    for _ in range(200):
        smooth.add(2.0)
    assert smooth.value == pytest.approx(2.0)
    smooth.add(3.0)
    assert smooth.value == pytest.approx(2.1)


def test_the_other_ranks_keep_no_diary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Recorder.silent() as recorder:
        recorder.update(metrics(), at(1), 0.5, 1.0)
        recorder.validation({"validation_loss": 1.0}, at(1))
        recorder.sample("text", at(1))
        recorder.note("a note")
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to try")
def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    recorder = Recorder(tmp_path, plan=RunPlan(), tensorboard=False, log_every=1)
    with pytest.raises(TrainingError, match=r"log\.jsonl: can't be written at step 1 \(No space left") as caught:
        recorder.update(metrics(), at(1), 0.1, 1.0)
    assert "\n" not in str(caught.value)
    recorder.close()
    recorder.close()


def test_a_full_disk_at_the_end_does_not_hide_what_ended_the_run(tmp_path: Path) -> None:
    class Full:
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    recorder = Recorder(tmp_path, plan=RunPlan(), tensorboard=False, log_every=1)
    recorder._writer = Full()
    recorder.close()
    assert recorder._file.closed


def test_mfu_is_arithmetic_over_peak() -> None:
    assert RunPlan(flops_per_token=8.5e8, peak_flops=312e12).mfu(142_000) == pytest.approx(0.387, abs=1e-3)
    assert RunPlan(flops_per_token=1e6).mfu(100) is None
    assert RunPlan(peak_flops=1e12).mfu(100) is None
