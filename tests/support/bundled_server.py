"""The server that the documents' commands ask: that of `make serve`, and a folder from which an adapter can be loaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oracle import make_adapters
from serving import ROOT, Server

_BUNDLED = ROOT / "checkpoints" / "homegrown-base"


def bundled_adapters(folder: Path) -> Path:
    """Make the folder, with what the bundled model carries in it, so that a server with it answers as `make serve` does."""
    carried = _BUNDLED / "adapters"
    if carried.is_dir():
        shutil.copytree(carried, folder)
    else:
        folder.mkdir()
    return folder


def add_reviews(folder: Path, scratch: Path) -> None:
    """Put an adapter `reviews`, which classifies, into the folder of a server that has started."""
    shutil.copytree(make_adapters(_BUNDLED, scratch / "made")["mood"], folder / "reviews")


@contextmanager
def bundled_server(scratch: Path) -> Iterator[Server]:
    """The bundled models, nothing set but an adapters folder into which `reviews` is put after the start. It must end well."""
    folder = bundled_adapters(scratch / "adapters")
    running = Server({"adapters_dir": folder})
    try:
        running.wait_ready()
        add_reviews(folder, scratch)
        yield running
    finally:
        code = running.stop()
    assert code == 0
