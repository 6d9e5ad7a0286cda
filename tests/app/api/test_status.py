"""GET /status: what the Status tab shows is true, and is told in every state."""

import os
import signal
import time
from pathlib import Path

import pytest
from serving import wait_for

KEY = "sk-one"
SLOW = {"backend": "torch", "speculate": False}  # so that a long answer lasts until it has been looked at
GENERATE = {"prompt": "hello", "max_tokens": 40, "ignore_eos": True}


@pytest.fixture(scope="module")
def served(make_server):
    return make_server(max_slots=2, max_queue=3, aliases="same=tiny", api_key=KEY, **SLOW).wait_ready()


@pytest.fixture
def client(served):
    with served.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


def state(server) -> dict:
    with server.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        response = client.get("/status")
        assert response.status_code == 200, response.text
        return response.json()


def test_everything_is_told_before_anything_has_happened(served, client):
    status = state(served)
    assert (status["state"], status["running"], status["waiting"], status["slots"]) == ("ready", 0, 0, 2)
    assert (status["max_queue"], status["engine_restarts"]) == (3, 0)
    assert 0 < status["uptime_seconds"] < 600
    assert [card["id"] for card in status["models"]] == ["tiny", "same"]
    assert status["engine"] == client.get("/version").json()
    assert status["models"] == client.get("/v1/models").json()["data"]
    for name in ("time_to_first_token", "inter_token", "end_to_end"):
        assert status["latency"][name] == {"count": 0, "p50": None, "p95": None, "p99": None}
    assert status["tokens_per_second"]["last_60_s"] == {"prompt": 0, "generated": 0}
    assert [len(status["history"][name]) for name in ("prompt", "generated")] == [60, 60]


def test_memory_is_that_of_the_processes(served):
    memory = state(served)["memory"]
    for name, pid in (("server", served.process.pid), ("engine", served.engine_pid())):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
        assert memory[name] == pytest.approx(resident, rel=0.25), name
    assert memory["inspector"] is None


def test_work_is_counted_and_timed(served, client):
    before = state(served)["totals"]
    began = time.monotonic()
    for _ in range(3):
        assert client.post("/generate", json=GENERATE).status_code == 200
    assert client.post("/generate", json={"prompt": 1}).status_code == 400
    longest = time.monotonic() - began
    status = wait_for(
        lambda: (s := state(served))["tokens_per_second"]["last_10_s"]["generated"] >= 12 and s, 5, what="rates"
    )
    grown = {name: value - before[name] for name, value in status["totals"].items()}
    assert (grown["finished"], grown["aborted"], grown["rejected"]) == (3, 0, 1)
    assert (grown["generation_tokens"], grown["prompt_tokens"]) == (120, 15)
    assert sum(status["history"]["generated"]) == 120
    assert sum(status["history"]["prompt"]) == 15
    assert status["tokens_per_second"]["last_10_s"] == {"prompt": 1.5, "generated": 12.0}
    assert status["tokens_per_second"]["last_60_s"] == {"prompt": 0.25, "generated": 2.0}
    latency = status["latency"]
    assert [latency[name]["count"] for name in ("time_to_first_token", "inter_token", "end_to_end")] == [3, 117, 3]
    for name in ("time_to_first_token", "inter_token", "end_to_end"):
        assert 0 < latency[name]["p50"] <= latency[name]["p95"] <= latency[name]["p99"] < longest
    assert latency["time_to_first_token"]["p50"] <= latency["end_to_end"]["p50"]


def test_who_runs_and_waits_is_seen(served, client):
    long = {"prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 3}
    with client.stream("POST", "/v1/completions", json=long):
        wait_for(lambda: (s := state(served))["running"] == 2 and s["waiting"] == 1, 5, what="two runners and a waiter")
    served.wait_idle()
    assert (state(served)["running"], state(served)["waiting"]) == (0, 0)


def test_it_needs_the_key_and_is_not_logged_each_second(served, client):
    with served.client() as anyone:
        assert anyone.get("/status", headers={"x-request-id": "refused"}).status_code == 401
    response = client.get("/status", headers={"x-request-id": "often"})
    assert KEY not in response.text
    client.get("/version", headers={"x-request-id": "seldom"})
    wait_for(lambda: "seldom" in served.log, 5, what="the log's line")
    assert "often" not in served.log
    assert "refused" in served.log


@pytest.mark.slow
def test_a_dead_engine_and_a_draining_server_are_told(make_server):
    server = make_server(max_slots=1, drain_timeout=20, backend="torch", speculate=False)
    assert state(server)["state"] == "loading"  # told at once
    server.wait_ready()
    os.kill(server.engine_pid(), signal.SIGKILL)
    status = wait_for(lambda: (s := state(server))["state"] == "restarting" and s, 5, what="the loss to be seen")
    assert (status["memory"]["engine"], status["engine"]["device"], status["running"]) == (None, None, 0)
    server.wait_ready()
    assert state(server)["engine_restarts"] == 1
    with (
        server.client() as client,
        client.stream("POST", "/generate", json=GENERATE | {"max_tokens": 1000, "stream": True}) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: state(server)["state"] == "draining", 5, what="the drain to be seen")
        assert state(server)["running"] == 1
    assert server.wait() == 0
