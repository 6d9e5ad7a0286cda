"""The adapters folder: what can be loaded from it by name. No request ever names a path."""

import logging
import re
from pathlib import Path

from model.errors import ConfigError
from model.files import read_json
from model.hub import own_adapters

NAME_RULE = "letters, digits, '.', '_' and '-', the first a letter or a digit, at most 128"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONFIG, _LABELS = "adapter_config.json", "labels.json"

logger = logging.getLogger(__name__)


def is_adapter_name(name: str) -> bool:
    """Whether an adapter can be called so: nothing that could be a path."""
    return _NAME.fullmatch(name) is not None


def adapters_folder(given: Path | None, model: Path) -> Path | None:
    """Where adapters come from: the folder that the settings name, else the one that the model directory carries, if any."""
    return own_adapters(model) if given is None else given


def classifies(adapter: Path) -> bool:
    """Whether the adapter in a directory gives labels, as far as its texts tell without the weights. CheckpointError for a
    configuration that can't be read."""
    task = read_json(adapter / _CONFIG).get("task_type")
    return task == "SEQ_CLS" or (task is None and (adapter / _LABELS).is_file())


def adapters_in(folder: Path) -> dict[str, Path]:
    """The folder's adapters now: name -> directory in PEFT's layout. OSError when it can't be read."""
    found = sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))
    return {path.name: path for path in found if is_adapter_name(path.name)}


def adapters_to_load(folder: Path | None) -> dict[str, str]:
    """Those that are loaded at the start. ConfigError when the folder is none; a directory with a name that no request could
    give is left out, with a warning."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ConfigError(f"adapters_dir: {folder} is no directory; make it, or leave the setting out")
    try:
        found = adapters_in(folder)
        names = {path.parent.name for path in folder.glob(f"*/{_CONFIG}")}
    except OSError as error:
        raise ConfigError(f"adapters_dir: {folder}: can't be read: {error.strerror}") from None
    for name in sorted(names - set(found)):
        logger.warning("adapters_dir: %r is left out: a name may have %s", name, NAME_RULE)
    return {name: str(path) for name, path in found.items()}
