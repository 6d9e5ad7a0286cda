import shutil
from pathlib import Path

import pytest
from finished_course import at, finished_course

from training.models.places import Places


@pytest.fixture(scope="session")
def course_directory(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("course")
    finished_course(directory, tiny_llama_dir)
    return directory


@pytest.fixture
def places(course_directory: Path, tmp_path: Path) -> Places:
    """A finished course in a directory of its own."""
    shutil.copytree(course_directory, tmp_path, dirs_exist_ok=True)
    return at(tmp_path)
