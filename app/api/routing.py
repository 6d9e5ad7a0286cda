"""How routes read their bodies, and what the OpenAPI page says of their errors."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.http.errors import ApiError
from app.schemas.common import ErrorResponse
from app.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "Malformed JSON, a field of the wrong type or range, or more tokens than the context has.",
        401: "No API key, or a wrong one.",
        404: "Unknown model.",
        408: "The body came too slowly.",
        413: "The body is over the limit.",
        415: "The body is not JSON.",
        429: "The queue is full; see Retry-After.",
        500: "The server's fault.",
        503: "Loading, shutting down, or the engine has stopped; see Retry-After.",
        504: "The request waited, or ran, for too long.",
    }.items()
}

# Of a route that streams when it is asked to: success has two content types.
_EVENT = {
    "type": "object",
    "description": "One server-sent event.",
    "properties": {"data": {"type": "string", "description": "A piece of the answer as JSON, an error, or [DONE]."}},
    "required": ["data"],
}
STREAMED: dict[int | str, dict[str, Any]] = ERRORS | {
    200: {"description": "The answer.", "content": {"text/event-stream": {"schema": _EVENT}}}
}


class JSONRoute(APIRoute):
    """A route whose body must be declared as JSON: 415 otherwise, before the body is looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler behind that check."""
        handler = super().get_route_handler()

        async def checked(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
                raise ApiError(415, "Send JSON, with 'Content-Type: application/json'.", code="unsupported_media_type")
            return await handler(_UTF8Request(request.scope, request.receive))

        return checked if self.body_field is not None else handler


class _UTF8Request(Request):
    """A request whose JSON is UTF-8: the standard library would also take other encodings that it guesses."""

    async def json(self) -> Any:
        """The body. JSONDecodeError, or ApiError 400 with what else is wrong with it."""
        try:
            return json.loads(str(await self.body(), "utf-8-sig"))
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError:
            why = "it is not UTF-8 text"
        except RecursionError:
            why = "it is nested too deeply"
        except ValueError:  # Python's limit
            why = "a number in it has too many digits"
        raise ApiError(400, f"The body is not valid JSON: {why}.")


def get_service(request: Request) -> Service:
    """The app's Service."""
    return request.app.state.service
