"""A real Prometheus with our configuration, scraping a real server: its key, every panel's query, and the first alert."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nginx import free_port
from serving import Server, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing"),
]

KEY = "a-key-of-the-tests"
RATE = "20s"  # scrapes are a second apart here
MAY_BE_EMPTY = ("> 0", "ALERTS")  # what shows only troubles


class Prometheus:
    """Runs deploy/prometheus in a directory of its own, changed only in whom it asks and how often."""

    def __init__(self, deploy: Path, directory: Path, target: str) -> None:
        self.key = directory / "api-key"
        self.key.write_text(KEY)
        config = (deploy / "prometheus/prometheus.yml").read_text("utf-8")
        for there, here in (
            ("/run/homegrown/api-key", str(self.key)),
            ("homegrown-server:8000", target),
            ("_interval: 15s", "_interval: 1s"),
        ):
            assert there in config
            config = config.replace(there, here)
        (directory / "prometheus.yml").write_text(config)
        shutil.copytree(deploy / "prometheus/rules", directory / "rules")
        address = f"127.0.0.1:{free_port()}"
        self._log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=self._log,
        )
        self.api = httpx.Client(base_url=f"http://{address}", timeout=30)

    def get(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        answer = self.api.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ready(self) -> bool:
        """Whether it answers."""
        assert self.process.poll() is None, Path(self._log.name).read_text()
        try:
            return self.api.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def target(self) -> dict[str, Any]:
        """What it knows of our server; targets appear some seconds after its start."""
        found = [t for t in self.get("targets")["activeTargets"] if t["labels"]["job"] == "homegrown"]
        return found[0] if found else {"health": "unknown", "lastError": ""}

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self.api.close()
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(deploy: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    prometheus = Prometheus(deploy, tmp_path_factory.mktemp("prometheus"), "{}:{}".format(*server.address))
    try:
        wait_for(prometheus.ready, what="prometheus")
        yield prometheus
    finally:
        prometheus.stop()


def test_server_is_scraped_with_its_key(prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.target()["health"] == "up", what="a scrape")
    assert prometheus.get("query", query='up{job="homegrown"}')["result"][0]["value"][1] == "1"


def test_every_panel_has_something_to_show(prometheus: Prometheus, server: Server, dashboard: dict[str, Any]) -> None:
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    queries = [e.replace("$__rate_interval", RATE).replace("$instance", ".*") for e in expressions]
    empty = set(queries)

    def ask() -> None:
        with server.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
            body = {"prompt": "Hello, dear reader", "max_tokens": 8, "ignore_eos": True}
            assert client.post("/generate", json=body).status_code == 200

    def all_shown() -> bool:
        ask()
        for query in sorted(empty):
            found = prometheus.get("query", query=query)["result"]
            if any(sample["value"][1] != "NaN" for sample in found) or any(m in query for m in MAY_BE_EMPTY):
                empty.discard(query)
        return not empty

    for _ in range(60):
        if all_shown():
            break
        time.sleep(0.5)
    assert empty == set()


def test_wrong_key_is_noticed_and_a_new_one_taken(prometheus: Prometheus) -> None:
    """The file is read at each scrape. (The alert waits a minute before it fires: promtool tests that.)"""
    prometheus.key.write_text("an-old-key")
    wait_for(lambda: prometheus.target()["health"] == "down", what="a failed scrape")
    assert "401" in prometheus.target()["lastError"]
    wait_for(lambda: prometheus.get("alerts")["alerts"], what="an alert")
    (alert,) = prometheus.get("alerts")["alerts"]
    assert (alert["labels"]["alertname"], alert["state"]) == ("HomegrownDown", "pending")
    prometheus.key.write_text("another-key")
    wait_for(lambda: prometheus.target()["health"] == "up", what="a scrape")
    wait_for(lambda: not prometheus.get("alerts")["alerts"], what="no alert")
