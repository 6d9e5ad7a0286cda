"""What to do with so many nodes: the design in words, its figures computed."""

from benchmarks.scale import constants as c
from benchmarks.scale.corpus import corpus
from benchmarks.scale.markdown import count, dollars, metric, number, percent, seconds, table
from benchmarks.scale.reliability import between_failures
from benchmarks.scale.scenarios import LOAD
from benchmarks.scale.serving import CHAT, bears, cpu_kind, fleet, gpu_kind
from benchmarks.scale.shapes import LARGE, MIDDLE, SMALL
from benchmarks.scale.training import critical_batch, plan, shards_needed, start_seconds, state_seconds


def verdicts() -> str:
    """One row for each number of nodes."""
    head = ("GPU nodes", "pretraining", "what breaks first there", "serving", "what breaks first there")
    return table(
        head, [(f"{n:,}", *row) for n, row in zip(c.NODES, (_one(), _eight(), _sixty_four(), _thousand()), strict=True)]
    )


def _takes(nodes: int) -> str:
    found = [plan(shape, nodes) for shape in (SMALL, MIDDLE, LARGE)]
    return ", ".join(f"{run.shape.name} {seconds(run.seconds)} ({dollars(run.dollars)})" for run in found)


def _one() -> tuple[str, ...]:
    made = corpus(c.TOKENS.value, SMALL.config.context_length)
    host = LARGE.parameters * c.STATE_BYTES.value * c.GPUS.value
    cpu, short = fleet(cpu_kind(), LOAD), gpu_kind(MIDDLE, cpu_kind().ask)
    return (
        f"DDP up to {MIDDLE.name}, FSDP2 for {LARGE.name}. {_takes(1)}",
        f"Preparing data: near repeats take {seconds(made.near_seconds)} and {metric(made.near_memory, 'B')} in one process. At "
        f"{LARGE.name}, saving: each process gathers the whole state, {metric(host, 'B')} of host memory a node",
        f"{MIDDLE.name}: 1 M short requests an hour on {fleet(short, LOAD).needed} of the 8 GPUs; or {SMALL.name} on {cpu.nodes} "
        "machines of two cores",
        f"No second node when this one fails, every {seconds(between_failures(1, c.FAILURES.value))} in the mean; the "
        f"HTTP process, one a replica, at {count(c.HTTP_MOST.value)} tokens/s and more",
    )


def _eight() -> tuple[str, ...]:
    slow, fast = plan(LARGE, 8, link=c.ETHERNET.value), plan(LARGE, 8)
    chat = gpu_kind(LARGE, CHAT)
    return (
        f"The same over torchrun. {_takes(8)}",
        f"The network, if it is plain: {LARGE.name} takes {number(slow.seconds / fast.seconds)} times as long over 100 Gb/s. A "
        f"failure every {seconds(between_failures(8, c.FAILURES.value))} ends the run until somebody resumes it",
        f"{LARGE.name}: {count(bears(chat) * LOAD * chat.per_node * 8 * 3600)} chats an hour; 1 M take "
        f"{fleet(chat, LOAD).nodes} nodes, the spare among them",
        f"Fixed slots of a whole context: {chat.speed.slots} in an H100, {metric(chat.shape.slot_bytes(), 'B')} each",
    )


def _sixty_four() -> tuple[str, ...]:
    run = plan(LARGE, 64)
    usual = LARGE.usual_batch / LARGE.config.context_length
    return (
        f"The same, batches at the critical {count(critical_batch(c.TOKENS.value))} tokens. {_takes(64)}",
        f"The batch: GPT-3's {count(LARGE.usual_batch)} tokens are {usual:.0f} rows for {64 * 8} GPUs. Then failures, every "
        f"{seconds(between_failures(64, c.FAILURES.value))}: {percent(run.goodput)} of the time counts, if something "
        "restarts the run",
        "Far more than 1 M requests an hour; several models, or several regions",
        "One router that must know every replica's load",
    )


def _thousand() -> tuple[str, ...]:
    run, small = plan(LARGE, 1024), plan(SMALL, 1024)
    return (
        f"Not with what there is. On paper: {_takes(1024)}",
        f"The batch: a row a GPU is {count(run.batch)} tokens, {number(run.batch / critical_batch(c.TOKENS.value))} times the "
        f"critical batch; {shards_needed(LARGE, 1024)} GPUs would have to share a row (tensor or context parallel: not there). "
        f"A state takes {seconds(state_seconds(LARGE))}, a failure comes every "
        f"{seconds(between_failures(1024, c.FAILURES.value))}: {percent(run.goodput)} of the time counts. "
        f"{SMALL.name}: checking the shards takes {seconds(start_seconds(c.TOKENS.value))} of {seconds(small.seconds)}",
        "Not needed for 1 M requests an hour",
        "-",
    )
