"""The autoscaler: Prometheus' rate, the horizontal autoscaler's arithmetic, and its behaviour as `deploy` has it.

After Kubernetes' own description (Horizontal Pod Autoscaling: algorithm details, stabilisation, policies) for external
metrics of type AverageValue, which is what KEDA's triggers become.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parent.parent
SCALED_OBJECT = ROOT / "deploy/components/keda/scaledobject.yaml"
MONITOR = ROOT / "deploy/components/monitoring/servicemonitor.yaml"
WORKERS = ROOT / "deploy/base/config/torchserve.yaml"
TOLERANCE = 0.1
"""The controller does nothing while the metric is so near to its target (its default)."""
SYNC_S = 15.0
"""Seconds between two looks of the controller (its default)."""
_WAIT = 'sum(rate(saaa_lane_wait_seconds_sum{namespace="saaa"}[%(window)s]))'
_LOAD = (
    "sum(rate(saaa_batch_seconds_sum%(of)s)) + (sum(sum by (lane) (rate(saaa_lane_shed_total%(of)s))"
    " * sum by (lane) (rate(saaa_batch_seconds_sum%(of)s))"
    " / (sum by (lane) (rate(saaa_batch_items_sum%(of)s)) > 0)) or vector(0))"
)
_OF = '{namespace="saaa",lane=~"%(lanes)s"}[%(window)s]'


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One metric and what a pod should carry of it."""

    lanes: tuple[str, ...] = ()
    """Whose load is meant: seconds at the backend, and what was refused as the work it would have been. Of none, it is
    what waits in all of them."""
    threshold: float
    window_s: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """At most so much change in so many seconds."""

    percent: float = 0.0
    pods: int = 0
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One ScaledObject, and how often its metrics are read."""

    triggers: tuple[Trigger, ...]
    least: int
    most: int
    up: tuple[Policy, ...]
    down: tuple[Policy, ...]
    up_window_s: float
    down_window_s: float
    scrape_s: float

    @classmethod
    def deployed(cls) -> Self:
        """What is in `deploy`.

        Raises:
            ValueError: a query that is not understood; the simulation would be of something else.
        """
        spec = yaml.safe_load(SCALED_OBJECT.read_text())["spec"]
        behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        interval = yaml.safe_load(MONITOR.read_text())["spec"]["endpoints"][0]["interval"]
        return cls(
            triggers=tuple(_trigger(each["metadata"]) for each in spec["triggers"]),
            least=spec["minReplicaCount"],
            most=spec["maxReplicaCount"],
            up=_policies(behaviour["scaleUp"]),
            down=_policies(behaviour["scaleDown"]),
            up_window_s=behaviour["scaleUp"]["stabilizationWindowSeconds"],
            down_window_s=behaviour["scaleDown"]["stabilizationWindowSeconds"],
            scrape_s=float(interval.removesuffix("s")),
        )

    def with_headroom(self, factor: float) -> Self:
        """The same with every threshold times this."""
        return replace(self, triggers=tuple(replace(t, threshold=t.threshold * factor) for t in self.triggers))


def deployed_workers() -> int:
    """Of a classifier, in one pod."""
    return int(yaml.safe_load(WORKERS.read_text())["classifier_workers"])


def _trigger(metadata: Mapping[str, str]) -> Trigger:
    query = metadata["query"]
    lanes, window = re.search(r'lane=~"([\w|]+)"', query), re.search(r"\[((\d+)m)\]", query)
    told = {"lanes": lanes[1] if lanes else "", "window": window[1] if window else ""}
    known = _LOAD % {"of": _OF % told} if lanes else _WAIT % told
    if window is None or query != known:
        raise ValueError(f"The simulation does not understand the query {query}; teach it.")
    return Trigger(
        lanes=tuple(filter(None, told["lanes"].split("|"))),
        threshold=float(metadata["threshold"]),
        window_s=60.0 * int(window[2]),
    )


def _policies(behaviour: Mapping[str, Any]) -> tuple[Policy, ...]:
    return tuple(
        Policy(seconds=each["periodSeconds"], **{each["type"].lower(): each["value"]}) for each in behaviour["policies"]
    )


class Counted:
    """One counter of one pod as Prometheus has seen it."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._values: list[float] = []

    def scraped(self, now: float, value: float) -> None:
        """One sample."""
        self._times.append(now)
        self._values.append(value)

    def rate(self, now: float, window_s: float) -> float:
        """PromQL's rate() of a counter that never falls: extrapolated to the window's ends as `extrapolatedRate` does;
        0 with fewer than two samples."""
        first = bisect_left(self._times, now - window_s)
        times, values = self._times[first:], self._values[first:]
        if len(times) < 2:
            return 0.0
        increase, seen = values[-1] - values[0], times[-1] - times[0]
        step = seen / (len(times) - 1)
        before, after = times[0] - (now - window_s), now - times[-1]
        if increase > 0:
            before = min(before, seen * values[0] / increase)
        covered = seen + sum(gap if gap < 1.1 * step else step / 2 for gap in (before, after))
        return increase * covered / seen / window_s


