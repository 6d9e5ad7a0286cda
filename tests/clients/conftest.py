"""A real server with the bundled model and an API key, for clients that know only its address."""

from collections.abc import Iterator

import pytest
from conformance import Api, serve_bundled


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The server as the conformance suite asks it: `root` is its address, `key` its key."""
    with serve_bundled(dtype="float32") as api:
        yield api


@pytest.fixture
def base_url(api: Api) -> str:
    """What clients of OpenAI's API take as its address."""
    return f"{api.root}/v1"


@pytest.fixture(autouse=True)
def _no_other_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients look into the environment for an address and a key."""
    for name in ("BASE_URL", "API_BASE", "API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
