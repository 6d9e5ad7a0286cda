"""How the page works through many texts: batches, refusals, servers that are busy or away."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

# `value`: n texts, and what the stand-in server does. It counts each text that it is asked about.
SETUP = """
const { BulkRun } = await import("/page/lib/bulk.js");
const { ApiError } = await import("/page/lib/api.js");
const texts = Array.from({ length: value.n }, (_, i) => `text ${i}`);
const results = Array(value.n).fill(undefined);
const asked = {}, sizes = [], saved = [], states = [];
let calls = 0;
const answer = (text) => ({ label: text, scores: [[text, 1]], truncated: false });
const serve = async (batch, signal) => {
  calls += 1;
  sizes.push(batch.length);
  await behave(batch, signal);
  for (const text of batch) asked[text] = (asked[text] ?? 0) + 1;
  return batch.map(answer);
};
const run = new BulkRun({
  texts, results, ask: serve,
  onResults: (places) => saved.push(...places),
  onChange: () => states.at(-1) === run.state || states.push(run.state),
});
const report = () => ({
  state: run.state, message: run.message, done: run.done, sizes, states,
  labels: results.map((result) => result?.label ?? null),
  errors: Object.fromEntries(results.flatMap((result, i) => (result?.error ? [[i, result.error]] : []))),
  most: Math.max(0, ...Object.values(asked)), saved: [...saved].sort((a, b) => a - b),
});
const until = async (check) => { while (!check()) await new Promise((resolve) => setTimeout(resolve, 5)); };
"""


@pytest.fixture
def bulk(open_page: Callable[..., Page]) -> Callable[..., Any]:
    """`bulk(behave, script, n)`: the value of `script`, with a server that does `behave` with each batch."""
    page = open_page("#status")

    def go(behave: str, script: str = "await run.start(); return report();", n: int = 40) -> Any:
        code = f"async (value) => {{ {SETUP} const behave = async (batch, signal) => {{ {behave} }}; {script} }}"
        return page.evaluate(code, {"n": n})

    return go


def check_whole(report: dict[str, Any], failed: tuple[int, ...] = ()) -> None:
    """Every text has its own answer, or is one of those that failed; none was asked twice."""
    n = len(report["labels"])
    assert report["state"] == "done"
    assert report["done"] == n
    assert report["labels"] == [None if i in failed else f"text {i}" for i in range(n)]
    assert sorted(map(int, report["errors"])) == sorted(failed)
    assert report["saved"] == list(range(n))
    assert report["most"] == 1


def test_batches_grow_while_the_server_is_quick(bulk: Callable[..., Any]) -> None:
    report = bulk("", n=1000)
    check_whole(report)
    assert report["sizes"][:4] == [8, 16, 32, 64]
    assert max(report["sizes"]) <= 256


def test_a_text_that_the_server_names_fails_alone(bulk: Callable[..., Any]) -> None:
    report = bulk("""const bad = batch.findIndex((text) => ["text 3", "text 11"].includes(text));
        if (bad >= 0) throw new ApiError(400, `input[${bad}] is odd`, { param: `input[${bad}]` });""")
    check_whole(report, (3, 11))
    assert "is odd" in report["errors"]["3"]


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_text_at_fault_is_found_by_halving(bulk: Callable[..., Any], status: int) -> None:
    report = bulk(f'if (batch.includes("text 21")) throw new ApiError({status}, "no");')
    check_whole(report, (21,))


def test_a_busy_server_is_asked_again_when_it_says(bulk: Callable[..., Any]) -> None:
    report = bulk('if (calls === 2) throw new ApiError(429, "The queue is full.", { retryAfter: 0.2 });')
    check_whole(report)
    assert report["states"] == ["running", "waiting", "running", "done"]


def test_a_server_that_is_away_comes_back(bulk: Callable[..., Any]) -> None:
    report = bulk(
        'if (calls === 2) throw new ApiError(0, "Away.");',
        """const running = run.start();
        await until(() => run.state === "waiting");
        const message = run.message;
        await running;
        return { ...report(), message };""",
    )
    check_whole(report)
    assert report["message"] == "Away. Trying again in 1 s."


def test_what_concerns_all_texts_pauses(bulk: Callable[..., Any]) -> None:
    report = bulk('if (calls === 3) throw new ApiError(404, "No such model.", { param: "model" });')
    assert (report["state"], report["message"]) == ("paused", "No such model.")
    assert report["done"] == 24
    assert report["errors"] == {}


def test_pause_ends_after_the_batch_and_goes_on_where_it_was(bulk: Callable[..., Any]) -> None:
    first, whole = bulk(
        "await new Promise((resolve) => setTimeout(resolve, 20));",
        """const running = run.start();
        await until(() => run.done === 8);
        run.pause();
        await running;
        const first = report();
        await run.start();
        return [first, report()];""",
    )
    assert first["state"] == "paused"
    assert first["done"] == 24
    check_whole(whole)


def test_cancel_drops_what_is_on_its_way(bulk: Callable[..., Any]) -> None:
    first, whole = bulk(
        """if (calls === 2) await new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(new DOMException("", "AbortError"))));""",
        """const running = run.start();
        await until(() => calls === 2);
        run.cancel();
        await running;
        const first = report();
        await run.start();
        return [first, report()];""",
    )
    assert (first["state"], first["done"]) == ("cancelled", 8)
    check_whole(whole)


def test_pause_during_a_wait_is_at_once(bulk: Callable[..., Any]) -> None:
    report = bulk(
        'throw new ApiError(503, "Loading.", { retryAfter: 30 });',
        """const running = run.start();
        await until(() => run.state === "waiting");
        run.pause();
        await running;
        return report();""",
    )
    assert (report["state"], report["done"]) == ("paused", 0)


def test_failed_texts_can_be_asked_again(bulk: Callable[..., Any]) -> None:
    report = bulk(
        'if (batch.includes("text 5") && !globalThis.healed) throw new ApiError(400, "no");',
        """await run.start();
        const failed = [...results.keys()].filter((i) => results[i].error);
        globalThis.healed = true;
        saved.splice(saved.indexOf(5), 1);
        run.forgetFailures(failed);
        await run.start();
        return report();""",
    )
    check_whole(report)
