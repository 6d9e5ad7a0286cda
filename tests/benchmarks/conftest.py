from pathlib import Path

import pytest

from benchmarks.peers import models


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that --work keeps of `--shape tiny`."""
    path = tmp_path_factory.mktemp("models")
    models.write_source(path, "tiny", None)
    return path
