"""Make what the monitoring component applies out of its two sources: `python -m deploy.generate`.

rules.yaml -> prometheusrule.yaml; dashboards.yaml -> dashboards/*.json. A test says when they are out of date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).resolve().parent / "components" / "monitoring"
_HEAD = "# Made of rules.yaml by `python -m deploy.generate`.\n"
_WIDTH, _HEIGHT = 12, 8
"""Of a panel; Grafana's row has 24 columns."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def generated() -> dict[Path, str]:
    """The content of every file that is made."""
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "saaa"},
        "spec": {"groups": rules["groups"]},
    }
    made = {MONITORING / "prometheusrule.yaml": _HEAD + yaml.safe_dump(resource, sort_keys=False, width=120)}
    boards = yaml.safe_load((MONITORING / "dashboards.yaml").read_text())
    for name, board in boards.items():
        made[MONITORING / "dashboards" / f"{name}.json"] = json.dumps(_board(name, board), indent=1) + "\n"
    return made


def _board(name: str, board: Mapping[str, Any]) -> dict[str, Any]:
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "type": "query",
            "datasource": _SOURCE,
            "query": "label_values(saaa_build, namespace)",
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "refresh": 2,
        },
    ]
    return {
        "uid": f"saaa-{name}",
        "title": board["title"],
        "tags": ["saaa"],
        "editable": False,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_panel(index, panel) for index, panel in enumerate(board["panels"])],
    }


def _panel(index: int, panel: Mapping[str, Any]) -> dict[str, Any]:
    row, column = divmod(index, 24 // _WIDTH)
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel["title"],
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel["series"].items())
        ],
    }


def main() -> None:
    """Write them all, and remove dashboards that no longer have a source."""
    made = generated()
    for path in (MONITORING / "dashboards").glob("*.json"):
        if path not in made:
            path.unlink()
    for path, content in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
