"""The plan of docs/scale.md: its arithmetic, and that the page says what the program prints."""

import re
from pathlib import Path

import pytest

from benchmarks.scale import constants as c
from benchmarks.scale import queueing
from benchmarks.scale.corpus import corpus
from benchmarks.scale.markdown import count, dollars, filled, metric, number, percent, places, seconds, table
from benchmarks.scale.reliability import best_interval, between_failures, goodput, simulated_goodput, spares
from benchmarks.scale.serving import CHAT, bears, cpu_kind, fleet, gpu_kind, kinds, requests_in, seconds_each
from benchmarks.scale.shapes import LARGE, LLAMA_8B, MIDDLE, SHAPES, SMALL
from benchmarks.scale.tables import all_tables, kept
from benchmarks.scale.training import (
    choose_batch,
    critical_batch,
    exposed_seconds,
    extra_tokens,
    network_seconds,
    parallel_of,
    plan,
    shards_needed,
    traffic,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"


def test_the_page_says_what_the_program_prints() -> None:
    shown, printed = places(PAGE.read_text("utf-8")), all_tables()
    assert set(shown) == set(printed)
    for name, text in printed.items():
        assert shown[name] == text, f"{name}: run python -m benchmarks.scale --write"


def test_every_constant_has_a_source_and_lies_in_its_range() -> None:
    names = [constant.what for constant in c.constants()]
    assert len(names) == len(set(names))
    for constant in c.constants():
        low, value, high = constant.range
        assert constant.source, constant.what
        assert low <= value <= high, constant.what
        assert (constant.low is None) == (constant.high is None), constant.what


def test_speeds_are_those_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| **Homegrown int8** |"))
    figures = [float(cell.replace(",", "")) for cell in row.split("|")[2:6]]
    ours = [c.DECODE[rows].value for rows in (1, 8, 32)] + [c.PREFILL.value]
    assert figures == ours, "README's table has changed: bring constants.py up to it, then --simulate --write"


def test_shapes_have_their_published_parameters() -> None:
    assert SMALL.parameters == 124_439_808  # GPT-2
    assert LARGE.parameters == 6_738_415_616  # Llama 2, 7 B
    assert LLAMA_8B.parameters == 8_030_261_248  # Llama 3.1, 8 B
    assert pytest.approx(1.3e9, rel=0.02) == MIDDLE.parameters


def test_a_token_takes_6_flops_a_weight_and_attention() -> None:
    for shape in SHAPES:
        config = shape.config
        attention = 12 * config.n_layer * config.d_model * config.context_length / 2
        assert shape.training_flops == 6 * shape.matrices + attention
    assert SMALL.slot_bytes() == 2 * 12 * 768 * 1024 * 2


def test_a_run_computes_what_its_tokens_need() -> None:
    run = plan(LARGE, 8, failures=1e-12)
    useful = c.TOKENS.value * extra_tokens(run.batch, c.TOKENS.value) * LARGE.training_flops
    at_best = useful / (64 * c.PEAK.value * c.MFU.value)
    assert run.seconds == pytest.approx(at_best + 2 * c.TOKENS.value / c.HASH.value, rel=1e-3)
    assert run.dollars == pytest.approx(run.seconds / 3600 * 8 * c.GPU_HOUR.value)


def test_batches_have_rows_for_every_gpu() -> None:
    for shape in SHAPES:
        for nodes in c.NODES:
            batch = choose_batch(shape, 8 * nodes, c.TOKENS.value)
            rows, rest = divmod(batch, shape.config.context_length)
            assert rest == 0
            assert rows % (8 * nodes) == 0
    assert extra_tokens(critical_batch(3e11), 3e11) == pytest.approx(1.2)
    assert shards_needed(LARGE, 1) == 1
    assert shards_needed(LARGE, 1024) * critical_batch(c.TOKENS.value) >= 8192 * LARGE.config.context_length


def test_traffic_follows_the_way_of_parting() -> None:
    assert [parallel_of(shape) for shape in SHAPES] == ["ddp", "ddp", "fsdp"]
    assert traffic(SMALL, "ddp") == 8 * SMALL.parameters
    assert traffic(SMALL, "fsdp", 1) == 12 * SMALL.parameters
    assert traffic(SMALL, "fsdp", 4) == 36 * SMALL.parameters
    fast, slow = (network_seconds(LARGE, "fsdp", 64, link=link) for link in (c.RDMA.value, c.ETHERNET.value))
    assert slow > 20 * fast
    assert exposed_seconds(3.0, 1.9, "ddp") == 0
    assert exposed_seconds(3.0, 1.9, "ddp", micro_batches=2) == pytest.approx(0.9)
    assert exposed_seconds(3.0, 4.0, "fsdp") == 1


def test_more_nodes_take_less_time_and_no_less_money() -> None:
    for shape in SHAPES:
        runs = [plan(shape, nodes) for nodes in c.NODES]
        times, costs = [run.seconds for run in runs], [run.dollars for run in runs]
        assert times == sorted(times, reverse=True)
        assert costs == sorted(costs)


def test_saving_by_youngs_interval_is_nearly_best_and_dalys_time_is_that_of_playing_failures() -> None:
    cost, restart, between = 135.0, 900.0, between_failures(1024, 6.5e-3)
    best = best_interval(cost, between)
    kept_time = goodput(best, cost, between, restart)
    assert kept_time >= max(goodput(best * f, cost, between, restart) for f in (0.25, 0.5, 2, 4))
    played = simulated_goodput(best, cost, between, restart, intervals=20_000, seed=1)
    assert played == pytest.approx(kept_time, rel=0.02)
    assert simulated_goodput(best, cost, between, restart, seed=3) == simulated_goodput(
        best, cost, between, restart, seed=3
    )


def test_spares_keep_the_promise() -> None:
    assert spares(10, 0.0, 4) == 1
    assert spares(1000, 6.5e-3, 4) > spares(100, 6.5e-3, 4) >= 1
    assert spares(1000, 6.5e-3, 24, promise=0.9999) > spares(1000, 6.5e-3, 24, promise=0.9)


def test_the_corpus_shrinks_on_its_way_to_shards() -> None:
    made = corpus(c.TOKENS.value, 1024)
    assert made.unpacked > made.wet > made.before_repeats > made.text > made.shards32 > made.shards16 == 6e11
    assert made.tokenize_seconds == pytest.approx(made.text / 35e6)


def test_erlangs_formulas() -> None:
    assert queueing.erlang_b(2, 2) == pytest.approx(0.4)  # by hand: (4/2) / (1 + 2 + 4/2)
    assert queueing.erlang_c(1, 2) == pytest.approx(1 / 3)
    assert queueing.erlang_c(0.7, 1) == pytest.approx(0.7)
    assert queueing.wait_mgc(0.5, 1, 1, 0) == pytest.approx(0.5)  # M/D/1: load / (2 (1 - load))
    assert queueing.wait_quantile_mmc(0.5, 1, 1, 0.4) == 0
    with pytest.raises(ValueError, match="more than 2 servers"):
        queueing.erlang_c(2.5, 2)


def test_a_pace_that_depends_on_company_has_known_cases() -> None:
    one = queueing.in_system(0.5, [1.0], 400)  # M/M/1
    assert sum(n * chance for n, chance in enumerate(one)) == pytest.approx(1.0)
    many = queueing.in_system(6.0, [1 / n for n in range(1, 9)], 0)  # M/M/8 without a queue
    assert many[-1] == pytest.approx(queueing.erlang_b(6.0, 8))


def test_a_replica_bears_more_with_more_streams_at_once() -> None:
    for kind in kinds():
        each = [seconds_each(kind, rows) for rows in range(1, kind.speed.slots + 1)]
        assert each == sorted(each, reverse=True)
        assert requests_in(kind, 0.9 * bears(kind)) > requests_in(kind, 0.5 * bears(kind))
    assert cpu_kind().speed.slots == 28  # what a GiB holds
    assert bears(gpu_kind(LARGE, CHAT, share=0.8)) > bears(gpu_kind(LARGE, CHAT, share=0.4))


def test_a_fleet_bears_the_peak_without_its_spares() -> None:
    for kind in kinds():
        made = fleet(kind, 0.7)
        assert made.needed * bears(kind) * 0.7 >= c.REQUESTS.value
        assert (made.nodes - made.spare) * kind.per_node >= made.needed


def test_figures_as_people_read_them() -> None:
    assert [number(x) for x in (0.01234, 3.456, 56.2, 7891.4, 0)] == ["0.012", "3.5", "56", "7,891", "0"]
    assert [metric(1.25e12, "B"), metric(999.9e6, "B"), metric(12, "B")] == ["1.2 TB", "1.0 GB", "12 B"]
    assert [count(6.7e9), count(28_000), count(3)] == ["6.7 B", "28 k", "3.0"]
    assert [seconds(x) for x in (0, 2e-5, 0.004, 90, 5400, 1e5, 1e6, 1e9)] == [
        "0", "20 µs", "4.0 ms", "90 s", "90 min", "28 h", "12 days", "32 years",
    ]  # fmt: skip
    assert [percent(x) for x in (0, 0.004, 0.12, 0.991, 1, 4.56, 1e-5)] == [
        "0 %", "0.4 %", "12 %", "99.1 %", "100 %", "456 %", "under 0.1 %",
    ]  # fmt: skip
    assert [dollars(x) for x in (2.8, 532, 5800, 1.2e6)] == ["$2.8", "$532", "$5.8 k", "$1.2 M"]


def test_tables_go_between_their_marks() -> None:
    text = "a\n<!-- scale: one -->\nold\n<!-- scale end -->\nb\n<!-- scale: two -->\nkept\n<!-- scale end -->\n"
    made = filled(text, {"one": "new\n"})
    assert places(made) == {"one": "new\n", "two": "kept\n"}
    assert filled(made, {"one": "new\n"}) == made
    with pytest.raises(ValueError, match="no place for three"):
        filled(text, {"three": ""})
    with pytest.raises(ValueError, match="another length"):
        table(("a", "b"), [("1",)])


def test_what_was_simulated_is_within_what_is_allowed() -> None:
    for row in kept()["checks"]:
        assert abs(row["off"]) <= row["allowed"], row["case"]


def test_the_page_names_files_that_there_are() -> None:
    for name in re.findall(r"`((?:app|benchmarks|model|training)/[\w/.]+)`", PAGE.read_text("utf-8")):
        assert (ROOT / name).exists(), name
