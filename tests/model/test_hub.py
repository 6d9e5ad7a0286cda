"""Pulling models from a Hub: a small one of our own, on this machine, that can break off and misbehave."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import wait_for
from tiny import random_model, tiny_config

from model import hub as hub_module
from model.checkpoint import load_model, save_model
from model.errors import CheckpointError
from model.hub import resolve_model

COMMIT = "5" * 40
ROOT = Path(__file__).parents[2]


class Hub(ThreadingHTTPServer):
    """The part of the Hub's HTTP interface that a download needs. `cut`: bytes after which a weights file stalls, once."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.cut: int | None = None
        self.stalled = threading.Event()
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _json(self, status: int, content: Any, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
            self._describe(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(self.server.repositories[match[1]] / match[3], body)
        else:
            self._json(404, {"error": "not found"})

    def _describe(self, repository: str, kind: str | None, revision: str | None) -> None:
        directory = self.server.repositories.get(repository)
        if directory is None:
            self._json(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in (None, "main", COMMIT):
            self._json(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        elif kind == "tree":
            rows = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _digest(p)[:40]}
                for p in directory.iterdir()
            ]
            self._json(200, rows)
        else:
            paths = sorted(path for path in directory.rglob("*") if path.is_file())
            files = [{"rfilename": str(path.relative_to(directory))} for path in paths]
            self._json(
                200, {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": files, "private": False}
            )

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            self._json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        data, start = path.read_bytes(), 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(match[1])
        self.send_response(206 if start else 200)
        for name, value in {
            "Content-Length": str(len(data) - start), "ETag": f'"{_digest(path)}"', "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream",
            **({"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if self.server.cut is not None and path.suffix == ".safetensors":
            self.wfile.write(data[start : self.server.cut])
            self.wfile.flush()
            self.server.cut = None
            self.server.stalled.set()
            with contextlib.suppress(ConnectionError):
                self.rfile.read(1)  # until the client goes away
            self.close_connection = True
            return
        self.wfile.write(data[start:])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    good = tmp_path / "good"
    save_model(random_model(tiny_config("gpt2", d_model=64, n_head=4, head_dim=16)), good)  # 13 MB: more than one read
    for name in ("tokenizer.json", "README.md", "tf_model.h5", "pytorch_model.bin"):
        (good / name).write_text(f"{{}} {name}")
    pickled, foreign = tmp_path / "pickled", tmp_path / "foreign"
    for directory in (pickled, foreign):
        directory.mkdir()
        (directory / "config.json").write_text((good / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (foreign / "config.json").write_text('{"model_type": "mamba"}')
    (foreign / "model.safetensors").write_bytes(b"x" * 100)
    server = Hub({"openai-community/gpt2": good, "someone/pickled": pickled, "someone/foreign": foreign})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def start_pull(
    models: Path, *arguments: str, endpoint: str, offline: str = "0", stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """`homegrown pull` in a process of its own: the Hub's client reads its settings when it is imported."""
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(models / "home"), "HOMEGROWN_MODELS": str(models), "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "cli", "pull", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, env=environment)


def pull(models: Path, *arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    process = start_pull(models, *arguments, **options)
    out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("homegrown: ")]
    assert done.returncode == 1, done
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def everything(models: Path) -> list[str]:
    return sorted(str(p.relative_to(models)) for p in models.rglob("*") if p.is_file() and "home" not in p.parts)


def test_an_alias_is_pulled_checked_and_recorded(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    done = pull(models, "gpt2", endpoint=hub.url)
    assert done.returncode == 0, done.stderr
    directory = models / "openai-community" / "gpt2"
    assert done.stdout.strip().endswith(str(directory))
    assert sorted(p.name for p in directory.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "homegrown.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert json.loads((directory / "homegrown.json").read_text()) == {
        "repository": "openai-community/gpt2", "revision": COMMIT,
    }  # fmt: skip
    load_model(directory)
    monkeypatch.setenv("HOMEGROWN_MODELS", str(models))
    assert resolve_model("gpt2") == resolve_model("openai-community/gpt2") == directory
    hub.requests.clear()
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0  # the same commit: nothing is fetched again
    assert all("/resolve/" not in path for _, path, _ in hub.requests)


def test_adapters_that_a_model_carries_come_with_it_and_those_added_here_stay(hub: Hub, tmp_path: Path) -> None:
    def put(folder: Path, **adapters: tuple[str, ...]) -> None:
        for name, files in adapters.items():
            (folder / name).mkdir(parents=True)
            for file in files:
                (folder / name / file).write_text(f'{{"of": "{name}"}}')

    both, models = ("adapter_config.json", "adapter_model.safetensors"), tmp_path / "models"
    theirs = hub.repositories["openai-community/gpt2"] / "adapters"
    put(
        theirs,
        good=(*both, "labels.json", "run.sh"),
        pickled=("adapter_config.json", "adapter_model.bin"),
        bare=both[1:],
    )
    put(theirs / "good", deeper=both)
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    ours = models / "openai-community" / "gpt2" / "adapters"
    assert everything(ours) == [f"good/{name}" for name in sorted((*both, "labels.json"))]

    put(ours, mine=both)
    record = json.loads((ours.parent / "homegrown.json").read_text())
    assert record["adapters"] == ["good"]
    (ours.parent / "homegrown.json").write_text(
        json.dumps(record | {"revision": "4" * 40})
    )  # so there is a newer commit
    (theirs / "good").rename(theirs / "better")
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    assert {path.name for path in ours.iterdir()} == {"better", "mine"}
    assert (ours / "mine" / both[0]).read_text() == '{"of": "mine"}'


def test_a_terminal_shows_a_progress_bar(hub: Hub, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    process = start_pull(tmp_path / "models", "gpt2", endpoint=hub.url, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal's other end learns that nobody is left
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"model.safetensors: 100%" in shown


def wait_stalled(hub: Hub, models: Path) -> None:
    """Return when a pull waits for the rest of the weights, and has kept what came."""
    assert hub.stalled.wait(60)
    wait_for(
        lambda: any(p.is_file() and p.stat().st_size > 10_000_000 for p in models.rglob("*.part")),
        what="a partial file",
    )


def test_a_killed_pull_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    models, cut = tmp_path / "models", 12_000_000
    hub.cut = cut
    first = start_pull(models, "gpt2", endpoint=hub.url)
    wait_stalled(hub, models)
    first.kill()
    first.communicate()
    assert not (models / "openai-community" / "gpt2").exists()
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    ranges = [
        int(r.removeprefix("bytes=").rstrip("-")) for _, path, r in hub.requests if r and path.endswith(".safetensors")
    ]
    assert any(10_000_000 < start <= cut for start in ranges)
    original = hub.repositories["openai-community/gpt2"] / "model.safetensors"
    assert (models / "openai-community" / "gpt2" / "model.safetensors").read_bytes() == original.read_bytes()


def test_a_pull_that_was_interrupted_goes_on_too(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    hub.cut = 12_000_000
    first = start_pull(models, "gpt2", endpoint=hub.url)
    wait_stalled(hub, models)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.endswith("homegrown: interrupted\n")
    assert not (models / "openai-community" / "gpt2").exists()
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    assert any(asked and path.endswith(".safetensors") for _, path, asked in hub.requests)


def test_a_full_disk_is_no_missing_network(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    stage = models / "openai-community" / f".gpt2.{COMMIT}.part"
    stage.mkdir(parents=True)
    (stage / "config.json.part").symlink_to("/dev/full")
    said = refused(pull(models, "gpt2", endpoint=hub.url))
    assert f"{stage / 'config.json.part'}: can't be written: No space left on device; when it can" in said


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that was pulled, with an adapter that was put there; the Hub has a newer commit."""
    monkeypatch.setenv("HOMEGROWN_MODELS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    target = tmp_path / "openai-community" / "gpt2"
    (target / "adapters" / "mine").mkdir(parents=True)
    (target / "adapters" / "mine" / "adapter_config.json").write_text("{}")
    (target / "homegrown.json").write_text('{"revision": "old"}')
    config = '{"model_type": "gpt2", "vocab_size": 9, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 1}'

    def fetch(_repository: str, _commit: str, _files: list[str], stage: Path) -> None:
        stage.mkdir(parents=True, exist_ok=True)
        (stage / "config.json").write_text(config)

    monkeypatch.setattr(hub_module, "_look_up", lambda *_: (COMMIT, ["config.json"]))
    monkeypatch.setattr(hub_module, "_fetch", fetch)
    return target


def test_the_old_commit_stays_whole_until_the_new_one_is_there(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(f"{COMMIT}.part"):
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="Input/output"):
            hub_module.pull("gpt2")
    assert everything(pulled) == ["adapters/mine/adapter_config.json", "homegrown.json"]
    assert json.loads((pulled / "homegrown.json").read_text())["revision"] == "old"
    assert hub_module.pull("gpt2") == pulled
    assert everything(pulled) == ["adapters/mine/adapter_config.json", "config.json", "homegrown.json"]
    assert json.loads((pulled / "homegrown.json").read_text())["revision"] == COMMIT
    assert [path.name for path in pulled.parent.iterdir()] == ["gpt2"]


def test_a_model_comes_back_whose_replacement_was_killed(pulled: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    old = pulled.with_name(f".gpt2.{gone.pid}.abcd_123.old")
    old.mkdir()
    pulled.replace(old / "gpt2")
    assert hub_module.pull("gpt2", offline=True) == pulled
    assert (pulled / "adapters" / "mine" / "adapter_config.json").is_file()
    assert not old.exists()


def test_a_part_that_is_no_part_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    stage = models / "openai-community" / f".gpt2.{COMMIT}.part"
    stage.mkdir(parents=True)
    original = hub.repositories["openai-community/gpt2"] / "model.safetensors"
    part = stage / "model.safetensors.part"
    part.write_bytes(b"x" * (original.stat().st_size + 1))
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    assert (models / "openai-community" / "gpt2" / "model.safetensors").read_bytes() == original.read_bytes()


def test_a_damaged_part_is_noticed_by_its_hash(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    stage = models / "openai-community" / f".gpt2.{COMMIT}.part"
    stage.mkdir(parents=True)
    (stage / "model.safetensors.part").write_bytes(b"x" * 1000)
    assert "model.safetensors arrived damaged" in refused(pull(models, "gpt2", endpoint=hub.url))
    assert not (models / "openai-community" / "gpt2").exists()
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0


@pytest.mark.parametrize(("arguments", "said"), [
    (("someone/pickled",), "no safetensors weights; pickle files can run code"),
    (("someone/foreign",), "model_type 'mamba' is not supported"),
    (("someone/else",), "no such repository"),
    (("gpt2", "--revision", "v9"), "no revision 'v9'"),
    (("gpt3",), "'gpt3' is no Hub id like owner/name, nor one of gpt2, gpt2-medium"),
    (("../../etc",), "is no Hub id"),
])  # fmt: skip
def test_what_cannot_be_pulled_is_one_line_and_leaves_nothing(hub: Hub, tmp_path: Path, arguments, said: str) -> None:
    models = tmp_path / "models"
    assert said in refused(pull(models, *arguments, endpoint=hub.url))
    assert everything(models) == []
    assert not any(path.endswith((".bin", ".safetensors")) for method, path, _ in hub.requests if method == "GET")


def test_no_network_is_one_line(tmp_path: Path) -> None:
    text = refused(pull(tmp_path / "models", "gpt2", endpoint="http://127.0.0.1:9"))
    assert "the Hub can't be reached" in text


def test_offline_uses_what_is_there_and_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert "was not pulled before" in refused(pull(models, "gpt2", "--offline", endpoint=hub.url))
    assert "was not pulled before" in refused(pull(models, "gpt2", endpoint=hub.url, offline="1"))
    assert hub.requests == []
    assert pull(models, "gpt2", endpoint=hub.url).returncode == 0
    hub.requests.clear()
    assert pull(models, "gpt2", "--offline", endpoint=hub.url).returncode == 0
    assert "is here at 5555" in refused(pull(models, "gpt2", "--revision", "v1", endpoint=hub.url, offline="1"))
    assert hub.requests == []


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gpt2_dir: Path) -> None:
    monkeypatch.setenv("HOMEGROWN_MODELS", str(tmp_path))
    assert resolve_model(str(tiny_gpt2_dir)) == tiny_gpt2_dir
    with pytest.raises(CheckpointError, match="homegrown pull gpt2-xl"):
        resolve_model("gpt2-xl")
    with pytest.raises(CheckpointError, match=r"no model 'nonsense'.*gpt2"):
        resolve_model("nonsense")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))