@dataclass
class Autoscaler:
    """Wanted pods, from the metrics' sums and its own past.

    Args:
        rules: see there.
    """

    rules: Rules
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)
    _changes: deque[tuple[float, int]] = field(default_factory=deque)

    def wanted(self, now: float, pods: int, metric: Callable[[Trigger], float]) -> int:
        """How many pods there should be from now on.

        Args:
            now: seconds; never less than before.
            pods: that there are, starting ones counted.
            metric: the sum over all pods of a trigger's query.
        """
        rules = self.rules
        if not self._recommended:
            self._recommended.append((now, pods))
        raw = max(self._by_metric(pods, metric(trigger), trigger.threshold) for trigger in rules.triggers)
        raw = min(max(raw, rules.least), rules.most)
        self._recommended.append((now, raw))
        while self._recommended[0][0] < now - max(rules.up_window_s, rules.down_window_s):
            self._recommended.popleft()
        allowed = min(max(self._calm(now, pods), self._floor(now, pods)), self._ceiling(now, pods))
        if allowed != pods:
            self._changes.append((now, allowed - pods))
        return allowed

    @staticmethod
    def _by_metric(pods: int, total: float, threshold: float) -> int:
        if abs(total / (threshold * pods) - 1.0) <= TOLERANCE:
            return pods
        return math.ceil(total / threshold)

    def _calm(self, now: float, pods: int) -> int:
        """Up to the least of the short window, down to the greatest of the long one."""
        rules = self.rules
        up = min(count for when, count in self._recommended if when >= now - rules.up_window_s)
        down = max(count for when, count in self._recommended if when >= now - rules.down_window_s)
        return min(max(pods, up), down)

    def _before(self, now: float, pods: int, seconds: float) -> int:
        """Pods when a policy's period began."""
        return pods - sum(change for when, change in self._changes if when > now - seconds)

    def _ceiling(self, now: float, pods: int) -> int:
        """The most generous of the policies."""
        ceilings = [pods]
        for policy in self.rules.up:
            before = self._before(now, pods, policy.seconds)
            ceilings.append(math.ceil(before * (1 + policy.percent / 100)) + policy.pods)
        return max(ceilings)

    def _floor(self, now: float, pods: int) -> int:
        floors = [pods]
        for policy in self.rules.down:
            before = self._before(now, pods, policy.seconds)
            floors.append(math.floor(before * (1 - policy.percent / 100)) - policy.pods)
        return min(floors)


def total(series: Iterable[Counted], now: float, window_s: float) -> float:
    """sum(rate(...)) over the pods, those that have gone counted while they are in the window."""
    return sum(each.rate(now, window_s) for each in series)
