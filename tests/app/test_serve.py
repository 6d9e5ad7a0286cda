"""The server's life: start, refusals at the start, clients that leave, a dying engine, the end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from serving import ROOT, wait_for

LONG = {"prompt": "hello", "max_tokens": 1000, "ignore_eos": True, "seed": 1}


def send_raw(server, body: dict) -> socket.socket:
    """POST /generate on a bare socket; the answer is left unread."""
    data = json.dumps(body).encode()
    sock = server.connect()
    head = "POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return sock


@contextlib.contextmanager
def slots_taken(server, count: int) -> Iterator[list[socket.socket]]:
    """`count` endless streams that nobody reads."""
    with contextlib.ExitStack() as stack:
        socks = []
        stop = threading.Event()

        def keep_busy() -> None:  # a stream of 1,000 tokens ends after a second or so: then another takes its place
            while not stop.is_set():
                with contextlib.suppress(OSError), send_raw(server, LONG | {"stream": True}) as sock:
                    socks.append(sock)
                    sock.settimeout(0.2)
                    data = b""
                    while b"[DONE]" not in data and not stop.is_set():
                        with contextlib.suppress(TimeoutError):
                            data = data[-20:] + (sock.recv(65536) or b"[DONE]")

        threads = [threading.Thread(target=keep_busy) for _ in range(count)]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield socks


# -- starting


def test_the_http_process_needs_no_torch():
    code = "import sys, app.main; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr


def test_probes_answer_while_the_model_loads(make_server):
    server = make_server()
    with server.client() as client:
        assert client.get("/health").json()["status"] == "loading"
        for response in (client.get("/ready"), client.post("/generate", json={"prompt": "a"})):
            assert response.status_code == 503
            assert response.headers["retry-after"]
            error = response.json()["error"]
            assert (error["type"], error["code"]) == ("server_error", "model_loading")
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        server.wait_ready()
        assert client.get("/health").json()["status"] == "ok"
        # Its connection is still open, but idle: that does not hold the end up until drain_timeout.
        began = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
    assert "Traceback" not in server.log


def refused(server) -> str:
    """The last line of a server that did not start."""
    assert server.wait() == 1
    assert "Traceback" not in server.log
    return server.lines[-1]


def test_a_port_in_use(make_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(make_server(port=port)).startswith(f"homegrown: port: {port} on 127.0.0.1 is in use")


def test_an_address_of_another_machine(make_server):
    assert "host" in refused(make_server(host="192.0.2.1", insecure=True))
    assert "host" in refused(make_server(host="no.such.host.invalid", insecure=True))


def test_an_open_door_is_refused(make_server):
    assert "api_key" in refused(make_server(host="0.0.0.0"))


def test_no_such_model(make_server):
    assert "nope" in refused(make_server(model="nope"))


def test_no_such_device(make_server):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "device" in refused(make_server(device="cuda"))


def test_a_context_beyond_the_models(make_server):
    assert "context" in refused(make_server(context=2000))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (
            lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-100]),
            "model.safetensors",
        ),
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (lambda d: (d / "config.json").write_text("{"), "config.json"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    ],
)
def test_a_damaged_model(make_server, model_dir, tmp_path, damage: Callable, names):
    shutil.copytree(model_dir, tmp_path / "broken")
    damage(tmp_path / "broken")
    assert names in refused(make_server(model=str(tmp_path / "broken")))


# -- clients that leave, and too many of them


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server, stream):
    server.wait_idle()
    with send_raw(server, LONG | {"stream": stream}) as sock:
        wait_for(lambda: server.counts()["running"] == 1, 5, what="the request to run")
        if stream:
            sock.recv(100)
    server.wait_idle(within=1)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_frees_its_place(server, stream):
    server.wait_idle()
    with slots_taken(server, 4):
        wait_for(lambda: server.counts()["running"] == 4, 5, what="busy slots")
        with send_raw(server, LONG | {"stream": stream}):
            wait_for(lambda: server.counts()["waiting"] == 1, 5, what="the request to wait")
        wait_for(lambda: server.counts()["waiting"] == 0, 1, what="its place")
    server.wait_idle()


def test_a_full_queue_refuses_at_once_and_is_not_ready(server, client):
    server.wait_idle()
    with slots_taken(server, 8):
        wait_for(lambda: server.counts()["waiting"] == 4, 5, what="a full queue")
        refusals = [client.post("/generate", json={"prompt": "a", "stream": stream}) for stream in (True, False) * 10]
        full = [response for response in refusals if response.status_code == 429]
        assert full
        for response in full:
            assert response.headers["retry-after"].isdecimal()
            error = response.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        ready = [client.get("/ready") for _ in range(20)]
        assert any(r.status_code == 503 and r.json()["error"]["code"] == "queue_full" for r in ready)
    server.wait_idle()
    assert client.get("/ready").status_code == 200


def test_a_reader_that_stops_reading_stalls_nobody(server, client):
    server.wait_idle()
    body = LONG | {"stream": True, "logprobs": 20}  # megabytes: more than the socket's buffers hold
    with send_raw(server, body):
        answer = client.post("/generate", json={"prompt": "a", "max_tokens": 20, "ignore_eos": True})
        assert answer.json()["usage"]["completion_tokens"] == 20
        wait_for(lambda: server.counts()["running"] == 0, 10, what="the generation to end without its reader")
    server.wait_idle()


@pytest.fixture(scope="module")
def hurried(make_server):
    # The slowest way to run the model: 1,000 tokens must not be done in time.
    limits = {"max_queue_wait": 0.1, "request_timeout": 0.2}
    return make_server(max_slots=1, backend="torch", speculate=False, **limits).wait_ready()


def test_waiting_too_long(hurried):
    def ask(stream: bool) -> httpx.Response | None:
        response = client.post("/generate", json=LONG | {"stream": stream})
        return response if response.status_code == 504 and "slot" in response.text else None

    with slots_taken(hurried, 2), hurried.client() as client:
        wait_for(lambda: hurried.counts()["waiting"] == 1, 5, what="a busy slot")
        for stream in (True, False):
            response = wait_for(lambda stream=stream: ask(stream), 20, what="a request that waits too long")
            error = response.json()["error"]
            assert (error["type"], error["code"]) == ("server_error", "timeout")
    hurried.wait_idle()


def test_running_too_long(hurried):
    with hurried.client() as client:
        response = client.post("/generate", json=LONG)
        assert response.status_code == 504
        streamed = client.post("/generate", json=LONG | {"stream": True})
        assert streamed.status_code == 200  # it had begun
        *_, error, done, empty = streamed.text.split("\n\n")
        assert (done, empty) == ("data: [DONE]", "")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"


# -- a dying engine


def test_a_killed_engine_fails_its_requests_comes_back_and_ends_with_its_server(make_server):
    server = make_server(max_slots=2).wait_ready()
    with server.client() as client:
        before = client.post("/generate", json=LONG | {"max_tokens": 10}).json()["text"]
        results: list[httpx.Response] = []

        def ask(stream: bool) -> None:
            with server.client() as own:
                results.append(own.post("/generate", json=LONG | {"stream": stream}))

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.counts()["running"] == 2, 5, what="two running requests")
        os.kill(server.engine_pid(), signal.SIGKILL)
        for thread in threads:
            thread.join(5)
        by_status = {response.status_code: response for response in results}
        assert set(by_status) == {200, 503}
        assert by_status[503].json()["error"]["code"] == "engine_dead"
        frames = by_status[200].text.split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        assert json.loads(frames[-3].removeprefix("data: "))["error"]["code"] == "engine_dead"
        dead = client.get("/health")
        assert (dead.status_code, dead.json()["error"]["code"]) == (503, "engine_dead")
        assert client.get("/ready").status_code == 503
        assert client.post("/generate", json=LONG).json()["error"]["code"] == "engine_dead"
        server.wait_ready()
        assert client.post("/generate", json=LONG | {"max_tokens": 10}).json()["text"] == before
    pid = server.engine_pid()
    server.stop(signal.SIGKILL)

    def gone() -> bool:
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return False
        return True

    wait_for(gone, 10, what="the engine's end")


# -- the end


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(make_server):
    server = make_server(max_slots=2).wait_ready()
    answers: list[httpx.Response] = []

    def ask() -> None:
        with server.client() as own:
            answers.append(own.post("/generate", json=LONG | {"stream": True}))

    with server.client() as client:
        client.get("/health")  # a connection that is open already
        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: server.counts()["running"] == 1, 5, what="a running request")
        os.kill(server.engine_pid(), signal.SIGTERM)  # as a service manager would: it must not end before the server
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "shutting down" in server.log, 5, what="the shutdown")
        ready, refused = client.get("/ready"), client.post("/generate", json={"prompt": "a"})
        assert {ready.status_code, refused.status_code} == {503}
        assert ready.json()["error"]["code"] == refused.json()["error"]["code"] == "shutting_down"
        thread.join(20)
    assert server.wait() == 0
    assert answers[0].status_code == 200
    assert '"completion_tokens":1000' in answers[0].text
    assert answers[0].text.endswith("data: [DONE]\n\n")


def test_the_drain_has_an_end(make_server):
    server = make_server(drain_timeout=0, max_slots=1, speculate=False).wait_ready()
    with send_raw(server, LONG | {"stream": True}) as sock:
        wait_for(lambda: server.counts()["running"] == 1, 5, what="a running request")
        server.process.send_signal(signal.SIGTERM)
        data = b""
        while piece := sock.recv(65536):
            data += piece
        assert b'"code":"shutting_down"' in data
        assert b"[DONE]" in data
    assert server.wait() == 0


def test_a_second_signal_ends_it_now(make_server):
    server = make_server(max_slots=1).wait_ready()
    with slots_taken(server, 1):
        wait_for(lambda: server.counts()["running"] == 1, 5, what="a running request")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "shutting down" in server.log, 5, what="the shutdown")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 1
    assert "Traceback" not in server.log


def test_stopping_while_it_loads(make_server):
    server = make_server()
    _ = server.address
    assert server.stop() == 0
    assert "Traceback" not in server.log
