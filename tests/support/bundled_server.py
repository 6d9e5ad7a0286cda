"""The server that the documents' commands ask: that of `make serve`, and a folder from which an adapter can be loaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oracle import make_adapters
from serving import ROOT, Server


@contextmanager
def bundled_server(scratch: Path) -> Iterator[Server]:
    """The bundled model, nothing set but an adapters folder into which an adapter `reviews`, which classifies, is put after
    the start. It must end well."""
    folder = scratch / "adapters"
    folder.mkdir()
    running = Server({"adapters_dir": folder})
    try:
        running.wait_ready()
        made = make_adapters(ROOT / "checkpoints" / "homegrown-base", scratch / "made")
        shutil.copytree(made["mood"], folder / "reviews")
        yield running
    finally:
        code = running.stop()
    assert code == 0
