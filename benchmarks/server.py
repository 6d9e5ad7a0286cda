"""Load on a server over HTTP: throughput, first token, pauses between tokens, errors; settings compared side by side.

    python benchmarks/server.py                                   # our server, a random GPT-2 of 124M, 1, 8 and 32 streams
    python benchmarks/server.py --compare threads=1 threads=2 --serve quantize=int8
    python benchmarks/server.py --rate 2 4 8 --requests 100 --prompts 16-800 --answers 8-128
    python benchmarks/server.py --url http://127.0.0.1:9000 --api openai --tokenizer DIRECTORY

Closed loop (--streams): each client sends its next request when its last one is answered. Open loop (--rate): requests arrive at
random, so many a second on average, whether earlier ones are answered or not. Requests are greedy and of random words, never
the same twice; answers have exactly the length that was asked for. Random weights repeat themselves, so that every drafted token
would be right: without --model, drafting is off unless a setting says otherwise (speculate=true).

--pressure (a server started here): what it uses at rest; the first token with as many clients as run and wait, and with four
times as many, of whom most are refused and try again; how long refusals take; how soon the slot of a client that leaves is free.

Without --url the server is started here, anew for each round and setting, in turns; --serve and --compare name settings of
`homegrown serve`. HTTP share: the rate over HTTP as a part of what the engine reaches without a server, in another process, on
the same requests (--no-share leaves it out). The client runs on the same machine and needs processor time too: "client" says how
many cores. A round counts only when other processes used less than --foreign cores meanwhile.
"""

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import models, pressure, traffic  # noqa: E402
from benchmarks.peers.alone import alone  # noqa: E402
from benchmarks.peers.http import Api, ask  # noqa: E402
from benchmarks.peers.machine import Watch, group_seconds, memory  # noqa: E402
from benchmarks.peers.serving import served_model, server  # noqa: E402

COMMON_WORDS = [
    " the",
    " of",
    " and",
    " to",
    " in",
    " is",
    " was",
    " for",
    " on",
    " he",
]  # one token in most vocabularies


PRESSURE = "under pressure"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", help="a running server; by default ours is started")
    add("--api", choices=["generate", "openai"], default="generate", help="/generate, or /v1/completions")
    add("--key", help="API key of the server at --url")
    add("--tokenizer", type=Path, help="with --url: a model directory whose words have one token each")
    add("--model", type=Path, help="the model directory to serve; by default random weights of --shape")
    add("--shape", default="gpt2", help="a preset of model.config with GPT-2's vocabulary, or tiny")
    add("--serve", nargs="*", default=[], metavar="NAME=VALUE", help="settings of every server")
    add("--compare", nargs="*", default=[], metavar="NAME=VALUE[,...]", help="one server for each of these, in turns")
    add("--streams", type=int, nargs="*", default=None, help="closed loop: clients; by default 1 8 32 without --rate")
    add("--rate", type=float, nargs="*", default=[], help="open loop: requests a second")
    add(
        "--requests", type=int, help="of a load in a round; by default 4 for each stream, at least 8, and 60 for a rate"
    )
    add("--prompts", type=traffic.Span.parse, default=traffic.Span(64, 64), help="tokens, as 64 or 16-800")
    add("--answers", type=traffic.Span.parse, default=traffic.Span(64, 64), help="tokens, as 64 or 8-128")
    add(
        "--pressure",
        action="store_true",
        help="also at rest, with four times too many clients, and with some that leave",
    )
    add("--rounds", type=int, default=3)
    add("--no-share", dest="share", action="store_false", help="leave out the engine without a server")
    add("--foreign", type=float, default=0.15, help="cores that others may use in a round that counts")
    add("--work", type=Path, default=models.DEFAULT_WORK, help="where random models are kept")
    add("--json", type=Path, help="write all figures there")
    return parser


