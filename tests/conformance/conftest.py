"""One server for the whole suite, and a report of it, rule by rule.

BASE_URL=http://127.0.0.1:8000 pytest tests/conformance asks that server; API_KEY, MODEL (by default the first that it lists) and
CONTEXT (tokens, where its /v1/models doesn't tell) say more of it. Without BASE_URL the suite starts our own server with the
bundled model. CONFORMANCE_REPORT=FILE writes what came of each rule as JSON: a rule is the docstring of a test, and
`python tests/conformance/table.py` lays several such files side by side.
"""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conformance import Api, serve_bundled

_outcomes: dict[str, dict[str, Any]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """The suite's own marker."""
    config.addinivalue_line("markers", "extension: a rule of ours beyond OpenAI's API; other servers are not asked")


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The server under test."""
    base_url = os.environ.get("BASE_URL")
    if base_url:
        with closing(Api(base_url, os.environ.get("API_KEY"), os.environ.get("MODEL"))) as api:
            yield api
        return
    with serve_bundled() as api:
        yield api


@pytest.fixture(autouse=True)
def _ask_only_ours(request: pytest.FixtureRequest) -> None:
    """Skip what only our own server promises, on another one."""
    if request.node.get_closest_marker("extension") and not request.getfixturevalue("api").ours:
        pytest.skip("beyond OpenAI's API: only our own server promises it")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note what came of each test of this folder."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    if not isinstance(item, pytest.Function) or Path(__file__).parent not in item.path.parents:
        return
    if report.when != "call" and report.passed:
        return
    reason = ""
    if call.excinfo is not None:
        reason = str(call.excinfo.value) if report.skipped else call.excinfo.exconly()
    rule = " ".join(inspect.cleandoc(item.function.__doc__ or item.name).split())
    _outcomes[item.nodeid] = {
        "group": item.path.stem.removeprefix("test_"),
        "rule": rule,
        "case": item.name,
        "outcome": report.outcome,
        "reason": reason.split("\n")[0][:300],
        "extension": item.get_closest_marker("extension") is not None,
    }


def pytest_sessionfinish() -> None:
    """Write the report that was asked for."""
    file = os.environ.get("CONFORMANCE_REPORT")
    if file and _outcomes:
        Path(file).write_text(json.dumps(list(_outcomes.values()), indent=1, ensure_ascii=False), "utf-8")
