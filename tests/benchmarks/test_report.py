import math

from benchmarks.peers import report


def reply(value: float, foreign: float = 0.0, answers=((1, 2),)) -> dict:
    figures = {name: {"value": value, "foreign": foreign} for name in ("decode1", "prefill")}
    figures["first"] = {"value": 1 / value, "foreign": foreign}
    figures["memory"] = {"value": 300.0, "foreign": 0.0}
    return {"figures": figures, "answers": [list(a) for a in answers], "about": {"imports_mb": 200.0}, "loads": {}}


def test_disturbed_rounds_do_not_count() -> None:
    samples = {"ours:int8": [reply(10), reply(90, foreign=1.0), reply(12), None]}
    summary = report.summarise(samples, "decode1", "ours:int8", 0.15)
    assert summary is not None
    assert (summary.median, summary.low, summary.high) == (11, 10, 12)
    assert (summary.rounds, summary.busy) == (2, 1)


def test_a_figure_without_a_quiet_round_is_refused() -> None:
    samples = {"ours:int8": [reply(10, foreign=1.0)], "openvino:int8": [reply(5)]}
    summary = report.summarise(samples, "decode1", "ours:int8", 0.15)
    assert summary is not None
    assert not summary.rounds
    assert math.isnan(summary.median)
    assert report.compare(samples, [1], 0.15) == []
    assert "busy (1.0 cores)" in report.engine_table(samples, [1], 0.15, 1e10, 1000)


def test_ratios_are_to_the_best_peer_of_the_precision() -> None:
    samples = {
        "ours:int8": [reply(10), reply(12)],
        "openvino:int8": [reply(8), reply(10)],
        "llama_cpp:q8_0": [reply(5), reply(4)],
        "llama_cpp:q4_0": [reply(100), reply(100)],
        "bare:int8": [reply(100), reply(100)],
    }
    rows = {row["figure"]: row for row in report.compare(samples, [1], 0.15)}
    assert set(rows) == {"decode1", "prefill", "first"}
    assert rows["decode1"]["peer"] == "openvino:int8"
    assert math.isclose(rows["decode1"]["ratio"], 11 / 9)
    assert rows["decode1"]["by_round"] == [1.25, 1.2]
    assert not rows["decode1"]["held"]  # 1.22 of 1.25
    assert rows["prefill"]["held"]  # of 1.2
    assert math.isclose(rows["first"]["ratio"], (1 / 10 + 1 / 12) / (1 / 8 + 1 / 10))
    assert not rows["first"]["held"]  # 0.81 of at most 0.8
    assert "MISSED" in report.goal_table(list(rows.values()))


def test_a_failed_peer_is_no_peer() -> None:
    samples = {"ours:int8": [reply(10)], "openvino:int8": [None]}
    assert report.compare(samples, [1], 0.15) == []
    assert "| openvino:int8 |" in report.engine_table(samples, [1], 0.15, 1e10, 1000)


def test_agreement_is_with_the_float32_reference() -> None:
    samples = {
        "ours:int8": [reply(1, answers=[(1, 2), (3, 9)])],
        "transformers:float32": [reply(1, answers=[(1, 2), (3, 4)])],
        "openvino:int8": [None],
    }
    assert report.agreement(samples) == {"ours:int8": 0.75, "transformers:float32": 1.0}
    del samples["transformers:float32"]
    assert report.agreement(samples) == {}


def test_bandwidth_and_memory_columns() -> None:
    samples = {"ours:int8": [reply(10)]}
    # 10 tokens a second of 100 MB are a tenth of 10 GB/s.
    assert "| 0.10 |" in report.engine_table(samples, [1], 0.15, 1e10, 100_000_000)
    row = report.memory_table(samples, 50 * 2**20, 2**20, 25, 50).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "ours:int8", "300", "200", "50", "50", "100", "2.00", "1.00"
    ]  # fmt: skip


def test_loads_are_medians_of_quiet_rounds() -> None:
    rounds = [reply(1) | {"loads": {"mixed": {"ratio": r, "foreign": f}}} for r, f in ((0.9, 0), (0.8, 0), (9, 2.0))]
    text = report.load_table({"ours:int8": rounds}, 0.15)
    assert "ratio 0.85" in text
    assert "2 of 3" in text
    assert report.load_table({"ours:int8": [reply(1)]}, 0.15) == ""
