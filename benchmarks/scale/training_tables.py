"""The tables of docs/scale.md on pretraining."""

import math

from benchmarks.scale import constants as c
from benchmarks.scale.corpus import corpus
from benchmarks.scale.markdown import count, dollars, metric, number, percent, seconds, table
from benchmarks.scale.reliability import best_interval, between_failures, goodput, simulated_goodput
from benchmarks.scale.shapes import LARGE, SHAPES, SMALL, Shape
from benchmarks.scale.training import (
    HELD,
    ROWS,
    Run,
    critical_batch,
    exposed_seconds,
    extra_tokens,
    network_seconds,
    plan,
    restart_seconds,
    shards_needed,
    state_seconds,
)


def models() -> str:
    """What each model takes, whatever it runs on."""
    head = (
        "model", "parameters", "a token", "300 B tokens", "of it 6ND", "in training", "so", "saved state",
        "saving it", "two cores alone",
    )  # fmt: skip
    rows = []
    for shape in SHAPES:
        total = c.TOKENS.value * shape.training_flops
        run = plan(shape, 1)
        rows.append(
            (
                f"{shape.name}, context {shape.config.context_length:,}",
                count(shape.parameters),
                metric(shape.training_flops, "FLOP"),
                metric(total, "FLOP"),
                percent(6 * shape.parameters * c.TOKENS.value / total),
                metric(HELD * shape.parameters, "B"),
                "DDP" if run.how == "ddp" else "FSDP2",
                metric(c.STATE_BYTES.value * shape.parameters, "B"),
                seconds(state_seconds(shape)),
                seconds(total / (c.CPU_PEAK.value * c.OUR_MFU.value)),
            )
        )
    return table(head, rows)


def runs() -> str:
    """Time and cost of 300 B tokens."""
    head = (
        "model", "nodes", "batch, tokens", "of the critical", "more tokens", "a step", "tokens/s",
        "time that counts", "takes", "range", "costs", "range",
    )  # fmt: skip
    return table(head, [_run_row(shape, nodes) for shape in SHAPES for nodes in c.NODES])


def _run_row(shape: Shape, nodes: int) -> tuple[str, ...]:
    run, low, high = spread(shape, nodes)
    return (
        shape.name,
        f"{nodes:,}",
        count(run.batch),
        number(run.batch / critical_batch(c.TOKENS.value)),
        percent(extra_tokens(run.batch, c.TOKENS.value) - 1),
        seconds(run.step),
        count(run.tokens_per_second),
        percent(run.goodput),
        seconds(run.seconds),
        f"{seconds(low.seconds)} to {seconds(high.seconds)}",
        dollars(run.dollars),
        f"{dollars(low.dollars)} to {dollars(high.dollars)}",
    )


def spread(shape: Shape, nodes: int) -> tuple[Run, Run, Run]:
    """The plan, with everything going well, and badly: MFU, failures and prices at the ends of their ranges."""
    worst, _, best = c.MFU.range
    rare, _, often = c.FAILURES.range
    cheap, _, dear = c.GPU_HOUR.range
    return (
        plan(shape, nodes),
        plan(shape, nodes, mfu=best, failures=rare, price=cheap),
        plan(shape, nodes, mfu=worst, failures=often, price=dear),
    )


def network() -> str:
    """A step's traffic beside its computing, over both networks."""
    head = (
        "model", "nodes", "rows a GPU", "computing", "traffic, 8 x 400 Gb/s", "not hidden", "traffic, 100 Gb/s",
        "not hidden", "the step is longer by", "a row's GPUs for the critical batch",
    )  # fmt: skip
    rows = []
    for shape in SHAPES:
        for nodes in c.NODES[1:]:
            run = plan(shape, nodes)
            per_gpu = run.batch / shape.config.context_length / nodes / c.GPUS.value
            micro = math.ceil(per_gpu / ROWS)
            slow = network_seconds(shape, run.how, nodes, link=c.ETHERNET.value, micro_batches=micro)
            late = exposed_seconds(run.compute, slow, run.how, micro)
            rows.append(
                (
                    f"{shape.name}, {'DDP' if run.how == 'ddp' else 'FSDP2'}", f"{nodes:,}", number(per_gpu),
                    seconds(run.compute), seconds(run.network), seconds(run.exposed), seconds(slow), seconds(late),
                    f"{percent(run.exposed / run.compute)} / {percent(late / run.compute)}",
                    str(shards_needed(shape, nodes)),
                )
            )  # fmt: skip
    return table(head, rows)


