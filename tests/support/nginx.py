"""nginx from the system's packages around a site's file, on free ports and in a directory of its own."""

import os
import re
import socket
import subprocess
from pathlib import Path

from serving import wait_for

_AROUND = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {site};
}}
"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _with_tls(text: str, port: int, tls: tuple[Path, Path]) -> str:
    """The site with what it has in comments: TLS, the redirection of port 80, and limits."""
    text = text.replace("    listen 80;\n    listen [::]:80;\n", "", 1)
    directives = "listen|ssl_\\w+|add_header|limit_req\\w*|error_page|server_name|return"
    text = re.sub(rf"^( *)# ( *)({directives}) ([^;]+;)$", r"\1\2\3 \4", text, flags=re.MULTILINE)
    text = re.sub(r"^# (server \{|\})$", r"\1", text, flags=re.MULTILINE)
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;", 1)
    for name, path in zip(("fullchain", "privkey"), tls, strict=True):
        text = text.replace(f"/etc/letsencrypt/live/homegrown.example.com/{name}.pem", str(path))
    return text


def _with_second(text: str, second: tuple[str, int]) -> str:
    """The site with what it has in comments for a second server."""
    text, found = re.subn(r"# (least_conn;)", r"\1", text)
    text, servers = re.subn(r"# server 10\.0\.0\.2:8000;", "server {}:{};".format(*second), text)
    assert (found, servers) == (1, 1)
    return text


class Nginx:
    """Runs `site` before `upstream`, changed only in where they listen; with `tls` (certificate, key) its commented parts for TLS
    and limits count too, with `second` those for another server."""

    def __init__(
        self,
        site: Path,
        directory: Path,
        upstream: tuple[str, int],
        tls: tuple[Path, Path] | None = None,
        second: tuple[str, int] | None = None,
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        text = site.read_text("utf-8")
        if tls is not None:
            text = _with_tls(text, self.tls_port, tls)
        if second is not None:
            text = _with_second(text, second)
        text, servers = re.subn(r"server 127\.0\.0\.1:8000;", "server {}:{};".format(*upstream), text)
        text, listeners = re.subn(r"^    listen 80;$", f"    listen 127.0.0.1:{self.port};", text, flags=re.MULTILINE)
        assert (servers, listeners) == (1, 1)
        text = re.sub(r"^    listen \[::\]:(80|443 ssl);$", "", text, flags=re.MULTILINE)
        (directory / "site.conf").write_text(text)
        user = "user root;" if os.geteuid() == 0 else ""  # the workers must be able to write into the test's directory
        config = directory / "nginx.conf"
        config.write_text(_AROUND.format(user=user, directory=directory, site=directory / "site.conf"))
        self.directory = directory
        self._process = subprocess.Popen(
            ["nginx", "-e", str(directory / "error.log"), "-p", str(directory), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self._listens() or self._process.poll() is not None, what="nginx")
        assert self._process.poll() is None, self.log

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Its log of errors."""
        path = self.directory / "error.log"
        return path.read_text("utf-8") if path.exists() else ""

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
