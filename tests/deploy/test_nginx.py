"""deploy/nginx/homegrown.conf in a real nginx: streams pass as they come, and everything else keeps to the server's contract."""

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nginx import Nginx
from serving import Server, events, wait_for
from tiny import random_model, tiny_config

from model.checkpoint import save_model
from model.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is missing"),
]

CONTEXT = 4096
LONG: dict[str, Any] = {"prompt": "Hello", "max_tokens": 3000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context is long enough for an answer of some seconds."""
    directory = tmp_path_factory.mktemp("long")
    save_model(random_model(tiny_config("llama", context_length=CONTEXT)), directory)
    Tokenizer.gpt2().save(directory)
    return directory


@pytest.fixture
def start_nginx(deploy: Path, tmp_path: Path) -> Iterator[Callable[[tuple[str, int]], Nginx]]:
    started: list[Nginx] = []

    def start(upstream: tuple[str, int]) -> Nginx:
        started.append(Nginx(deploy / "nginx/homegrown.conf", tmp_path, upstream))
        return started[-1]

    yield start
    for nginx in started:
        nginx.stop()


@pytest.fixture(scope="module")
def behind(long_model: Path) -> Iterator[Server]:
    server = Server({"model": str(long_model), "max_slots": 2}).wait_ready()
    yield server
    server.stop()


@pytest.fixture
def client(behind: Server, start_nginx: Callable[[tuple[str, int]], Nginx]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=start_nginx(behind.address).url, timeout=60) as client:
        yield client


class Upstream:
    """A server that sends each event of a stream only when it is told to, and says nothing of buffering."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.go_on = threading.Semaphore(0)
        self.connections = 0
        self.requests: list[bytes] = []
        self.refusals: dict[str, int] = {}  # path -> status
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while head := b"".join(iter(lines.readline, b"\r\n")):
                length = re.search(rb"content-length: (\d+)", head.lower())
                self.requests.append(head + lines.read(int(length[1]) if length else 0))
                if refusal := self.refusals.get(head.split()[1].decode()):
                    connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % refusal)
                elif head.startswith(b"GET /stream"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                    connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
                    for number in range(3):
                        assert self.go_on.acquire(timeout=30)
                        connection.sendall(b"9\r\ndata: %d\n\n\r\n" % number)
                    connection.sendall(b"0\r\n\r\n")
                else:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.go_on.release(3)
    upstream.listener.close()


def test_each_event_comes_before_the_next_is_sent(
    upstream: Upstream, start_nginx: Callable[[tuple[str, int]], Nginx]
) -> None:
    nginx = start_nginx(upstream.listener.getsockname())
    with httpx.stream("GET", f"{nginx.url}/stream", timeout=10) as response:
        parts = response.iter_bytes()
        for number in range(3):
            upstream.go_on.release()
            assert next(parts) == b"data: %d\n\n" % number


def test_connections_to_the_server_are_kept(
    upstream: Upstream, start_nginx: Callable[[tuple[str, int]], Nginx]
) -> None:
    nginx = start_nginx(upstream.listener.getsockname())
    for number in range(5):  # each on a new connection of the client
        assert httpx.get(nginx.url, headers={"X-Request-Id": f"mine-{number}"}).text == "ok"
    assert httpx.get(nginx.url).text == "ok"
    assert upstream.connections == 1
    heads = [head.lower() for head in upstream.requests]
    assert all(b"\r\nconnection: close" not in head for head in heads)
    assert b"x-request-id: mine-4\r\n" in heads[4]
    assert b"x-request-id: " in heads[5]


def test_a_server_that_drains_leaves_its_requests_to_the_other(
    upstream: Upstream, deploy: Path, tmp_path: Path
) -> None:
    """It refuses at once, so it is always the least busy one. A full queue is passed on: the others are as full."""
    other = Upstream()
    for each in (upstream, other):
        each.refusals["/busy"] = 429
    nginx = Nginx(
        deploy / "nginx/homegrown.conf", tmp_path, upstream.listener.getsockname(), second=other.listener.getsockname()
    )
    try:
        assert httpx.post(f"{nginx.url}/busy", content="x").status_code == 429
        assert len(upstream.requests) + len(other.requests) == 1
        upstream.refusals["/generate"] = 503
        answers = [httpx.post(f"{nginx.url}/generate", content=f"prompt {n}").status_code for n in range(8)]
        assert answers == [200] * 8
        assert any(b"/generate" in request for request in upstream.requests)
        assert [request[-8:] for request in other.requests if b"/generate" in request] == [
            b"prompt %d" % n for n in range(8)
        ]
        other.refusals["/generate"] = 503  # nobody is left: the client hears it
        assert httpx.post(f"{nginx.url}/generate", content="x").status_code == 503
    finally:
        nginx.stop()
        other.listener.close()


def test_stream_is_the_servers_own(client: httpx.Client, behind: Server) -> None:
    body = {"prompt": "Once", "max_tokens": 64, "seed": 3, "ignore_eos": True, "stream": True}
    with behind.client() as direct:
        expected = "".join(event["text"] for event in events(direct.post("/generate", json=body)))
    through = client.post("/generate", json=body, headers={"X-Request-Id": "through-nginx"})
    assert through.headers["x-request-id"] == "through-nginx"
    assert "".join(event["text"] for event in events(through)) == expected


def test_client_that_leaves_frees_its_slot(client: httpx.Client, behind: Server) -> None:
    with client.stream("POST", "/generate", json=LONG) as response:
        next(response.iter_lines())
    behind.wait_idle()
    with behind.client() as direct:
        assert 'homegrown_requests_aborted_total{reason="client_gone"} 1.0' in direct.get("/metrics").text


def test_errors_have_one_shape(client: httpx.Client) -> None:
    """The server's own errors pass as they are; nginx's wall behind the server's limit answers in the same form."""
    for size in (1_500_000, 3_000_000):
        answer = client.post("/generate", json={"prompt": "x" * size})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
    answer = client.get("/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_metrics_are_for_this_machine_alone(client: httpx.Client) -> None:
    assert "homegrown_engine_up" in client.get("/metrics").text
    with httpx.Client(base_url=client.base_url, transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
        assert other.get("/health").status_code == 200
        answer = other.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_parts_in_comments_work_too(deploy: Path, tmp_path: Path, upstream: Upstream) -> None:
    """TLS, the redirection to it, and the limit for one address."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=homegrown.example.com", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    address = upstream.listener.getsockname()
    nginx = Nginx(deploy / "nginx/homegrown.conf", tmp_path, address, tls=(certificate, key))
    try:
        moved = httpx.get(f"{nginx.url}/v1/models?x=1", headers={"Host": "homegrown.example.com"})
        assert (moved.status_code, moved.headers["location"]) == (301, "https://homegrown.example.com/v1/models?x=1")
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=f"https://127.0.0.1:{nginx.tls_port}", verify=trusted) as client:
            answer = client.get("/")
            assert (answer.status_code, answer.text) == (200, "ok")
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            answers = [client.get("/") for _ in range(200)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {(answer.status_code, answer.json()["error"]["type"]) for answer in refused} == {
            (429, "rate_limit_error")
        }
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    finally:
        nginx.stop()


def test_server_drains_behind_it(long_model: Path, start_nginx: Callable[[tuple[str, int]], Nginx]) -> None:
    """SIGTERM under a stream: the stream ends whole, new requests hear that they should come back, before and after the end."""
    server = Server({"model": str(long_model), "max_slots": 2}).wait_ready()
    nginx = start_nginx(server.address)
    with (
        httpx.Client(base_url=nginx.url, timeout=60) as client,
        client.stream("POST", "/generate", json=LONG) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.process.terminate()
        wait_for(lambda: httpx.get(f"{nginx.url}/ready").status_code == 503, what="the drain")
        refusal = httpx.post(f"{nginx.url}/generate", json={"prompt": "Hi"})
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "shutting_down")
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["finish_reason"] == "length"
    assert server.wait() == 0
    gone = httpx.get(f"{nginx.url}/health")
    assert (gone.status_code, gone.json()["error"]["type"]) == (503, "server_error")
    assert int(gone.headers["retry-after"]) > 0
