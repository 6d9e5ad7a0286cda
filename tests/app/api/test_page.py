"""The page's files: served as they are, to everybody, and nothing else with them."""

import contextlib
import http.client
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.api import page
from app.engine.client import EngineClient
from app.engine.messages import EngineSpec
from app.main import create_app
from app.settings import load_settings

ROOT = Path(__file__).parents[3]
FILES = sorted(path for path in page.FOLDER.rglob("*") if path.is_file())
KEY = "sk-page-1"


@pytest.fixture(scope="module")
def locked(make_server):
    """A server with a key. (It needs no engine: nothing here waits for one.)"""
    return make_server(api_key=KEY, max_slots=1)


@pytest.fixture
def client(locked):
    with locked.client() as client:
        yield client


def error_of(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert str(ROOT) not in response.text
    return error


def test_the_page_comes_without_a_key_and_the_api_does_not(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.lower().startswith("<!doctype html>")
    assert answer.content == (page.FOLDER / "index.html").read_bytes()
    for path in ("/v1/models", "/status", "/docs", "/openapi.json", "/metrics"):
        error_of(client.get(path), 401)
    error_of(client.post("/inspect", json={"text": "a"}), 401)


def test_every_file_is_served_as_it_is(client):
    assert {"index.html", "style.css", "app.js"} <= {path.name for path in FILES}
    for path in FILES:
        answer = client.get(f"/page/{path.relative_to(page.FOLDER).as_posix()}")
        assert answer.status_code == 200, path
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"] == page._TYPES[path.suffix]


def test_headers_that_keep_browsers_safe(client):
    for path in ("/", "/page/app.js", "/page/style.css"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-cache"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert not {"script-src", "style-src", "connect-src"} & set(policy)  # default-src stands for them
        assert policy["frame-ancestors"] == "'none'"


def test_what_a_browser_has_is_not_sent_again(client):
    for path in ("/", "/page/app.js"):
        first = client.get(path)
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = client.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b""), known
            assert again.headers["etag"] == tag
            assert "content-security-policy" in again.headers
        for known in ('"other"', tag.strip('"'), ""):
            assert client.get(path, headers={"if-none-match": known}).status_code == 200


def test_head_is_get_without_the_body_and_other_methods_are_refused(client):
    for path in ("/", "/page/style.css"):
        whole, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag"):
            assert head.headers[name] == whole.headers[name]
        answer = client.post(path, json={})
        error_of(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/page/", "/page/.", "/page/..", "/page/lib", "/page/lib/", "/page/lib//api.js", "/page//app.js", "/page/./app.js",
        "/page/lib/../app.js", "/page/../page.py", "/page/../../main.py", "/page/..%2f..%2fmain.py", "/page/%2e%2e/main.py",
        "/page/..\\main.py", "/page/%5c..%5cmain.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/app.js%00",
        "/page/app.js%00.html", "/page/app.js%0a", "/page/app.js/", "/page/app.js.", "/page/app.js%20", "/page/APP.JS",
        "/page/.hidden.js", "/page/app.js~", "/page/nothing.js", "/page/" + "a" * 3000 + ".js", "/page/" + "a/" * 500 + "b.js",
        "/page/%ff.js", "/page/%c0%ae%c0%ae/main.py", "/page/C:/x.js", "/page/con.js:x",
    ],
)  # fmt: skip
def test_no_path_leads_anywhere_else(locked, path):
    connection = http.client.HTTPConnection(*locked.address, timeout=30)  # others would tidy the path up first
    with contextlib.closing(connection):
        connection.putrequest("GET", path)
        connection.endheaders()
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"]) == (404, "not_found")
    assert str(ROOT) not in error["message"]


def test_a_changed_file_is_sent_anew_and_others_stay_inside(monkeypatch, tmp_path, model_dir, loop):
    folder, secret = tmp_path / "web", tmp_path / "secret.js"
    folder.mkdir()
    secret.write_text("secret")
    (folder / "link.js").symlink_to(secret)
    (folder / "notes.md").write_text("of no known kind")
    (folder / "index.html").write_text("one")
    monkeypatch.setattr(page, "FOLDER", folder)
    app = create_app(load_settings({"model": str(model_dir)}), EngineClient(EngineSpec(model=str(model_dir))))

    async def scenario():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            first = await client.get("/")
            (folder / "index.html").write_text("another")
            second = await client.get("/", headers={"if-none-match": first.headers["etag"]})
            assert [(r.status_code, r.text) for r in (first, second)] == [(200, "one"), (200, "another")]
            assert first.headers["etag"] != second.headers["etag"]
            for path in ("link.js", "notes.md", "../secret.js"):
                error_of(await client.get(f"/page/{path}"), 404)
            (folder / "index.html").unlink()
            assert "index.html" in error_of(await client.get("/"), 404)["message"]

    loop.run(scenario())


# -- the files by themselves


def text_of(suffix: str) -> dict[Path, str]:
    return {path: path.read_text("utf-8") for path in FILES if path.suffix == suffix}


def test_every_link_and_import_leads_to_a_file():
    """A name that is wrong would be found out by the reader of one tab."""
    links = [
        (page.FOLDER / "page", name)
        for name in re.findall(r'(?:src|href)="([^"#]+)"', (page.FOLDER / "index.html").read_text())
    ]
    named = re.compile(
        r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"']+)["']|new URL\(\s*["']([^"']+)["'],\s*import\.meta\.url"""
    )
    for path, text in text_of(".js").items():
        links += [(path, one or other) for one, other in named.findall(text)]
    for path, text in text_of(".css").items():
        links += [
            (path, name) for name in re.findall(r"""url\(["']?([^"')]+)["']?\)""", text) if not name.startswith("data:")
        ]
    assert len(links) > 10
    for path, name in links:
        found = (path.parent / name.removeprefix("page/") if path.name == "page" else path.parent / name).resolve()
        assert found in FILES, f"{path.relative_to(page.FOLDER)}: {name}"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere():
    """The policy forbids both, and a browser would say so on its console only."""
    index = (page.FOLDER / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", index)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", index))
    for path in FILES:
        if path.suffix not in (".html", ".css", ".js", ".svg"):
            continue
        text = path.read_text("utf-8")
        assert not re.search(r"""(?:src|href|from|import|url\(|fetch\()\s*[=(]?\s*["']?(?:https?:)?//""", text), path
        assert not re.search(
            r"\.(?:inner|outer)HTML\b|insertAdjacentHTML|document\.write|\beval\(|new Function\(", text
        ), path
        assert 'setAttribute("style"' not in text, path


@pytest.mark.slow
def test_a_wheel_carries_every_file(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    for path in FILES:
        assert (tmp_path / path.relative_to(ROOT)).is_file(), path
