"""A tiny random model whose tokens are single bytes (so characters get split), and real servers around it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 1024
END = 256  # the id of <|endoftext|>

# What the command line does with a server, without the command line.
_SERVE = """
import json, sys
from app.main import serve
from app.settings import load_settings
from model.errors import HomegrownError
try:
    sys.exit(serve(load_settings(json.loads(sys.argv[1]))))
except HomegrownError as error:
    print(f"homegrown: {error}", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random llama of 257 tokens: the 256 bytes and <|endoftext|>."""
    import torch

    from model.added_tokens import AddedToken
    from model.bpe import spell_bytes
    from model.checkpoint import save_model
    from model.config import ModelConfig
    from model.gpt import GPT
    from model.tokenizer import Tokenizer
    from model.tokenizer_json import build

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="llama", vocab_size=END + 1, context_length=CONTEXT, n_layer=2, n_head=4, n_kv_head=2, d_model=32,
        d_ff=64, head_dim=8, tie_embeddings=False, initializer_range=0.2, bos_token_id=END, eos_token_ids=(END,),
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(GPT(config), directory)
    vocab = {spell_bytes(bytes([value])): value for value in range(256)} | {"<|endoftext|>": END}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data = build(vocab, [], [AddedToken(END, "<|endoftext|>", special=True)], pre_tokenizer=split)
    Tokenizer.from_json(data, {"eos_token": "<|endoftext|>"}, source="tests").save(directory)
    return directory


class Server:
    """`serve` in a process of its own."""

    def __init__(self, settings: dict[str, Any], env: dict[str, str] | None = None) -> None:
        self.settings = {"port": 0, "threads": 1, **settings}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        command = [sys.executable, "-c", _SERVE, json.dumps(self.settings)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        """All it has written to stderr."""
        return "\n".join(self.lines)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; waits until it does."""
        found = wait_for(lambda: re.search(r"http://([\d.]+):(\d+)", self.log) or self.process.poll(), what="a listener")
        assert isinstance(found, re.Match), self.log
        return found[1], int(found[2])

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url="http://{}:{}".format(*self.address), **{"timeout": 30.0, **options})

    def wait_ready(self) -> "Server":
        """Return when it takes requests."""
        with self.client() as client:
            wait_for(lambda: client.get("/ready").status_code == 200, what="readiness")
        return self

    def counts(self) -> dict[str, Any]:
        """The body of /health."""
        with self.client() as client:
            return client.get("/health").json()

    def wait_idle(self, within: float = 5.0) -> None:
        """Return when no request holds a slot or waits."""
        wait_for(lambda: (c := self.counts()).get("running") == 0 and c["waiting"] == 0, within, what="an idle engine")

    def engine_pid(self) -> int:
        """The engine's process id."""
        out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return int(out.stdout.split()[0])

    def connect(self) -> socket.socket:
        """A bare connection to it."""
        return socket.create_connection(self.address, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def wait_for(check: Callable[[], Any], within: float = 60.0, *, what: str) -> Any:
    """Poll `check` until it gives something true."""
    end = time.monotonic() + within
    while not (result := check()):
        if time.monotonic() > end:
            pytest.fail(f"waited {within:g} s for {what}")
        time.sleep(0.01)
    return result


@pytest.fixture(scope="session")
def make_server(model_dir: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; all are ended with the session."""
    servers: list[Server] = []

    def make(env: dict[str, str] | None = None, **settings: Any) -> Server:
        servers.append(Server({"model": str(model_dir), **settings}, env))
        return servers[-1]

    yield make
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """The server that tests share, if they leave it as it was: 4 slots, 4 places in the queue."""
    return make_server(max_slots=4, max_queue=4, prefill_chunk=32, body_limit=65536, cors_origins="https://a.example").wait_ready()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """An event loop for the tests of a module."""
    with asyncio.Runner() as runner:
        yield runner
