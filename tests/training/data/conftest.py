from pathlib import Path

import pytest

from training.data.bpe import train_bpe


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return [
        f"Document {i} tells of {'apples and pears ' * (i % 7)}and the number {i * i}.\nCafé {i} — ends."
        for i in range(60)
    ]


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> Path:
    """The tokenizer.json of 300 tokens made of `documents`."""
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(documents, 300, path)
    return path
