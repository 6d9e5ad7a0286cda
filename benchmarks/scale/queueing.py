"""Queues by formula: what the simulation is checked against, and the first estimate before it.

Erlang (1917); Pollaczek (1930) and Khinchine (1932); Little (1961); Allen and Cunneen's approximation (Allen, 1990). Rates in 1/s,
times in seconds; `offered` is the load in erlangs, arrivals x mean service time.
"""

import math
from collections.abc import Sequence


def erlang_b(offered: float, servers: int) -> float:
    """The share of requests that find all `servers` busy where nobody may wait; for any distribution of service times."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def erlang_c(offered: float, servers: int) -> float:
    """The chance of having to wait in M/M/c. ValueError when the load can't be borne."""
    if offered >= servers:
        raise ValueError(f"{offered:.3g} erlangs are more than {servers} servers can bear")
    blocked = erlang_b(offered, servers)
    return blocked / (1 - offered / servers * (1 - blocked))


def wait_mmc(arrivals: float, service: float, servers: int) -> float:
    """Mean wait in M/M/c."""
    offered = arrivals * service
    return erlang_c(offered, servers) * service / (servers - offered)


def wait_quantile_mmc(arrivals: float, service: float, servers: int, quantile: float) -> float:
    """The wait that a share of `quantile` doesn't exceed in M/M/c, first come first served."""
    offered = arrivals * service
    waiting = erlang_c(offered, servers)
    if waiting <= 1 - quantile:
        return 0.0
    return math.log(waiting / (1 - quantile)) * service / (servers - offered)


def wait_mgc(arrivals: float, service: float, servers: int, variation: float) -> float:
    """Mean wait in M/G/c, nearly: exact for one server (Pollaczek-Khinchine) and for exponential times. `variation`: standard
    deviation / mean of the service times."""
    return wait_mmc(arrivals, service, servers) * (1 + variation**2) / 2


def in_system(arrivals: float, seconds: Sequence[float], places: int) -> list[float]:
    """The chance of 0, 1, ... requests in a server whose pace depends on how many it serves at once: `seconds[n - 1]` of its time
    for each of n requests; as many are served at once as `seconds` has entries, `places` more may wait, further ones are refused.
    Where all are served alike it holds for any distribution of lengths (Kelly, 1979: processor sharing)."""
    weights = [1.0]
    for n in range(1, len(seconds) + places + 1):
        weights.append(weights[-1] * arrivals * seconds[min(n, len(seconds)) - 1])
    total = sum(weights)
    return [weight / total for weight in weights]
