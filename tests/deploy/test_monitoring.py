"""Rules and dashboards: made of their sources, accepted and tested by promtool, explained in the runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.check.tools import ROOT, run
from deploy.generate import MONITORING, generated
from tests.deploy.conftest import tools_needed


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def test_what_is_made_is_up_to_date_and_applied() -> None:
    made = generated()
    for path, content in made.items():
        assert path.read_text() == content, f"{path.name}: run `python -m deploy.generate`"
    boards = {path for path in made if path.suffix == ".json"}
    assert set((MONITORING / "dashboards").iterdir()) == boards
    told = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    assert {MONITORING / file for file in told["configMapGenerator"][0]["files"]} == boards


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    with tools_needed():
        checked = run("promtool", "check", "rules", MONITORING / "rules.yaml")
        tested = run("promtool", "test", "rules", MONITORING / "rules_test.yaml")
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert tested.returncode == 0, tested.stderr + tested.stdout


def test_a_wrong_expectation_fails_the_rules_tests(tmp_path: Any) -> None:
    (tmp_path / "rules.yaml").write_text((MONITORING / "rules.yaml").read_text().replace("> 10\n", "> 40\n", 1))
    told = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())
    told["tests"] = [test for test in told["tests"] if test["name"].startswith("SaaaSlow ")]
    (tmp_path / "rules_test.yaml").write_text(yaml.safe_dump(told))
    with tools_needed():
        tested = run("promtool", "test", "rules", tmp_path / "rules_test.yaml")
    assert tested.returncode != 0
    assert "SaaaSlow" in tested.stderr + tested.stdout


def test_every_alert_has_a_test_that_fires_and_one_that_is_silent() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    for name in (alert["alert"] for alert in alerts()):
        (fires,) = [test for test in tests if test["name"].startswith(f"{name} fires: ")]
        (silent,) = [test for test in tests if test["name"].startswith(f"{name} is silent: ")]
        expected = [sample["labels"] for sample in fires["promql_expr_test"][0]["exp_samples"]]
        assert f'{{alertname="{name}"}}' in expected
        assert silent["promql_expr_test"][0]["exp_samples"] == []


def test_every_alert_has_its_chapter_and_every_chapter_its_alert() -> None:
    chapters = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(chapters) == sorted(alert["alert"] for alert in alerts())
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_dashboards_have_an_identity_and_readable_panels() -> None:
    boards = [json.loads(path.read_text()) for path in (MONITORING / "dashboards").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) == 7
    for board in boards:
        assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "namespace"}
        for panel in board["panels"]:
            assert panel["title"]
            assert panel["targets"]
            assert all('namespace=~"$namespace"' in target["expr"] for target in panel["targets"])