def main() -> int:
    """Put the servers under load and print the table; 1 when requests failed."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a server that was started here ends too
    if options.streams is None:
        options.streams = [] if options.rate else [1, 8, 32]
    shared = ([] if options.model or options.url else ["speculate=false"]) + options.serve
    cases = [settings(text, shared) for text in options.compare or [""]]
    model = options.tokenizer if options.url else prepared(options)
    words = one_token_words(model) if model else COMMON_WORDS
    rounds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        for turn in range(options.rounds):
            for case in rotated(cases, turn):
                for load, figures in one_round(options, model, case, words, turn):
                    rounds.setdefault((label(case), load), []).append(figures)
                    print(f"round {turn + 1}, {label(case)}, {load}: {brief(figures)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: the table shows what there is", file=sys.stderr)
    results = collect(rounds, options.foreign)
    print(table([row for row in results if row["load"] != PRESSURE]))
    for row in results:
        if row["load"] == PRESSURE:
            print("\n" + pressure.sentences(row["case"], row))
    if options.json:
        options.json.write_text(json.dumps({"results": results, "rounds": flat(rounds)}, indent=2) + "\n")
    return int(any(one.get("failed") or one.get("lost") for one in results))


def prepared(options: argparse.Namespace) -> Path:
    """The directory of the model to serve."""
    if options.model is not None:
        return options.model.resolve()
    directory = options.work.resolve() / "models" / options.shape
    models.write_source(directory, options.shape, None)
    return directory / "hf"


def one_token_words(directory: Path) -> list[str]:
    """Lower-case words behind a space that the model's tokenizer has whole, so that a text's tokens can be counted."""
    from model.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(directory)
    found = []
    for token in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(token)
        if re.fullmatch(rb" [a-z]{2,}", data) and not tokenizer.is_special(token):
            found.append(data.decode())
    if len(found) < 100:
        raise SystemExit(f"{directory}: its vocabulary has only {len(found)} whole words; measure with another model")
    return found


def settings(text: str, shared: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping, those of `text` over the shared ones."""
    pairs = [*shared, *filter(None, text.split(","))]
    for pair in pairs:
        if "=" not in pair:
            raise SystemExit(f"{pair!r} is no setting; write NAME=VALUE, as in threads=2")
    return {name.replace("-", "_"): value for name, _, value in (pair.partition("=") for pair in pairs)}


def label(case: dict[str, str]) -> str:
    """How a table calls a case."""
    return " ".join(f"{name}={value}" for name, value in case.items()) or "as it is"


def rotated(cases: list[dict[str, str]], turn: int) -> list[dict[str, str]]:
    """The cases, beginning with another one each round."""
    shift = turn % len(cases)
    return cases[shift:] + cases[:shift]


