"""Charts of measured figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plots import draw, main, panels

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "engine.json"


def sample(rate: float, foreign: float = 0.0) -> dict[str, Any]:
    return {"figures": {"decode1": {"value": rate, "foreign": foreign}, "first": {"value": 0.02, "foreign": 0.0}}}


def server_row(load: str, rate: float) -> dict[str, Any]:
    return {
        "case": "as it is", "load": load, "tokens_per_second": rate, "lowest": rate - 1, "highest": rate + 2,
        "first_p50": 10.0, "first_p99": 30.0,
    }  # fmt: skip


def test_bars_are_the_medians_of_the_rounds_that_count() -> None:
    samples = {
        "ours:int8": [sample(100), sample(300), sample(200), sample(9000, foreign=1.5), None],
        "openvino:int8": [sample(50), sample(70), sample(60)],
    }
    rate, first = panels({"samples": samples, "job": {"streams": [1], "foreign_limit": 0.15}})
    assert [(b.name, b.value, b.low, b.high, b.ours) for b in rate.bars] == [
        ("Homegrown int8", 200, 100, 300, True),
        ("OpenVINO int8", 60, 50, 70, False),
    ]
    assert rate.title == "1 stream, tokens/s"
    assert [b.value for b in first.bars] == [20.0, 20.0]  # milliseconds


def test_a_server_has_its_loads_and_the_engine_alone() -> None:
    rows = [
        server_row("8 streams", 90),
        server_row("8 streams, no HTTP", 100),
        {"case": "as it is", "load": "32 streams"},
    ]
    rate, first = panels({"results": rows})
    assert [(b.name, b.value, b.low, b.high, b.ours) for b in rate.bars] == [
        ("8 streams", 90, 89, 92, True),
        ("8 streams, no HTTP", 100, 99, 102, False),
    ]
    assert (first.bars[0].value, first.bars[0].high) == (10.0, 30.0)


@pytest.mark.parametrize("name", ["chart.png", "chart.svg"])
def test_draws_what_was_measured(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / name
    assert main([str(MEASURED), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.stat().st_size > 10_000
    if name.endswith("svg"):
        assert out.read_text("utf-8").count("Homegrown int8") == 2  # named once in a row of panels


def test_names_are_repeated_where_the_bars_differ(tmp_path: Path) -> None:
    rows = [server_row("8 streams", 90), {**server_row("1 stream", 20), "first_p50": None}]
    shown = panels({"results": rows})
    assert [panel.names for panel in shown] == [("8 streams", "1 stream"), ("8 streams",)]
    draw(shown, tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text("utf-8").count("8 streams") == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "neither samples nor results"),
        ('{"results": []}', "no round in it counts"),
        (json.dumps({"samples": {"ours:int8": [sample(1, foreign=2.0), None]}, "job": {"streams": [8]}}), None),
        ("not JSON", "Expecting value"),
        (None, "No such file"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, content: str | None, reason: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, out = tmp_path / "figures.json", tmp_path / "chart.png"
    if content is not None:
        figures.write_text(content, "utf-8")
    code = main([str(figures), "--out", str(out)])
    if reason is None:  # the time to the first token counts, the rates don't
        assert code == 0
        return
    assert code == 1
    assert not out.exists()
    told = capsys.readouterr().err
    assert str(figures) in told
    assert reason in told
