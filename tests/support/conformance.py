"""An OpenAI-style server as the conformance suite asks it: any server, of which only the address, a key and a model are known.

Needs httpx and pytest alone: the suite is to run where nothing else of this repository does.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

KEY, MODEL = "a-key-of-the-tests", "homegrown-base"  # of a server that `serve_bundled` starts
OWNER = "homegrown"  # `owned_by` of our own models in /v1/models
DONE = "data: [DONE]"
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_UNKNOWN_CONTEXT = 8192
_SOME_IDS = [100, 200, 300, 400, 500]  # in every vocabulary but a toy's


@dataclass(frozen=True)
class Stream:
    """A streamed answer: its headers, the JSON of its events, and its frames as they came."""

    headers: httpx.Headers
    events: list[dict[str, Any]]
    frames: list[str]

    def choices(self, index: int = 0) -> list[dict[str, Any]]:
        """A choice's parts, in their order."""
        return [choice for event in self.events for choice in event["choices"] if choice["index"] == index]

    def text(self, index: int = 0) -> str:
        """A choice's whole text."""
        return "".join(part_of(choice) for choice in self.choices(index))


def part_of(choice: dict[str, Any]) -> str:
    """The text in a choice of a streamed event."""
    return (choice["text"] if "text" in choice else choice["delta"].get("content")) or ""


def text_of(choice: dict[str, Any]) -> str:
    """The text of an unstreamed answer's choice."""
    return choice["text"] if "text" in choice else choice["message"]["content"]


class Api:
    """The server under test. Request bodies name the model; `kind` is "completions" or "chat"."""

    def __init__(self, base_url: str, key: str | None = None, model: str | None = None) -> None:
        """`base_url` with or without its /v1. Without a model, the first that the server lists."""
        self.root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.root, headers=headers, timeout=120)
        listing = self.client.get("/v1/models")
        assert model or listing.status_code == 200, f"GET /v1/models: {listing.status_code} {listing.text[:500]}"
        cards = listing.json()["data"] if listing.status_code == 200 else []
        card = next((card for card in cards if model in (None, card["id"])), {})
        self.model: str = model or card["id"]
        self.ours = card.get("owned_by") == OWNER
        self.context = int(card.get("max_model_len") or os.environ.get("CONTEXT") or _UNKNOWN_CONTEXT)

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def body(self, kind: str, text: str, **fields: Any) -> dict[str, Any]:
        """A request body that asks for a continuation of, or an answer to, `text`."""
        asked = {"prompt": text} if kind == "completions" else {"messages": [{"role": "user", "content": text}]}
        return {"model": self.model, **asked, **fields}

    def post(self, path: str, body: Any) -> httpx.Response:
        """POST a JSON body, or the bytes of one."""
        if isinstance(body, bytes):
            return self.client.post(path, content=body, headers={"Content-Type": "application/json"})
        return self.client.post(path, json=body)

    def ask(self, kind: str, text: str = "Once upon a time", **fields: Any) -> dict[str, Any]:
        """An answer, which must come."""
        return self.ask_at(PATHS[kind], self.body(kind, text, **fields))

    def ask_at(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON that answers a body, with status 200."""
        response = self.post(path, body)
        assert response.status_code == 200, f"{response.status_code} {response.text[:500]}"
        return response.json()

    def complete(self, prompt: Any, **fields: Any) -> dict[str, Any]:
        """POST /v1/completions, for prompts of any form."""
        return self.ask_at(PATHS["completions"], {"model": self.model, "prompt": prompt, **fields})

    def chat(self, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """POST /v1/chat/completions, for messages of any form."""
        return self.ask_at(PATHS["chat"], {"model": self.model, "messages": messages, **fields})

    def stream(self, kind: str, text: str = "Once upon a time", **fields: Any) -> Stream:
        """A streamed answer, read to its end and checked for its framing."""
        return self.stream_at(PATHS[kind], self.body(kind, text, stream=True, **fields))

    def stream_at(self, path: str, body: dict[str, Any]) -> Stream:
        """The same for a body of any form."""
        with self.client.stream("POST", path, json=body) as response:
            text = response.read().decode("utf-8", "strict")
        assert response.status_code == 200, f"{response.status_code} {text[:500]}"
        return Stream(response.headers, *read_events(text))

    def refuse(
        self, path: str, body: Any, status: int = 400, *, param: str | None = None, code: str | None = None
    ) -> dict[str, Any]:
        """The error object of a request that must be refused."""
        return check_error(self.post(path, body), status, param=param, code=code)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; of a server that can't be asked for them, some ids or other."""
        if not self.ours:
            return _SOME_IDS[: max(2, min(len(text.split()), 5))]
        return self.ask_at("/tokenize", {"prompt": text})["tokens"]


def read_events(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The JSON of a stream's events, and its frames, DONE too where it came; comments are dropped."""
    frames = text.replace("\r\n", "\n").split("\n\n")
    assert frames.pop() == "", "the last frame ends with a blank line"
    frames = [frame for frame in frames if not all(line.startswith(":") for line in frame.split("\n"))]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    events = [json.loads(frame.removeprefix("data: ")) for frame in frames if frame != DONE]
    assert events
    return events, frames


def check_error(
    response: httpx.Response, status: int, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The error object, in the one shape; `param` may have more behind it: `messages` stands for `messages[0].role` too."""
    assert response.status_code == status, f"{response.status_code} {response.text[:500]}"
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert isinstance(body, dict), body
    assert set(body) == {"error"}, body
    error = body["error"]
    assert {"message", "type", "param", "code"} <= set(error), error
    assert isinstance(error["message"], str), error
    assert error["message"], error
    assert isinstance(error["type"], str), error
    assert error["param"] is None or isinstance(error["param"], str), error
    assert error["code"] is None or isinstance(error["code"], str), error
    assert "Traceback" not in error["message"]
    assert "site-packages" not in error["message"]
    if param is not None:
        assert str(error["param"]).split("[")[0].split(".")[0] == param, error
    if code is not None:
        assert error["code"] == code, error
    return error


@contextmanager
def serve_bundled(**settings: Any) -> Iterator[Api]:
    """Our own server with the bundled model, which wants KEY; ended, as it should end, behind the block."""
    from serving import Server  # not needed to ask another server

    server = Server({"model": MODEL, "max_slots": 8, "api_key": KEY, **settings}).wait_ready()
    try:
        with closing(Api("http://{}:{}".format(*server.address), KEY)) as api:
            yield api
    finally:
        code = server.stop(signal.SIGTERM)
    assert code == 0, server.log


def need(condition: object, reason: str) -> None:
    """Skip the test, with the reason shown, unless the server under test has what it needs."""
    if not condition:
        pytest.skip(reason)
