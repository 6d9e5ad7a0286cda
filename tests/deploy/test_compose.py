"""docker-compose.yml: what its services are told, and that they fit each other."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import ENV_PREFIX, load_settings

ROOT = Path(__file__).parents[2]
SERVERS = ("homegrown", "homegrown-cpu")
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert match, text
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def value(text: str) -> str:
    """A value as it is where nothing is set: ${NAME:-default}."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def has_compose() -> bool:
    return bool(shutil.which(COMPOSE[0])) and not subprocess.run([*COMPOSE, "version"], capture_output=True).returncode


@pytest.mark.parametrize("profiles", ["gpu,monitoring", "cpu"])
def test_compose_accepts_every_profile(profiles: str) -> None:
    if not has_compose():
        pytest.skip("docker-compose is missing")
    environment = {**os.environ, "COMPOSE_PROFILES": profiles}
    done = subprocess.run(
        [*COMPOSE, "-f", str(ROOT / "docker-compose.yml"), "config"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert set(profiles.split(",")) <= {
        profile for service in yaml.safe_load(done.stdout)["services"].values() for profile in service["profiles"]
    }


@pytest.mark.parametrize("name", SERVERS)
def test_servers_settings_exist(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    given = {
        key.removeprefix(ENV_PREFIX).lower(): value(text) for key, text in service["environment"].items() if value(text)
    }
    settings = load_settings(given)
    assert settings.drain_timeout + 5 <= seconds(service["stop_grace_period"])


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_every_service_gives_up_its_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["profiles"], name


def test_prometheus_reaches_either_server(compose: dict[str, Any], deploy: Path) -> None:
    config = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text("utf-8"))
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "homegrown")
    host, port = job["static_configs"][0]["targets"][0].split(":")
    for name in SERVERS:
        server = compose["services"][name]
        assert host in server["networks"]["default"]["aliases"]
        assert value(server["ports"][0]).endswith(f":{port}")


@pytest.mark.parametrize(("keys", "first"), [("", ""), ("one-key", "one-key"), ("one-key,two-key", "one-key")])
def test_prometheus_gets_the_servers_key(
    compose: dict[str, Any], deploy: Path, tmp_path: Path, keys: str, first: str
) -> None:
    """The container's own command, with a stand-in for the program that it starts."""
    service = compose["services"]["prometheus"]
    config = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text("utf-8"))
    file = Path(config["scrape_configs"][0]["authorization"]["credentials_file"])
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == [str(file.parent)]
    stand_in = tmp_path / "prometheus"
    stand_in.write_text('#!/bin/sh\nfor argument; do echo "$argument"; done\n')
    stand_in.chmod(0o755)
    script = service["command"][0].replace("$$", "$").replace(str(file), str(tmp_path / "api-key"))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOMEGROWN_API_KEY": keys}
    done = subprocess.run([*service["entrypoint"], script], capture_output=True, text=True, env=environment, check=True)
    assert (tmp_path / "api-key").read_text() == first
    flags = dict(line.split("=") for line in done.stdout.splitlines())
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    assert Path(flags["--config.file"]).parent == Path(mounts["./deploy/prometheus"])
    assert flags["--storage.tsdb.path"] == mounts["prometheus"]


def test_every_mounted_file_is_there(compose: dict[str, Any]) -> None:
    sources = [volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]]
    for source in sources:
        assert (ROOT / source).is_dir() if source.startswith("./") else source in compose["volumes"], source
