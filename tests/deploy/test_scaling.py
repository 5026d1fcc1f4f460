"""What the triggers of KEDA make of metrics, as the real promtool computes their queries."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.check.manifests import Manifests, Object
from deploy.check.tools import run
from tests.deploy.conftest import tools_needed

BUSY, ITEMS, REFUSED = "saaa_batch_seconds_sum", "saaa_batch_items_sum", "saaa_lane_shed_total"
WORKING = {
    (BUSY, "predict"): 0.5,
    (ITEMS, "predict"): 5.0,
    (BUSY, "explain"): 0.75,
    (ITEMS, "explain"): 1.5,
}
"""(series, lane) -> how much it grows a second, in each of two pods."""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # Nothing was ever refused, so there is no such series.
        ({}, {"classifier-load": 2.5, "explain-load": 1.5}),
        # An explanation is half a second of a worker: four refused a second are two more workers for each pod.
        ({(REFUSED, "explain"): 4.0}, {"classifier-load": 6.5, "explain-load": 5.5}),
        ({(REFUSED, "predict"): 5.0, (REFUSED, "explain"): 0.0}, {"classifier-load": 3.5, "explain-load": 1.5}),
        # Nothing is known of what a caption takes, and nothing is made up.
        ({(REFUSED, "caption"): 9.0, (BUSY, "caption"): 0.0, (ITEMS, "caption"): 0.0}, {"caption-load": 0.0}),
        ({("saaa_lane_wait_seconds_sum", "predict"): 3.0}, {"waiting": 6.0}),
    ],
)
def test_load_is_what_is_computed_and_what_was_refused(
    variants: dict[str, list[Object]], tmp_path: Path, more: dict[tuple[str, str], float], expected: dict[str, float]
) -> None:
    (scaler,) = Manifests(variants["prod"]).of("ScaledObject")
    queries = {each["name"]: each["metadata"]["query"] for each in scaler["spec"]["triggers"]}
    series = [
        {
            "series": f'{name}{{namespace="saaa",pod="{pod}",lane="{lane}",model="m"}}',
            "values": f"0+{per_s * 15}x40",
        }
        for (name, lane), per_s in {**WORKING, **more}.items()
        for pod in ("one", "two")
    ]
    checks = [
        {"expr": queries[name], "eval_time": "9m", "exp_samples": [{"labels": "{}", "value": value}]}
        for name, value in expected.items()
    ]
    test = {
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": checks}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    with tools_needed():
        done = run("promtool", "test", "rules", tmp_path / "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
