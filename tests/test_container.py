"""What goes into the container: every package, and nothing that the ignore file forgot."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_let_in() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = [name.removesuffix("*") for name in settings["tool"]["setuptools"]["packages"]["find"]["include"]]
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert {*packages, "pyproject.toml", "checkpoints"} <= let_in
    assert all((ROOT / name).exists() for name in let_in)
    compiled = next(line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if "compileall" in line)
    assert set(packages) <= set(compiled.split())
