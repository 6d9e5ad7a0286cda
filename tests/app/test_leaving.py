"""Clients that leave at any moment: their slots are free at once, memory stays flat, and the next requests are answered as ever."""

import asyncio
import contextlib
import random
import time
from pathlib import Path

import pytest
from leaving import crowd, one_client, request
from serving import Server, wait_for
from starlette.middleware.base import BaseHTTPMiddleware

from app.engine.client import EngineClient
from app.engine.messages import EngineSpec
from app.main import create_app
from app.settings import load_settings

NORMAL = {"prompt": "hello", "max_tokens": 20, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def crowded(make_server):
    return make_server(max_slots=4, max_queue=32, speculate=False).wait_ready()


def resident(server: Server) -> float:
    """MB of the HTTP process and of its engine."""
    total = 0
    for pid in (server.process.pid, server.engine_pid()):
        text = Path(f"/proc/{pid}/status").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    return total / 1024


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def normal(server: Server) -> str:
    with server.client() as client:
        response = client.post("/generate", json=NORMAL)
        assert response.status_code == 200, response.text
        return response.json()["text"]


def leave_and_check(server: Server, count: int, seed: int, within: float) -> float:
    """A crowd comes and goes; the seconds after which no slot was held any more."""
    before = normal(server)
    outcome = asyncio.run(crowd(server.address, count, seed, within=within))
    ended = time.monotonic()
    server.wait_idle(within=5)
    idle_after = time.monotonic() - ended
    assert set(outcome) <= {"left", "answered", "429"}
    assert outcome["answered"] + outcome["429"] >= count // 10  # whoever stayed was told something
    assert normal(server) == before
    return idle_after


def test_a_crowd_that_leaves_in_every_way(crowded):
    files = open_files(crowded)
    idle_after = leave_and_check(crowded, 60, seed=1, within=1.0)
    assert idle_after < 2  # 0.2 on a machine of its own
    wait_for(lambda: open_files(crowded) <= files + 2, 10, what="closed sockets")
    assert "Traceback" not in crowded.log
    assert "never retrieved" not in crowded.log


@pytest.mark.parametrize("way", ["half-closed", "reset", "unread", "streaming"])
@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/v1/chat/completions"])
def test_one_that_leaves_frees_its_slots_soon(crowded, way, path):
    class Chosen(random.Random):
        def choice(self, seq):
            return path if path in seq else super().choice(seq)

    crowded.wait_idle()
    assert asyncio.run(one_client(crowded.address, way, Chosen(3))) == "left"
    left = time.monotonic()
    crowded.wait_idle(within=2)
    assert time.monotonic() - left < 1  # 0.2 on a machine of its own


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["ab " * 200] * 1500}),
        ("/classify", {"input": ["ab " * 200] * 1500, "labels": ["a", "b", "c", "d"]}),
        ("/v1/completions", {"prompt": ["a"] * 4, "n": 8, "max_tokens": 1000, "ignore_eos": True}),
    ],
)
def test_one_that_leaves_a_batch_ends_all_of_it(crowded, path, body):
    crowded.wait_idle()
    name = f"batch-{path.replace('/', '-')}"
    with crowded.connect() as sock:
        sock.sendall(request(body, path).replace(b"Host: x", f"Host: x\r\nX-Request-Id: {name}".encode()))
        time.sleep(0.2)  # a whole batch takes a second
    left = time.monotonic()
    line = wait_for(lambda: next((line for line in crowded.lines if f"={name} " in line), None), 10, what="its line")
    assert "status=499" in line
    crowded.wait_idle(within=2)
    assert time.monotonic() - left < 1  # 0.2 on a machine of its own


def test_hundreds_that_never_finish_asking_keep_nobody_out(crowded):
    with contextlib.ExitStack() as stack:
        for number in range(300):
            sock = stack.enter_context(crowded.connect())
            sock.sendall(request(NORMAL)[: number % 180])  # from nothing at all to most of a body
        began = time.monotonic()
        for _ in range(10):
            normal(crowded)
        assert time.monotonic() - began < 10


def test_a_pipelined_request_does_not_hide_that_the_client_left(crowded):
    long = request(NORMAL | {"max_tokens": 1000, "stream": True})
    crowded.wait_idle()
    with crowded.connect() as sock:
        sock.sendall(long * 3)
        sock.recv(100)
        assert crowded.counts()["running"] == 1
    crowded.wait_idle(within=1)


def test_a_client_that_leaves_is_logged_as_gone(crowded):
    def leave(attempt: int) -> bool:
        name = f"i-leave-{attempt}"
        with crowded.connect() as sock:
            data = request(NORMAL | {"max_tokens": 1000})
            sock.sendall(data.replace(b"Host: x", f"Host: x\r\nX-Request-Id: {name}".encode()))
            time.sleep(0.05)
        line = wait_for(lambda: next((line for line in crowded.lines if f"{name} " in line), None), 10, what="its line")
        return "status=499" in line

    assert any(leave(attempt) for attempt in range(5))  # an answer may be ready before its client has left


@pytest.mark.slow
def test_five_hundred_that_leave_cost_no_memory(crowded):
    leave_and_check(crowded, 500, seed=2, within=4.0)  # what grows once, grows now
    files, before = open_files(crowded), resident(crowded)
    for seed in range(3, 7):
        assert leave_and_check(crowded, 500, seed=seed, within=4.0) < 2
    wait_for(lambda: open_files(crowded) <= files + 2, 10, what="closed sockets")
    assert resident(crowded) < before + 10
    assert "Traceback" not in crowded.log
    assert "never retrieved" not in crowded.log


def test_no_middleware_hides_that_a_client_left(model_dir):
    """BaseHTTPMiddleware puts a stream of its own between a route and its client."""
    settings = load_settings({"model": str(model_dir), "api_key": "x", "cors_origins": "*"})
    app = create_app(settings, EngineClient(EngineSpec(model=str(model_dir))))
    layer, names = app.build_middleware_stack(), []
    while layer is not None and layer is not app.router:
        assert not isinstance(layer, BaseHTTPMiddleware)
        names.append(type(layer).__name__)
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)
    assert {"RequestContext", "Draining", "ApiKey", "Admission", "BodyLimit"} <= set(names)
    assert any("cors" in name.lower() for name in names)