def one_round(
    options: argparse.Namespace, model: Path | None, case: dict[str, str], words: Sequence[str], turn: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server's life: every load on it, as (name, figures); then the same closed loops on the engine alone."""
    loads = [(f"{n} streams", float(n), options.requests or max(8, 4 * n)) for n in options.streams]
    loads += [(f"{rate:g} a second", rate, options.requests or 60) for rate in options.rate]
    asks = {
        name: traffic.make_asks(words, count, options.prompts, options.answers, f"{turn} {name}")
        for name, _, count in loads
    }
    with server(options.url, model, case) as (host, port, group):
        api = Api(
            options.api,
            model=served_model(host, port, options.key) if options.api == "openai" else None,
            key=options.key,
        )
        warm = traffic.make_asks(words, 2, traffic.Span(16, 16), traffic.Span(4, 4), f"warm {turn}")
        asyncio.run(traffic.closed_loop(lambda one: ask(host, port, api, one.prompt, one.max_tokens), warm, 1))
        for name, size, _ in loads:
            yield name, under_load(host, port, api, asks[name], size, group, closed=name.endswith("streams"))
        if options.pressure and group is not None:
            yield PRESSURE, pressure.under_pressure(host, port, api, words, options, case, group, turn)
    if options.share and options.url is None:
        for name, size, _ in loads:
            if name.endswith("streams"):
                yield f"{name}, no HTTP", alone(model, case, asks[name], int(size))


def under_load(
    host: str, port: int, api: Api, asks: Sequence[traffic.Ask], size: float, group: int | None, *, closed: bool
) -> dict[str, Any]:
    """One load's figures, with what the machine did meanwhile."""

    async def send(one: traffic.Ask) -> Any:
        return await ask(host, port, api, one.prompt, one.max_tokens)

    groups = [] if group is None else [group]
    watch, client, theirs = Watch(*groups), time.process_time(), sum(map(group_seconds, groups))
    loop = traffic.closed_loop(send, asks, int(size)) if closed else traffic.open_loop(send, asks, size, "arrivals")
    outcomes = asyncio.run(loop)
    timing = watch.read()
    figures = traffic.figures(outcomes) | {"foreign": timing.foreign if groups else 0.0}
    figures["client_cores"] = (time.process_time() - client) / timing.seconds
    if group is not None:
        figures["server_cores"] = (group_seconds(group) - theirs) / timing.seconds
        figures["server_peak_mb"] = memory(group)["peak"]
    return figures


def brief(figures: dict[str, Any]) -> str:
    """A load's figures in a line."""
    if "crowd_ratio" in figures:
        return f"first token {figures['crowd_ratio']:.2f} times as late with {pressure.FACTOR} times too many clients"
    if "tokens_per_second" not in figures:
        return f"all failed: {figures['errors']}"
    return (
        f"{figures['tokens_per_second']:.0f} tokens/s, first {figures['first_p50']:.0f} ms, "
        f"gap {figures['gap_p50']:.1f} ms, others {figures['foreign']:.2f} cores, {figures['failed']} failed"
    )


def flat(rounds: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every round's figures, for the JSON file."""
    return [
        {"case": case, "load": load, "round": i} | one
        for (case, load), found in rounds.items()
        for i, one in enumerate(found)
    ]


def collect(rounds: dict[tuple[str, str], list[dict[str, Any]]], limit: float) -> list[dict[str, Any]]:
    """One row for each case and load: medians of the rounds that others didn't disturb, and the HTTP share."""
    rows = []
    for (case, load), found in rounds.items():
        quiet = [one for one in found if one.get("foreign", 0.0) <= limit]
        row = {"case": case, "load": load, "busy": len(found) - len(quiet)}
        rows.append(row | (traffic.over_rounds(quiet) if quiet else {"foreign": max(one["foreign"] for one in found)}))
    rates = {(row["case"], row["load"]): row.get("tokens_per_second") for row in rows}
    for row in rows:
        mine, engine = row.get("tokens_per_second"), rates.get((row["case"], f"{row['load']}, no HTTP"))
        if mine and engine:
            row["http_share"] = mine / engine
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| settings | load | tokens/s (range) | requests/s | first token, ms: p50 / p95 / p99 | gap, ms: p50 / p95 / p99 "
        "| per token, ms: p50 / p99 | whole, s: p50 / p99 | failed | HTTP share | cores: server / client / others "
        "| peak memory, MB | rounds |",
        "|---" * 13 + "|",
    ]
    for row in rows:
        lines.append(f"| {row['case']} | {row['load']} | {' | '.join(cells(row))} |")
    return "\n".join(lines)


def cells(row: dict[str, Any]) -> list[str]:
    """A row's figures as text."""
    if "rounds" not in row:
        return [f"busy ({row['foreign']:.1f} cores)", *[""] * 9, f"0 of {row['busy']}"]
    rounds = f"{row['rounds']} of {row['rounds'] + row['busy']}"
    errors = ", ".join(f"{count} x {status}" for status, count in row["errors"].items()) or "0"
    if "tokens_per_second" not in row:
        return ["", "", "", "", "", "", errors, "", "", "", rounds]

    def percentiles(name: str, shares: Sequence[int], factor: float = 1.0, digits: int = 1) -> str:
        return " / ".join(f"{row[f'{name}_p{share}'] * factor:,.{digits}f}" for share in shares)

    cores = " / ".join(
        f"{row[name]:.2f}" if name in row else "" for name in ("server_cores", "client_cores", "foreign")
    )
    return [
        f"{row['tokens_per_second']:,.0f} ({row['lowest']:,.0f}-{row['highest']:,.0f})",
        f"{row['requests_per_second']:.2f}",
        percentiles("first", (50, 95, 99), digits=0),
        percentiles("gap", (50, 95, 99)),
        percentiles("per_token", (50, 99)),
        percentiles("whole", (50, 99), 1e-3, 2),
        errors,
        f"{row['http_share']:.2f}" if "http_share" in row else "",
        cores,
        f"{row['server_peak_mb']:,.0f}" if "server_peak_mb" in row else "",
        rounds,
    ]


if __name__ == "__main__":
    sys.exit(main())
