"""Alerts and dashboard against what a live server exposes; Prometheus's own tools where they are installed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import selectors

from app.metrics import ABORTED, FINISHED, REJECTED

OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity", "job", "instance"}}
OF_THE_SCRAPE = {"job", "instance"}
REASONS = {
    "homegrown_requests_finished_total": FINISHED,
    "homegrown_requests_aborted_total": ABORTED,
    "homegrown_requests_rejected_total": REJECTED,
}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is missing")


def panel_expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(title, PromQL) of every query on the dashboard."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def expressions(alerts: dict[str, dict[str, Any]], dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, rule["expr"]) for name, rule in alerts.items())
    yield from panel_expressions(dashboard)


def test_every_metric_exists(
    alerts: dict[str, dict[str, Any]], dashboard: dict[str, Any], exposed: dict[str, list[dict[str, str]]]
) -> None:
    asked = {s.metric for _, expression in expressions(alerts, dashboard) for s in selectors(expression)}
    assert {"homegrown_engine_up", "homegrown_time_to_first_token_seconds_bucket", "ALERTS"} <= asked
    assert asked - set(exposed) - set(OF_PROMETHEUS) == set()


def test_every_label_exists(
    alerts: dict[str, dict[str, Any]], dashboard: dict[str, Any], exposed: dict[str, list[dict[str, str]]]
) -> None:
    for where, expression in expressions(alerts, dashboard):
        for selector in selectors(expression):
            there = OF_PROMETHEUS.get(selector.metric) or {
                *OF_THE_SCRAPE,
                *(name for labels in exposed[selector.metric] for name in labels),
            }
            for matcher in selector.matchers:
                assert matcher.label in there, (where, selector)
                if matcher.label == "reason":
                    assert set(matcher.value.split("|")) <= set(REASONS[selector.metric]), (where, selector)


def test_every_kind_of_metric_is_shown(dashboard: dict[str, Any], exposed: dict[str, list[dict[str, str]]]) -> None:
    shown = {s.metric for _, expression in panel_expressions(dashboard) for s in selectors(expression)}
    ours = {
        name for name in exposed if name.startswith("homegrown_") and not name.endswith(("_count", "_sum", "_created"))
    }
    assert ours - shown == set()


def test_alerts_say_what_to_do(alerts: dict[str, dict[str, Any]], guide: str) -> None:
    explained = set(re.findall(r"^#+ (Homegrown\w+)$", guide, re.MULTILINE))
    assert explained == set(alerts)
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["annotations"]["description"], name


def test_dashboard_is_whole(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        references = [target["refId"] for target in panel["targets"]]
        assert references, panel["title"]
        assert len(set(references)) == len(references), panel["title"]
        assert panel["description"], panel["title"]
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {"${datasource}"}
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", str(panels)))
    assert used == {*variables, "__rate_interval"}


def test_grafana_finds_its_files(deploy: Path, compose: dict[str, Any], dashboard: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provider = yaml.safe_load((deploy / "grafana/provisioning/dashboards/homegrown.yml").read_text("utf-8"))
    source = yaml.safe_load((deploy / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    folder = mounts["./deploy/grafana/dashboards"]
    assert provider["providers"][0]["options"]["path"] == folder
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (deploy / "grafana/dashboards" / home.name).is_file()
    assert source["datasources"][0]["uid"] == dashboard["templating"]["list"][0]["current"]["value"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    interval = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == interval


def promtool(*arguments: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_the_configuration(deploy: Path, alerts: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "api-key").touch()
    config = (deploy / "prometheus/prometheus.yml").read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(config.replace("/run/homegrown/api-key", str(tmp_path / "api-key")))
    shutil.copytree(deploy / "prometheus/rules", tmp_path / "rules")
    said = promtool("check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")
    assert f"{len(alerts)} rules found" in said


@needs_promtool
def test_promtool_reads_the_dashboard(dashboard: dict[str, Any], tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(panel_expressions(dashboard))
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "panels.yml")


@needs_promtool
def test_alerts_fire_when_they_should(deploy: Path, alerts: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    cases = yaml.safe_load(Path(__file__).with_name("alerts.yml").read_text("utf-8"))
    told = [case for test in cases["tests"] for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in told if case.get("exp_alerts")}
    silent = {case["alertname"] for case in told if not case.get("exp_alerts")}
    assert fired == silent == set(alerts)
    cases["rule_files"] = [str(deploy / "prometheus/rules/homegrown.yml")]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(cases))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.yml")
