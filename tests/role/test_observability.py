"""The files for Prometheus and Grafana, checked without a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.pages import anchors, section
from tests.support.playbook import TOP

ROLE = TOP / "roles/ag_ui_deployment"
FOLDER = ROLE / "files/observability"
# Tests of the rules, in the language of promtool.
CASES = sorted(Path(__file__).parent.glob("*_rules_test.yml"))
DEFINITIONS = ("files/backend/src/utils/metrics.py", "files/host/ag_ui_backup/status.py")
GRID_WIDTH = 24


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    groups = [group for path in FOLDER.glob("*-rules.yml") for group in load(path)["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def promtool(*arguments: str | Path) -> str:
    """Return the output of promtool; fails if it finds an error."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with the files, the token and the certificate."""
    for path in FOLDER.glob("*.yml"):
        shutil.copy(path, tmp_path)
    for name in ("ag-ui-token", "ag-ui-ca.crt"):
        (tmp_path / name).touch()
    return tmp_path


def test_prometheus_accepts_the_configuration_and_the_rules(installed: Path) -> None:
    printed = promtool("check", "config", installed / "prometheus.yml")
    assert "2 rule files found" in printed
    assert printed.count("SUCCESS") == 4


def test_each_instance_is_a_target_behind_nginx(installed: Path) -> None:
    printed = promtool(
        *("check", "service-discovery", "--timeout=1s"), installed / "prometheus.yml", "ag-ui"
    )
    targets = [target["labels"] for target in json.loads(printed)]
    assert [
        (one["instance"], f"{one['__scheme__']}://{one['__address__']}{one['__metrics_path__']}")
        for one in targets
    ] == [
        ("hx-dev-server:8002", "https://hx-dev-server:443/metrics/8002"),
        ("hx-dev-server:8003", "https://hx-dev-server:443/metrics/8003"),
    ]


def test_documented_configuration_is_that_of_the_file(tmp_path: Path) -> None:
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", section("Metrics"), re.MULTILINE | re.DOTALL)
    through_nginx, on_the_host = map(yaml.safe_load, blocks)
    assert through_nginx["scrape_configs"] == load(FOLDER / "prometheus.yml")["scrape_configs"][:1]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(on_the_host))
    promtool("check", "config", "--syntax-only", file)


def test_alarms_are_raised_above_their_limits_only() -> None:
    promtool("test", "rules", *CASES)


def test_each_alarm_has_a_case_that_raises_it() -> None:
    cases = [
        case
        for path in CASES
        for test in load(path)["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    ]
    assert sorted(case["alertname"] for case in cases) == sorted(rule["alert"] for rule in alerts())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alarm_says_what_to_do(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "$value" in notes["description"] or rule["alert"] == "AgUiInstanceDown"
    path, _, anchor = notes["runbook"].partition("#")
    assert anchor in anchors(TOP / path)
    assert rule["labels"].keys() == {"severity"}


def test_metrics_of_rules_and_dashboard_exist() -> None:
    defined = "".join((ROLE / path).read_text() for path in DEFINITIONS)
    expressions = [*(rule["expr"] for rule in rules()), *queries()]
    named = set(re.findall(r"\bag_ui_[a-z_]+", " ".join(expressions)))
    assert named
    assert {one for one in named if re.sub("_(bucket|sum|count)$", "", one) not in defined} == set()


def test_dashboard_shows_the_recorded_values() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(re.findall(r"\bjob\w*:\w+:\w+", " ".join(queries()))) == recorded


def test_panels_do_not_overlap() -> None:
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < GRID_WIDTH
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_panels_use_the_variables() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert [panel["title"] for panel in panels() if panel["datasource"] != source] == []
    # Values of the site, and of backups, are not those of an instance.
    of_an_instance = [
        query for query in queries() if not re.search(r"\bup\{|\bjob\w*:|ag_ui_backup_", query)
    ]
    assert of_an_instance
    unfiltered = [query for query in of_an_instance if 'instance=~"$instance"' not in query]
    assert unfiltered == []