def failures() -> str:
    """What failures take of the 7 B's run."""
    head = (
        "nodes", "a failure every", "range", "save every", "time that counts", "range", "simulated",
        "if saving took a tenth",
    )  # fmt: skip
    rows = []
    for nodes in c.NODES:
        every = [between_failures(nodes, rate) for rate in c.FAILURES.range]
        counts = [_counts(between) for between in every]
        cost, restart = state_seconds(LARGE), restart_seconds(LARGE, c.TOKENS.value)
        played = simulated_goodput(best_interval(cost, every[1]), cost, every[1], restart)
        rows.append(
            (
                f"{nodes:,}", seconds(every[1]), f"{seconds(every[2])} to {seconds(every[0])}",
                seconds(best_interval(cost, every[1])), percent(counts[1]), f"{percent(counts[2])} to {percent(counts[0])}",
                percent(played), percent(_counts(every[1], 0.1)),
            )
        )  # fmt: skip
    return table(head, rows)


def _counts(between: float, part: float = 1.0) -> float:
    """The share of the time that counts, for the 7 B."""
    cost, restart = part * state_seconds(LARGE), restart_seconds(LARGE, c.TOKENS.value)
    return goodput(best_interval(cost, between), cost, between, restart)


def data() -> str:
    """From the crawl to shards, for 300 B tokens."""
    made = corpus(c.TOKENS.value, SMALL.config.context_length)
    store = 1e-9 * c.STORE_MONTH.value
    hashing = f"its hash at every start: {seconds(made.shards16 / c.HASH.value)} of one core"
    repeats = (
        f"exact repeats: {seconds(made.exact_seconds)}; near ones: {seconds(made.near_seconds)} of one core and "
        f"{metric(made.near_memory, 'B')} of memory"
    )
    stages = (
        (f"WET of {number(made.crawls)} crawls, gzip", made.wet, "-"),
        ("unpacked", made.unpacked, f"letters: {seconds(made.letters_seconds)} of one core"),
        (f"English that passes the filters, {count(made.near_documents)} documents", made.before_repeats, repeats),
        ("without repeats", made.text, f"tokenising: {seconds(made.tokenize_seconds)} of two cores"),
        ("shards, vocabulary up to 65,536", made.shards16, hashing),
        ("shards, a larger vocabulary", made.shards32, f"its hash: {seconds(made.shards32 / c.HASH.value)}"),
        ("an epoch's order in each process, context 1,024", made.order_bytes, "-"),
    )
    rows = [(name, metric(size, "B"), work, dollars(size * store)) for name, size, work in stages[:-1]]
    return table(
        ("stage", "size", "work", "a month in a store"), [*rows, (stages[-1][0], metric(stages[-1][1], "B"), "-", "-")]
    )


def doubts() -> str:
    """What the 7 B's cost on 64 nodes becomes when one constant alone is at the ends of its range."""
    base = plan(LARGE, 64)
    rows: list[tuple[float, tuple[str, ...]]] = []
    low, _, high = c.MFU.range
    for name, key, ends in (
        ("price of a node", "price", (c.GPU_HOUR.range[0], c.GPU_HOUR.range[2])),
        ("share of the peak", "mfu", (high, low)),
        ("failures", "failures", (c.FAILURES.range[0], c.FAILURES.range[2])),
        ("network of a node: a tenth, a hundredth", "link", (c.RDMA.value / 10, c.RDMA.value / 100)),
    ):
        ratios = [plan(LARGE, 64, **{key: end}).dollars / base.dollars for end in ends]
        rows.append((ratios[1], (name, f"x {number(ratios[0])}", f"x {number(ratios[1])}")))
    return table(("what", "at one end", "at the other"), [row for _, row in sorted(rows, reverse=True)])
