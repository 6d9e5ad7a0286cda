"""A server of ours under pressure, and at rest: four times more clients than it takes, clients that leave, nobody at all."""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers import traffic
from benchmarks.peers.http import Api, Outcome, ask, request_bytes
from benchmarks.peers.machine import group_seconds, percentile, process_memory, process_seconds

_PATIENCE = (0.25, 0.75)  # seconds between being refused and the next try, at random: less than any server asks for
_ARRIVAL = 1.0  # seconds in which all the clients come
_IDLE_SECONDS = 5.0
_DEFAULT_QUEUE = 128
FACTOR = 4


def under_pressure(
    host: str, port: int, api: Api, words: Sequence[str], options: Any, case: Mapping[str, str], group: int, turn: int
) -> dict[str, float]:
    """Figures of a server that was started with `case` and leads process group `group`. Milliseconds, but for cores and MB."""
    health = asyncio.run(_get(host, port, "/health"))
    full = health["slots"] + int(case.get("max_queue", _DEFAULT_QUEUE))

    def asks(count: int, name: str) -> list[traffic.Ask]:
        return traffic.make_asks(words, count, options.prompts, options.answers, f"{turn} {name}")

    async def send(one: traffic.Ask) -> Outcome:
        return await ask(host, port, api, one.prompt, one.max_tokens)

    resting = at_rest(group)
    saturated = asyncio.run(traffic.closed_loop(send, asks(4 * full, "full"), full))
    crowded = asyncio.run(impatient_loop(send, asks(2 * FACTOR * full, "crowd"), FACTOR * full))
    freed = asyncio.run(_leave_often(host, port, api, asks(30, "leave")))
    return overload_figures(saturated, crowded) | resting | {
        "clients": full,
        "freed_p50": percentile(freed, 0.5) * 1e3,
        "freed_max": max(freed) * 1e3,
        "http_mb": process_memory(group),
    }  # fmt: skip


async def impatient_loop(
    send: traffic.Send,
    asks: Sequence[traffic.Ask],
    clients: int,
    arrival: float = _ARRIVAL,
    patience: tuple[float, float] = _PATIENCE,
) -> list[Outcome]:
    """So many clients; one that is refused tries again soon, until it is taken. All outcomes, refusals included."""
    waiting = iter(asks)
    outcomes: list[Outcome] = []

    async def client(number: int) -> None:
        rng = random.Random(number)
        await asyncio.sleep(arrival * number / clients)
        for one in waiting:
            outcomes.append(outcome := await send(one))
            while outcome.status == "429":
                await asyncio.sleep(rng.uniform(*patience))
                outcomes.append(outcome := await send(one))

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcomes


def overload_figures(saturated: Sequence[Outcome], crowded: Sequence[Outcome]) -> dict[str, float]:
    """How much later the first token comes when four times too many ask, and how soon the others hear that they can't."""
    taken = [one for one in crowded if one.status != "429"]
    refused = [one.ended - one.began for one in crowded if one.status == "429"]
    before, after = (
        percentile([one.events[0] - one.began for one in some if one.complete], 0.95) * 1e3 for some in (saturated, taken)
    )  # fmt: skip
    return {
        "full_first_p95": before,
        "crowd_first_p95": after,
        "crowd_ratio": after / before,
        "refused": float(len(refused)),
        "refused_p50": percentile(refused, 0.5) * 1e3,
        "refused_p95": percentile(refused, 0.95) * 1e3,
        "refused_max": max(refused, default=float("nan")) * 1e3,
        "lost": float(sum(not one.complete for one in [*saturated, *taken])),
    }


def at_rest(group: int, seconds: float = _IDLE_SECONDS) -> dict[str, float]:
    """Percent of a core that a server uses which nobody asks anything: all its processes, and the one that speaks HTTP."""
    time.sleep(1.0)  # what the last request left to be done
    began, whole, http = time.perf_counter(), group_seconds(group), process_seconds(group)
    time.sleep(seconds)
    passed = time.perf_counter() - began
    return {
        "idle_percent": (group_seconds(group) - whole) / passed * 100,
        "idle_http_percent": (process_seconds(group) - http) / passed * 100,
    }


async def _leave_often(host: str, port: int, api: Api, asks: Sequence[traffic.Ask]) -> list[float]:
    """Seconds from a client's leaving, amid its answer, to the moment when the server says that nothing runs."""
    found = []
    context = (await _get(host, port, "/version"))["context"]
    for one in asks:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request_bytes(host, api, api.body(one.prompt, min(512, context // 2))))
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        left = time.perf_counter()
        while (await _get(host, port, "/health"))["running"]:
            await asyncio.sleep(0.002)
        found.append(time.perf_counter() - left)
    return found


async def _get(host: str, port: int, path: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return json.loads((await reader.read()).split(b"\r\n\r\n", 1)[1])
    finally:
        writer.close()


def sentences(case: str, row: Mapping[str, Any]) -> str:
    """The figures for a person."""
    return (
        f"{case}: at rest {row['idle_percent']:.2f} % of a core (HTTP process {row['idle_http_percent']:.2f} %), HTTP process "
        f"{row['http_mb']:.0f} MB after the load.\n"
        f"First token, p95: {row['full_first_p95']:,.0f} ms with {row['clients']:.0f} clients (as many as run and wait), "
        f"{row['crowd_first_p95']:,.0f} ms with {FACTOR} times as many ({row['crowd_ratio']:.2f} times); {row['refused']:,.0f} "
        f"refusals after {row['refused_p50']:.1f} / {row['refused_p95']:.1f} / {row['refused_max']:.1f} ms (p50 / p95 / longest); "
        f"{row['lost']:.0f} requests lost.\n"
        f"A client that leaves: its slot is free after {row['freed_p50']:.0f} ms, at most {row['freed_max']:.0f} ms."
    )
