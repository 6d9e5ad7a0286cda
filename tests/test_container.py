"""What goes into the container: every package, and nothing that the ignore file forgot."""

import tomllib
from fnmatch import fnmatch
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


def test_models_are_let_in_with_all_that_they_carry() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept_out = [line for line in lines[1:] if not line.startswith("!")]
    assert all(line.startswith("**/") for line in kept_out)  # so that each is the pattern of one name
    files = [path.relative_to(ROOT) for path in (ROOT / "checkpoints").rglob("*") if path.is_file()]
    files.append(Path("checkpoints/homegrown-base/adapters/instruct/adapter_model.safetensors"))
    for path in files:
        assert not [line for line in kept_out for part in path.parts if fnmatch(part, line[3:])], path
