"""The autoscaler's arithmetic by hand, what is read of `deploy`, and pods under a step of load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

pytest.importorskip("simpy")

from benchmarks import simulate_report as report
from benchmarks import simulate_scaler
from benchmarks.simulate_arrivals import Modulation, arrivals, recorded
from benchmarks.simulate_cluster import Cluster, Scaled
from benchmarks.simulate_pod import Costs, Figures
from benchmarks.simulate_scaler import Autoscaler, Counted, Policy, Rules, Trigger
from saaa.work import Work
from serving.settings import FacadeSettings, LaneSettings

RULES = Rules(
    triggers=(Trigger(lanes=("predict",), threshold=1.0, window_s=60.0),),
    least=2,
    most=10,
    up=(Policy(percent=100, seconds=60), Policy(pods=2, seconds=60)),
    down=(Policy(pods=1, seconds=120),),
    up_window_s=30,
    down_window_s=300,
    scrape_s=15,
)


def test_reads_what_is_deployed() -> None:
    rules, spec = Rules.deployed(), yaml.safe_load(simulate_scaler.SCALED_OBJECT.read_text())["spec"]
    assert [each.lanes for each in rules.triggers] == [("predict", "explain"), ("explain",), ("caption",), ()]
    assert [each.threshold for each in rules.triggers] == [float(t["metadata"]["threshold"]) for t in spec["triggers"]]
    assert (rules.least, rules.most) == (spec["minReplicaCount"], spec["maxReplicaCount"])
    assert rules.up == (Policy(percent=100, seconds=60), Policy(pods=2, seconds=60))
    assert simulate_scaler.deployed_workers() >= 1


def test_a_query_that_it_does_not_know_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="teach it"):
        simulate_scaler._trigger({"query": "sum(rate(something_else[2m]))", "threshold": "1"})


def test_rate_is_prometheus_rate() -> None:
    """Samples each 15 s of a counter that grows by 2 a second: the window is covered as far as 1.1 steps reach."""
    counted = Counted()
    assert counted.rate(0, 60) == 0.0
    for step in range(20):
        counted.scraped(15.0 * step, 30.0 * step)
        assert step or counted.rate(0, 60) == 0.0
    assert counted.rate(285 + 7.5, 120) == pytest.approx(2.0)
    young = Counted()
    young.scraped(0, 0.0)
    young.scraped(15, 30.0)
    # It begins at 0, so nothing is added before its first sample; half a step lies after the last.
    assert young.rate(22.5, 120) == pytest.approx(2.0 * 22.5 / 120)


def test_more_pods_only_when_the_short_window_agrees() -> None:
    scaler = Autoscaler(RULES)
    wanted = [scaler.wanted(15.0 * step, 2, lambda _: 3.0) for step in range(4)]
    # Its first recommendation is what there is; 30 s later that is still in the window.
    assert wanted == [2, 2, 2, 3]


def test_never_more_than_the_policies_allow() -> None:
    scaler, pods, seen = Autoscaler(replace(RULES, up_window_s=0)), 3, []
    for step in range(6):
        pods = scaler.wanted(1 + 15.0 * step, pods, lambda _: 9.6)
        seen.append(pods)
    # A minute's growth is at most 100 %: 3 -> 6, and after a minute up to 10, the most.
    assert seen == [3, 6, 6, 6, 6, 10]


def test_fewer_pods_late_and_one_by_one() -> None:
    scaler, pods, seen = Autoscaler(RULES), 6, {}
    for step in range(60):
        now = 15.0 * step
        pods = scaler.wanted(now, pods, lambda _: 1.0)
        seen[now] = pods
    assert seen[300.0] == 6
    assert seen[315.0] == 5
    assert [seen[now] for now in (420.0, 435.0, 555.0, 675.0, 885.0)] == [5, 4, 3, 2, 2]


def test_does_nothing_near_its_target() -> None:
    scaler = Autoscaler(replace(RULES, up_window_s=0))
    assert [scaler.wanted(now, 4, lambda _: 4.39) for now in (0.0, 60.0)] == [4, 4]
    assert scaler.wanted(120.0, 4, lambda _: 4.41) == 5


def _run(rules: Rules | None, times: np.ndarray) -> Scaled:
    costs = Costs(batches={Work.PREDICT: {1: [0.4]}})
    told = FacadeSettings(predict=LaneSettings(max_batch=1))
    cluster = Cluster(costs, told, rules=rules, pods=2, workers=1, start_s=20.0)
    return cluster.run(times.tolist(), [Work.PREDICT] * len(times), deadline_s=2.0, seconds=240.0)


def test_what_was_refused_counts_as_the_work_it_would_have_been() -> None:
    """Half a second an item at the backend: six refused a second are three more at work."""
    cluster = Cluster(
        Costs(batches={Work.PREDICT: {1: [0.4]}}), FacadeSettings(), rules=None, pods=1, workers=1, start_s=20.0
    )
    (pod,) = cluster._ready
    for step in range(9):
        for name, per_s in {"seconds predict": 1.0, "items predict": 2.0, "refused predict": 6.0}.items():
            cluster._series[name][pod].scraped(15.0 * step, 15.0 * step * per_s)
    cluster._env.run(until=120)
    load = Trigger(lanes=("predict",), threshold=1.0, window_s=60.0)
    assert cluster._metric(load) == pytest.approx(4.0)
    # A lane that nothing was computed in tells nothing of what its items take.
    assert cluster._metric(replace(load, lanes=("predict", "explain"))) == pytest.approx(4.0)


def test_pods_follow_the_load_and_nobody_is_forgotten() -> None:
    """Two pods answer 2.5 a second each; from the 60th second on 12 a second come."""
    times = arrivals(np.repeat([0.5, 12.0], [60, 180]), 1.0, 0)
    fixed, scaled = (
        _run(None, times),
        _run(replace(RULES, triggers=(replace(RULES.triggers[0], threshold=0.7),)), times),
    )
    for each in (fixed, scaled):
        assert len(each.asked) == len(times)
    assert {count for _, count, _ in fixed.pods} == {2}
    assert fixed.pod_hours == pytest.approx(2 * 240 / 3600)
    assert scaled.pods[0][1:] == (2, 2)
    assert scaled.most_pods > 2
    # A pod that was asked for is ready 20 s later, not before.
    asked_for = next(now for now, count, _ in scaled.pods if count > 2)
    ready = next(now for now, _, count in scaled.pods if count > 2)
    assert 60 < asked_for < ready
    assert ready - asked_for >= 20
    assert scaled.figures.shed < fixed.figures.shed


def test_the_recorded_bursts_are_the_generators() -> None:
    assert recorded().tolist() == Modulation().intensity().tolist()
    assert recorded().mean() == pytest.approx(1.0, abs=1e-3)
    times = arrivals(recorded(), 3.0, 1)
    assert (np.diff(times) >= 0).all()
    assert abs(len(times) - 4500) < 5 * 4500**0.5
    counts = np.bincount(times.astype(int), minlength=len(recorded()))
    assert counts.var() / counts.mean() > 2  # 1 if they were not bursty


def test_pods_for_a_rate() -> None:
    assert report.pods_for(10, 20, 0.7, 2) == 2
    assert report.pods_for(1000, 20, 0.5, 2) == 100
    assert report.pods_for(1001, 20, 0.5, 2) == 101


def test_differences_and_what_is_a_miss() -> None:
    real = Figures(throughput=10, shed=0.2, p50=0.5, p95=1.0)
    lines = report.compared(real, replace(real, shed=0.24, p50=0.55))
    assert [("missed" in line) for line in lines[2:]] == [False, True, False, False]


def test_seconds_with_too_few_pods() -> None:
    figures = Figures(throughput=0, shed=0, p50=0, p95=0)
    pods = [(0.0, 1, 1), (100.0, 2, 1), (130.0, 2, 2)]
    scaled = Scaled(figures=figures, pod_hours=0, mean_pods=0, most_pods=2, asked=(), pods=pods)
    # From 100 on 15 a second come, and a pod answers 10; the mean over 30 s passes 10 as soon as a third of it is 15.
    short, longest = report.short_of_pods(scaled, np.repeat([7.5, 15.0], [100, 100]), 10.0)
    assert short == longest
    assert 25 <= short <= 40
