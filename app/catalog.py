"""Which directory a model's name means."""

from pathlib import Path

from model.errors import CheckpointError

_BUNDLED = Path(__file__).resolve().parents[1] / "checkpoints"


def find_model(name: str) -> Path:
    """The directory of a bundled model or a directory itself. CheckpointError lists the bundled ones."""
    for directory in (Path(name), _BUNDLED / name):
        if directory.is_dir():
            return directory
    bundled = ", ".join(sorted(path.name for path in _BUNDLED.glob("*/") if (path / "config.json").is_file()))
    raise CheckpointError(f"there is no model {name!r}; name a directory or one of: {bundled}")
