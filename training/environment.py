"""Where and how a run was made, for its report and its model card: enough to make it again."""

import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from training.devices import describe_device

_ROOT = Path(__file__).resolve().parents[1]
_ABSOLUTE = re.compile(r"""(?:^|(?<=[=:,"'\[]))(?:~|/)[^=,"'\]]*""")  # alone, or within NAME=PATH


def environment(device: torch.device | str) -> dict[str, str]:
    """What a run depends on beyond its settings: command, versions, system, device and, in a checkout, the commit."""
    found = {
        "command": command(),
        "homegrown": _version(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": describe_device(device),
    }
    if torch.device(device).type == "cuda":
        found["CUDA"] = str(torch.version.cuda or torch.version.hip)
    if (commit := git_commit(_ROOT)) is not None:
        found["commit"] = commit
    return found


def command() -> str:
    """The command line that this process was started with, fit for a shell. Of paths that begin at the root or at a home, the
    last two parts: it stands in cards that are published, and what is before them says nothing to others."""
    program = Path(sys.argv[0])
    name = "homegrown" if program.name == "__main__.py" and program.parent.name == "cli" else program.name
    return shlex.join([name, *(_ABSOLUTE.sub(_ending, argument) for argument in sys.argv[1:])])


def _ending(path: re.Match[str]) -> str:
    return "/".join([part for part in path[0].split("/") if part][-2:])


def git_commit(root: Path) -> str | None:
    """The commit that `root` is a checkout of, with a word when files differ from it; None where it is none, or there is no
    git."""
    if not (root / ".git").exists():  # an installed package may lie in someone else's checkout
        return None
    try:
        commit, changed = (
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + (", with changes" if changed.stdout.strip() else "")


def _version() -> str:
    try:
        return metadata.version("homegrown")
    except metadata.PackageNotFoundError:
        return "not installed"
