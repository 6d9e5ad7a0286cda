"""Which web pages may call this server."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from app.http.errors import ApiError


class Cors(CORSMiddleware):
    """Starlette's, with refusals in the one error shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks before it sends a page's request."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        why = bytes(response.body).decode().removeprefix("Disallowed CORS ")
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        message = f"Web pages may not ask for this: the {why} is not allowed. The setting cors_origins names the pages that may."
        return ApiError(400, message, headers=headers).response()
