"""deploy/README.md: its links lead somewhere, and what it names exists."""

import re
from pathlib import Path

from app.metrics import ABORTED
from app.settings import ENV_PREFIX, Settings

OF_THE_MODELS = {"MODELS"}  # read by model.hub, not a setting of the server
PLACEHOLDER = {"NAME"}


def test_links_lead_somewhere(guide: str, deploy: Path) -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", guide)
    assert len(links) > 10
    for link in links:
        path, _, heading = link.partition("#")
        assert (deploy / path).exists(), link
        assert not heading or path or heading in headings, link


def test_every_file_is_named(guide: str, deploy: Path) -> None:
    for folder in ("nginx", "systemd", "kubernetes", "prometheus", "grafana"):
        assert (deploy / folder).is_dir()
        assert f"{folder}/" in guide
    for file in ("gpu.conf", "homegrown.env", "homegrown.service", "models.yaml", "autoscaling.yaml", "homegrown.json"):
        assert file in guide, file


def test_settings_are_real(guide: str) -> None:
    variables = set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", guide)) - OF_THE_MODELS - PLACEHOLDER
    assert len(variables) > 4
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    flags = set(re.findall(r"`--([a-z-]+)", guide))
    assert {flag.replace("-", "_") for flag in flags} <= set(Settings.model_fields), flags


def test_reasons_are_those_that_are_counted(guide: str) -> None:
    section = guide.split("#### HomegrownRequestsFail")[1].split("####")[0]
    reasons = set(re.findall(r"`(\w+)`:", section))
    assert reasons == {"queue_timeout", "run_timeout", "engine_dead", "fault"}
    assert reasons <= set(ABORTED)
