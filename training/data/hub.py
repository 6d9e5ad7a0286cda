"""Data sets of the Hugging Face Hub, read as they stream in (library `datasets`): nothing is kept on disk."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from training.errors import DataError


@dataclass(frozen=True)
class HubCorpus:
    """A data set's `repository` ("owner/name"), its `config` where it has several, and the `split` to read."""

    PREFIX: ClassVar[str] = "hf:"

    repository: str
    config: str | None = None
    split: str = "train"

    @classmethod
    def parse(cls, name: str) -> Self:
        """`hf:owner/name[:config][@split]`. DataError for anything else."""
        match = re.fullmatch(r"hf:([\w.-]+(?:/[\w.-]+)?)(?::([^@:]+))?(?:@(\w+))?", name)
        if match is None:
            raise DataError(f"{name}: not a data set's name; write hf:owner/name, hf:owner/name:config or ...@split")
        return cls(match[1], match[2], match[3] or "train")

    def __str__(self) -> str:
        config = "" if self.config is None else f":{self.config}"
        return f"{self.PREFIX}{self.repository}{config}@{self.split}"

    @property
    def name(self) -> str:
        """The whole of it, as a file has a name."""
        return str(self)


def hub_rows(corpus: HubCorpus) -> Iterator[dict[str, Any]]:
    """The rows of a data set, one at a time. DataError when it can't be reached or read, or has no such config or split."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{corpus}: reading from the Hub needs the package datasets; pip install datasets") from None
    try:
        yield from datasets.load_dataset(corpus.repository, corpus.config, split=corpus.split, streaming=True)
    except Exception as error:  # a network, a server and a parser of any format lie behind it
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{corpus}: can't be read from the Hugging Face Hub ({said}). It needs a network and the data set's exact name, config "
            "and split; where there is no network, get its .parquet, .jsonl or .txt files by other means and name those"
        ) from None
