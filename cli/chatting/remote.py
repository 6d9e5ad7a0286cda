"""Answers from a running server: this project's, or any with OpenAI's API."""

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from http.client import HTTPException
from typing import Any

from cli.chatting.backends import Ended, Sampling, TooLong
from cli.chatting.conversation import Message
from cli.screen import whole
from model.errors import ConfigError, HomegrownError

_LOOK_SECONDS = 10  # for what a server has at hand
_ANSWER_SECONDS = 300  # without a byte: a request may wait in the queue
_FAILURES = (OSError, HTTPException)


class RemoteBackend:
    """A server at a URL, with or without /v1 at its end."""

    def __init__(self, url: str, model: str | None, key: str | None) -> None:
        """Asks the server which models it has. HomegrownError when it can't be reached, wants a key, or has no such model."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url: {url} is no address of a server; write it as http://127.0.0.1:8000")
        self._base = url.rstrip("/").removesuffix("/v1") + "/v1"
        # HOMEGROWN_API_KEY may hold several keys, as the server takes them.
        self._key = key.partition(",")[0].strip() if key else None
        self._chosen: str | None = None  # the server's own choice
        names = self.names()
        if not names:
            raise HomegrownError(f"{self._base}: has no model that generates")
        self._first = names[0]
        if model is not None:
            self.use(model)

    @property
    def model(self) -> str:
        """The name that requests give; before one is chosen, what the last answer said, or the first of the list."""
        return self._chosen or self._first

    def names(self) -> list[str]:
        """Those on the server that generate."""
        with self._request("GET", "/models", None, _LOOK_SECONDS) as response:
            try:
                models = json.load(response)["data"]
                return [model["id"] for model in models if model.get("task", "generate") == "generate"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise HomegrownError(
                    f"{self._base}: doesn't answer as a server of models does; is it the right address?"
                ) from None

    def use(self, name: str) -> None:
        """One of `names`."""
        names = self.names()
        if name not in names:
            raise HomegrownError(f"{self._base}: has no model {name!r} that generates; it has {', '.join(names)}")
        self._chosen = name

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str | Ended]:
        """See Backend."""
        fields = {
            "model": self._chosen,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        body = {name: value for name, value in fields.items() if value is not None}
        reason, usage = None, {}
        with contextlib.closing(self._request("POST", "/chat/completions", body, _ANSWER_SECONDS)) as response:
            for chunk in self._events(response):
                if chunk.get("error"):
                    raise HomegrownError(str(chunk["error"].get("message") or chunk["error"]))
                self._first = chunk.get("model") or self._first
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or ():
                    if text := (choice.get("delta") or {}).get("content"):
                        yield whole(text)
                    reason = choice.get("finish_reason") or reason
        if reason is None:
            raise HomegrownError(f"{self._base}: the answer broke off; ask again")
        yield Ended(reason, usage.get("prompt_tokens"), usage.get("completion_tokens"))

    def close(self) -> None:
        """Each answer has closed its connection."""

    def _events(self, response: Any) -> Iterator[dict[str, Any]]:
        """The JSON of each server-sent event, up to the end."""
        try:
            for line in response:
                text = line.decode("utf-8", "replace").strip()
                if text == "data: [DONE]":
                    return
                if text.startswith("data:"):
                    yield json.loads(text.removeprefix("data:"))
        except _FAILURES as error:
            raise HomegrownError(f"{self._base}: the connection broke ({_said(error)}); ask again") from None
        except ValueError:
            raise HomegrownError(f"{self._base}: sent an event that is no JSON; is it the right address?") from None

    def _request(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> Any:
        """The response to a request, to be closed. HomegrownError says why there is none."""
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": "homegrown"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (*_FAILURES, UnicodeError) as error:  # a key or an address that no header holds is a UnicodeError
            raise HomegrownError(
                f"{self._base}: can't be reached ({_said(error)}); is the server running? homegrown serve starts one"
            ) from None

    def _refusal(self, error: urllib.error.HTTPError) -> HomegrownError:
        """The server's refusal in its own words."""
        try:
            told = json.loads(error.read())["error"]
            message, code = str(told["message"]), told.get("code")
        except (*_FAILURES, ValueError, KeyError, TypeError, AttributeError):
            message, code = f"status {error.code} {error.reason}", None
        if error.code == 401:
            given = "the key that was given is wrong" if self._key else "the server wants a key"
            return HomegrownError(f"{self._base}: {given}; give one by --api-key or HOMEGROWN_API_KEY ({message})")
        return TooLong(message) if code == "context_length_exceeded" else HomegrownError(message)


def _said(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
