"""GET / and /page/...: the page for people. Static files of app/web, open without a key; what they ask needs it."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.errors import ApiError

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).resolve().parents[1] / "web"
_NAME = re.compile(
    r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
)  # of a file or folder: nothing hidden, nothing that could climb
_LONGEST_PATH = 200  # a file system has its own limits, and errors for them

# Only files of these kinds are served, whatever else may lie there.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}

# All code and style comes from files of this server: a text that a model wrote can't become either.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # a browser keeps it and asks whether it has changed: pages of two versions don't mix
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
async def file(request: Request) -> Response:
    """A file of it."""
    # (Not the router's own parameter: that loses a line break at the end.)
    return _answer(request, request.scope["path"].removeprefix("/page/"))


def _answer(request: Request, path: str) -> Response:
    found = _find(path)
    if found is None:
        raise ApiError(404, f"The page has no file {path[:200]!r}.", code="not_found")
    facts = found.stat()
    content, tag = _read(found, facts.st_mtime_ns, facts.st_size)
    headers = {**_HEADERS, "ETag": tag}
    if _has_it(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": _TYPES[found.suffix]})


def _find(path: str) -> Path | None:
    """The file that a path from outside means, if it is one of the page's."""
    if len(path) > _LONGEST_PATH or not all(_NAME.fullmatch(part) for part in path.split("/")):
        return None
    found = FOLDER / path
    if found.suffix not in _TYPES or not found.is_file():
        return None
    return found if found.resolve().is_relative_to(FOLDER.resolve()) else None  # a link may lead elsewhere


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> tuple[bytes, str]:  # noqa: ARG001
    """Content and ETag of a file that was last changed then: read once, and again when it changes."""
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _has_it(known: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names the tag (RFC 9110, 13.1.2: compared weakly)."""
    if known is None:
        return False
    return known.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in known.split(","))
