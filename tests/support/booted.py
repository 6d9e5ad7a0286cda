"""A machine that systemd has booted: a container of systemd-nspawn over this machine's own files, none of which it can change."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from serving import wait_for

_NEEDED = ("systemd-nspawn", "systemctl", "unshare", "nsenter", "findmnt", "curl", "openssl")


def why_not() -> str | None:
    """Why there can't be one here; None when there can."""
    if os.geteuid() != 0:
        return "booting a container needs root"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    return f"{', '.join(missing)} is missing" if missing else None


def _cgroups() -> set[Path]:
    """Those that nspawn makes below this process's own, and leaves behind."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text("ascii").splitlines())
    places = {own.lstrip("/") for _, name, own in lines if name in ("", "name=systemd")}
    found = (
        Path("/sys/fs/cgroup", top, place, name)
        for top in ("", "unified", "systemd")
        for place in places
        for name in ("payload", "supervisor")
    )
    return {path for path in found if path.is_dir()}


class Machine:
    """It has a network of its own (the loopback interface alone), and `source` lies at /opt/homegrown."""

    def __init__(self, directory: Path, source: Path) -> None:
        root = directory / "root"
        root.mkdir()
        self._log = (directory / "console").open("w")
        self._cgroups = _cgroups()
        # nspawn refuses / itself; bound to another place, in a mount namespace that ends with it, / may be.
        start = 'mount --bind / "$0" && exec systemd-nspawn -D "$0" "$@"'
        options = (
            "--volatile=overlay", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            "--link-journal=no", f"--bind-ro={source}:/opt/homegrown", f"--bind-ro={source}",
        )  # fmt: skip
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", start, str(root), *options, "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def console(self) -> str:
        """What it wrote while it booted."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def _leader(self) -> str:
        """The process id of its systemd; empty while there is none."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True
        ).stdout.split()
        return found[0] if found else ""

    def command(self, *words: str) -> list[str]:
        """What runs `words` inside."""
        return ["nsenter", "-t", self._leader(), "--mount", "--pid", "--uts", "--ipc", "--net", "--", *words]

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command inside; what it wrote."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def boot(self, within: float = 60) -> bool:
        """Wait until systemd has started everything; whether it did."""

        def state() -> str:
            if self._process.poll() is not None:
                return "ended"
            up = self._leader() and self.run("systemctl", "is-system-running", check=False).strip()
            return up if up in ("running", "degraded") else ""

        return wait_for(state, within, what="systemd in a container") != "ended"

    def stop(self) -> None:
        """End it; nothing of it stays."""
        leader = self._leader()
        if leader:
            subprocess.run(["kill", "-KILL", leader])
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        for cgroup in _cgroups() - self._cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                with contextlib.suppress(OSError):  # a process that has not ended yet holds it
                    Path(folder).rmdir()
