"""The one error shape: {"error": {"message", "type", "param", "code"}}, for everything that can go wrong."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.engine.messages import EngineUnavailable, GrammarError, InvalidRequest, QueueFull, RequestFault, RequestTimeout
from model.errors import ContextLengthError, SamplingError

CLIENT_GONE = 499  # nginx's number for a client that left: logged and counted, for nobody is there to see it
_LONGEST_MESSAGE, _LONGEST_PARAM = 500, 200
_UNION_MEMBER = re.compile(r"str|int|float|bool|\w+\[.*\]")

logger = logging.getLogger(__name__)


class ApiError(HTTPException):
    """An answer other than success. `extra` are further members of the error object; `headers` of the response.

    An HTTPException, since the framework turns anything else that comes up while it reads a body into a 400.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        message = message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
        param = param if param is None else param[:_LONGEST_PARAM]  # it may hold a key that the client made up
        self.body = {"message": message, "type": kind, "param": param, "code": code, **(extra or {})}

    def encode(self) -> bytes:
        """The JSON body."""
        return msgspec.json.encode({"error": self.body})

    def response(self) -> Response:
        """The whole response."""
        return _ErrorResponse(self)


class _ErrorResponse(Response):
    """Leaves the error's code in the request's state, where the outermost middleware finds it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.encode(), error.status_code, error.headers, media_type="application/json")
        self._code = error.body["code"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error"] = self._code
        await super().__call__(scope, receive, send)


_UNAVAILABLE = {
    "model_loading": "The model is still loading; try again in a moment.",
    "shutting_down": "The server is shutting down.",
    "engine_dead": "The engine has stopped and is being restarted; try again in a moment.",
}


def unavailable(reason: str) -> ApiError:
    """503: nobody is served now. `reason`: model_loading, shutting_down or engine_dead. (Its Retry-After comes from the
    outermost middleware.)"""
    return ApiError(503, _UNAVAILABLE[reason], kind="server_error", code=reason)


def invalid(message: str, param: str | None, code: str | None = "invalid_value") -> ApiError:
    """400: a field that can't be accepted."""
    return ApiError(400, message, param=param, code=code)


def internal_error(request_id: str) -> ApiError:
    """500: our fault. Says nothing but where to look it up."""
    message = f"The server had an error while answering; its log has more under request id {request_id}."
    return ApiError(500, message, kind="server_error")


def to_api_error(error: BaseException, request_id: str) -> ApiError:
    """The answer that `error` deserves; errors that nobody expected are logged and become a 500."""
    match error:
        case ApiError():
            return error
        case ContextLengthError():
            counts = {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
            param = "prompt" if error.n_prompt_tokens >= error.n_ctx else "max_tokens"
            return ApiError(400, str(error), code="context_length_exceeded", param=param, extra=counts)
        case GrammarError():  # no request names a grammar: this is the field that it comes from
            return invalid(f"response_format: {error}", "response_format")
        case SamplingError() | InvalidRequest():  # requests call an adapter by the field `model`
            return invalid(str(error), "model" if error.param == "adapter" else error.param)
        case QueueFull():
            return ApiError(429, str(error), kind="rate_limit_error", code="queue_full")
        case EngineUnavailable():
            return unavailable(error.reason)
        case RequestTimeout():
            return ApiError(504, str(error), kind="server_error", code="timeout")
        case RequestFault():
            logger.error("a request failed: %s", error, exc_info=error, extra={"request_id": request_id})
        case _:
            logger.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    return internal_error(request_id)


def from_validation(errors: Sequence[Any]) -> ApiError:
    """400 for what pydantic found wrong: the first mistake in full, the others as a number."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {first.get('ctx', {}).get('error', 'it does not parse')}.")
    context = first.get("ctx") or {}
    path = _field_path(first["loc"])
    param = f"{path}.{context['param']}" if path and "param" in context else context.get("param", path)
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    if first["type"] == "model_type":  # pydantic names the class
        message = "Input should be a JSON object"
    if param is None:
        message = "The body must be a JSON object" if first["type"] != "missing" else "The body is missing"
    elif path is not None:
        message = f"{path}: {message}"
    others = len(errors) - 1
    more = f" ({others} more mistake{'s' * (others > 1)}.)" if others else ""
    code = "unsupported_parameter" if first["type"] == "unsupported_parameter" else "invalid_value"
    return ApiError(400, f"{message}.{more}", param=param, code=code)


def _field_path(loc: Sequence[str | int]) -> str | None:
    """`messages[0].content`, say. The names of a union's members, which pydantic puts in too, are nobody's business."""
    path = ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not _UNION_MEMBER.fullmatch(part):
            path += f".{part}" if path else part
    return path or None


_BY_STATUS = {
    404: ("not_found", "There is no such route: {method} {path}"),
    405: ("method_not_allowed", "{method} is not allowed here."),
}


def from_http_exception(request: Request, error: HTTPException) -> ApiError:
    """What the framework raises by itself: unknown routes, wrong methods, bodies that can't be parsed."""
    code, text = _BY_STATUS.get(error.status_code, (None, str(error.detail)))
    text = text.format(method=request.method, path=request.url.path[:200]) if code else text
    headers = {"Allow": _allowed_methods(request)} if error.status_code == 405 else error.headers
    return ApiError(error.status_code, text, code=code, headers=headers)


def _allowed_methods(request: Request) -> str:
    """What the path takes, whichever of its routes it is. (The framework names only the first one's.)"""
    scopes = {
        method: {**request.scope, "method": method} for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    }
    routes = request.app.routes
    return ", ".join(m for m, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes))


def install_handlers(app: FastAPI) -> None:
    """Make every error that a route raises leave in the one shape. Unexpected ones are the outermost middleware's."""

    async def on_known(request: Request, error: Exception) -> Response:
        return to_api_error(error, request.state.request_id).response()

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return from_validation(error.errors()).response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return from_http_exception(request, error).response()

    refused = (ApiError, ContextLengthError, SamplingError, InvalidRequest)
    for kind in (*refused, QueueFull, EngineUnavailable, RequestTimeout, RequestFault):
        app.add_exception_handler(kind, on_known)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
