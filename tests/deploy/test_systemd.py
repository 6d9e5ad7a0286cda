"""The systemd unit: systemd's own opinion of it where systemd is, and that it fits the server's settings."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import ENV_PREFIX, Settings, load_settings

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")


@pytest.fixture
def unit(deploy: Path) -> str:
    return (deploy / "systemd/homegrown.service").read_text("utf-8")


@pytest.fixture
def environment(deploy: Path) -> str:
    return (deploy / "systemd/homegrown.env").read_text("utf-8")


def assigned(text: str, name: str) -> str:
    values = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    assert values, name
    return values[-1]


def runnable(unit: str, tmp_path: Path) -> Path:
    """The unit with a program that is here in place of the installed one."""
    path = tmp_path / "homegrown.service"
    path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit, flags=re.MULTILINE))
    return path


@needs_systemd
def test_systemd_accepts_the_unit(unit: str, deploy: Path, tmp_path: Path) -> None:
    path = runnable(unit, tmp_path)
    drop_in = tmp_path / "homegrown.service.d"
    drop_in.mkdir()
    shutil.copy(deploy / "systemd/gpu.conf", drop_in)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "homegrown.service" not in done.stderr, done.stderr  # a directive that it doesn't know is only warned of


@needs_systemd
def test_systemd_finds_little_to_attack(unit: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=20",
            "--no-pager",
            str(runnable(unit, tmp_path)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr  # an exposure of 2.0 of 10 at most


def test_environment_is_of_settings(environment: str) -> None:
    lines = [line.lstrip("#") for line in environment.splitlines() if re.match(rf"#?{ENV_PREFIX}", line)]
    given = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in (line.split("=", 1) for line in lines)}
    assert len(given) == len(lines) > 8
    assert set(given) <= set(Settings.model_fields)
    assert load_settings(given).locked


def test_drain_ends_before_systemd_loses_patience(unit: str, environment: str) -> None:
    drain = float(assigned(environment, "HOMEGROWN_DRAIN_TIMEOUT"))
    assert drain + 5 <= int(assigned(unit, "TimeoutStopSec"))
    # SIGTERM to the server alone; an engine killed for its memory is the server's matter.
    assert assigned(unit, "KillMode") == "mixed"
    assert assigned(unit, "OOMPolicy") == "continue"


def test_service_may_write_where_it_must(unit: str, environment: str) -> None:
    state = f"/var/lib/{assigned(unit, 'StateDirectory')}"
    assert f"HOMEGROWN_MODELS={state}/" in assigned(unit, "Environment")
    assert assigned(environment, "#HOMEGROWN_ADAPTERS_DIR").startswith(state)
    assert assigned(unit, "ProtectSystem") == "strict"
    assert assigned(unit, "EnvironmentFile") == "/etc/homegrown/homegrown.env"
