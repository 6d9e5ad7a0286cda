"""The files of deploy/ as data, and a real server that they are held against."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from serving import Server

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder itself."""
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


@pytest.fixture(scope="session")
def alerts(deploy: Path) -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((deploy / "prometheus/rules").glob("*.yml"))]
    return {rule["alert"]: rule for file in files for group in file["groups"] for rule in group["rules"]}


@pytest.fixture(scope="session")
def dashboard(deploy: Path) -> dict[str, Any]:
    """Grafana's dashboard."""
    return json.loads((deploy / "grafana/dashboards/homegrown.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def guide(deploy: Path) -> str:
    """The operating guide."""
    return (deploy / "README.md").read_text("utf-8")


@pytest.fixture(scope="session")
def server(tiny_llama_dir: Path) -> Iterator[Server]:
    """A server with one API key, that has answered once."""
    server = Server({"model": str(tiny_llama_dir), "max_slots": 4, "api_key": f"{KEY},another-key"}).wait_ready()
    with server.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        body = {"prompt": "Hello", "max_tokens": 4, "ignore_eos": True}
        assert client.post("/generate", json=body).status_code == 200
    yield server
    server.stop()


@pytest.fixture(scope="session")
def exposed(server: Server) -> dict[str, list[dict[str, str]]]:
    """What /metrics of a live server shows: the labels of every sample, by the sample's name."""
    with server.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        families: list[Metric] = list(text_string_to_metric_families(client.get("/metrics").text))
    found: dict[str, list[dict[str, str]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, []).append(dict(sample.labels))
    return found
