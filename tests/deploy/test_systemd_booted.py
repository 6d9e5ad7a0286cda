"""The unit under a systemd that runs: set up with the guide's own commands, confined as it says, drained when it stops."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import Machine, why_not
from serving import wait_for

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:8000"
BODY = {"model": "homegrown-base", "prompt": "Once", "max_tokens": 400, "n": 30, "stream": True, "ignore_eos": True}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.skipif(not (ROOT / ".venv/bin/homegrown").exists(), reason="the checkout has no .venv of its own"),
]


def commands(guide: str) -> list[str]:
    """The commands of the section "systemd", but for those that fetch and install, which is done here."""
    block = re.search(r"^## systemd\n\n```sh\n(.*?)```", guide, re.DOTALL | re.MULTILINE)
    assert block
    return [
        line.replace("sudo ", "")
        for line in block[1].splitlines()
        if " git clone " not in line and " make " not in line
    ]


@pytest.fixture(scope="module")
def machine(guide: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"), ROOT)
    try:
        if not machine.boot():
            pytest.skip(f"systemd does not boot in a container here: {machine.console[-300:]}")
        # This checkout's Python may lie where the unit rightly forbids to look.
        drop_in = f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={sys.base_prefix} {ROOT}\n"
        machine.run("mkdir", "-p", "/etc/systemd/system/homegrown.service.d")
        machine.run("sh", "-c", f"printf '%s' '{drop_in}' > /etc/systemd/system/homegrown.service.d/tests.conf")
        *steps, ask = commands(guide)
        assert len(steps) == 6
        for step in steps:
            machine.run("sh", "-ec", f"cd /opt/homegrown; {step}")
        wait_for(lambda: '"ready"' in machine.run("sh", "-c", ask, check=False), what="the service")
        yield machine
    finally:
        machine.stop()


def ask(machine: Machine, path: str, key: str, *more: str) -> str:
    """A request from inside: the body, then the status on a line of its own."""
    return machine.run(
        "curl", "-s", "-w", "\\n%{http_code}", "-H", f"Authorization: Bearer {key}", *more, f"{URL}{path}", check=False
    )


def key_of(machine: Machine) -> str:
    return machine.run("head", "-n", "1", "/etc/homegrown/keys.txt").strip()


def test_it_answers_who_has_the_key(machine: Machine) -> None:
    assert len(key_of(machine)) == 64
    answer = ask(machine, "/generate", key_of(machine), "--json", '{"prompt": "Once", "max_tokens": 4}')
    assert answer.endswith("\n200"), answer
    assert ask(machine, "/version", "a-wrong-key").endswith("\n401")


def test_it_is_confined(machine: Machine) -> None:
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "homegrown").strip()
    status = dict(
        line.split(":\t", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert status["Uid"].split()[0] != "0"
    inside = ("nsenter", "-t", pid, "--mount", "--", "findmnt", "-n", "-o", "OPTIONS", "-T")
    assert "ro" in machine.run(*inside, "/etc").strip().split(",")
    assert "rw" in machine.run(*inside, "/var/lib/homegrown").strip().split(",")


def test_keys_are_read_again(machine: Machine) -> None:
    old = key_of(machine)
    machine.run("sh", "-c", f"printf 'a-new-key\\n{old}\\n' > /etc/homegrown/keys.txt")
    machine.run("systemctl", "reload", "homegrown")
    wait_for(lambda: ask(machine, "/version", "a-new-key").endswith("\n200"), what="the new key")
    assert ask(machine, "/version", old).endswith("\n200")


def test_engine_that_is_killed_comes_back_in_the_same_service(machine: Machine) -> None:
    engine = machine.run("pgrep", "-f", "app.engine.worker").split()[0]
    machine.run("kill", "-KILL", engine)
    wait_for(lambda: ask(machine, "/ready", "").endswith("\n503"), what="the engine's end")
    wait_for(lambda: ask(machine, "/ready", "").endswith("\n200"), what="a new engine")
    shown = machine.run("systemctl", "show", "-p", "NRestarts,ActiveState", "homegrown").split()
    assert sorted(shown) == ["ActiveState=active", "NRestarts=0"]


def test_stop_lets_a_stream_end(machine: Machine) -> None:
    words = ("curl", "-sN", "-H", f"Authorization: Bearer {key_of(machine)}", "--json", json.dumps(BODY))
    with subprocess.Popen(
        machine.command(*words, f"{URL}/v1/completions"), stdout=subprocess.PIPE, text=True
    ) as stream:
        assert stream.stdout is not None
        assert stream.stdout.readline().startswith("data: {")
        machine.run("systemctl", "stop", "homegrown")
        lines = [line for line in stream.stdout.read().split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    reasons = [choice["finish_reason"] for line in lines[:-1] for choice in json.loads(line[6:])["choices"]]
    assert reasons.count("length") == BODY["n"]
    shown = machine.run("systemctl", "show", "-p", "Result,ExecMainStatus,ActiveState", "homegrown").split()
    assert sorted(shown) == ["ActiveState=inactive", "ExecMainStatus=0", "Result=success"]
    assert "1 requests may run" in machine.run("journalctl", "-u", "homegrown", "-o", "cat", "--no-pager")
