"""Many simulated pods under the autoscaler and recorded bursts: what it costs to be late, or to be early."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import simpy

from benchmarks.simulate_clock import SimulatedLoop
from benchmarks.simulate_pod import Asked, Costs, Figures, Pod
from benchmarks.simulate_scaler import SYNC_S, Autoscaler, Counted, Rules, Trigger, total
from saaa.work import Work
from serving.settings import FacadeSettings


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """What a run showed."""

    figures: Figures
    pod_hours: float
    """Paid for, starting ones counted."""
    mean_pods: float
    most_pods: int
    asked: Sequence[Asked]
    pods: Sequence[tuple[float, int, int]]
    """Seconds, pods there, pods ready: at each look of the autoscaler."""


class Cluster:
    """Pods behind a balancer that gives each the next request in turn.

    Args:
        costs: measured.
        settings: of the facades.
        rules: of the autoscaler; None leaves the pods as they are.
        pods: to begin with, ready.
        workers: of each pod.
        start_s: from the decision to readiness.
        seed: of all draws.
    """

    def __init__(
        self,
        costs: Costs,
        settings: FacadeSettings,
        *,
        rules: Rules | None,
        pods: int,
        workers: int,
        start_s: float,
        seed: int = 0,
    ) -> None:
        self._env = simpy.Environment()
        self._loop = SimulatedLoop(self._env)  # type: ignore[abstract]
        self._costs, self._settings, self._rules = costs, settings, rules
        self._workers, self._start_s = workers, start_s
        self._rng = np.random.default_rng(seed)
        self._ready: list[Pod] = []
        self._starting = 0
        self._leaving = 0
        """Starting pods that are wanted no more; they go as soon as they are there."""
        self._turn = 0
        self._series: dict[str, dict[Pod, Counted]] = defaultdict(lambda: defaultdict(Counted))
        self._seen: list[tuple[float, int, int]] = []
        self._paid = 0.0
        self._asked: list[Asked] = []
        for _ in range(pods):
            self._add()

    def run(self, times: Sequence[float], wanted: Sequence[Work], *, deadline_s: float, seconds: float) -> Scaled:
        """These arrivals, until each has its outcome; pods are counted for `seconds`."""
        self._env.process(self._arrive(times, wanted, deadline_s))
        self._env.process(self._look(seconds))
        self._loop.run()
        counts = [count for _, count, _ in self._seen]
        return Scaled(
            figures=Figures.of(self._asked, seconds),
            pod_hours=self._paid / 3600,
            mean_pods=self._paid / seconds,
            most_pods=max(counts),
            asked=self._asked,
            pods=self._seen,
        )

    def _add(self) -> None:
        self._ready.append(Pod(self._loop, self._costs, self._settings, self._workers, self._rng))

    def _arrive(
        self, times: Sequence[float], wanted: Sequence[Work], deadline_s: float
    ) -> Generator[simpy.Event, None, None]:
        for when, work in zip(times, wanted, strict=True):
            yield self._env.timeout(max(0.0, when - self._env.now))
            self._turn += 1
            self._loop.create_task(self._one(self._ready[self._turn % len(self._ready)], work, deadline_s))

    async def _one(self, pod: Pod, work: Work, deadline_s: float) -> None:
        start = self._loop.time()
        outcome = await pod.ask(work, start + deadline_s)
        self._asked.append(Asked(at=start, work=work, outcome=outcome, seconds=self._loop.time() - start))

    def _look(self, seconds: float) -> Generator[simpy.Event, None, None]:
        """Scrape and decide, in turn; both are done every 15 s, the decision on metrics half a period old."""
        scaler = None if self._rules is None else Autoscaler(self._rules)
        scrape_s = SYNC_S if self._rules is None else self._rules.scrape_s
        self._env.process(self._scrape(scrape_s, seconds))
        yield self._env.timeout(scrape_s / 2)
        self._seen.append((0.0, len(self._ready), len(self._ready)))
        while self._env.now < seconds:
            now, pods = self._env.now, len(self._ready) + self._starting
            if scaler is not None:
                self._change(scaler.wanted(now, pods, self._metric) - pods)
            self._seen.append((now, len(self._ready) + self._starting, len(self._ready)))
            step = min(SYNC_S, seconds - now)
            self._paid += step * (len(self._ready) + self._starting)
            yield self._env.timeout(SYNC_S)
        self._paid += scrape_s / 2 * self._seen[0][1]

    def _scrape(self, every_s: float, seconds: float) -> Generator[simpy.Event, None, None]:
        while self._env.now < seconds:
            for pod in self._ready:
                for name, value in pod.sums.counters().items():
                    self._series[name][pod].scraped(self._env.now, value)
            yield self._env.timeout(every_s)

    def _metric(self, trigger: Trigger) -> float:
        def rate(name: str) -> float:
            return total(self._series[name].values(), self._env.now, trigger.window_s)

        if not trigger.lanes:
            return rate("wait")
        load = 0.0
        for lane in trigger.lanes:
            seconds, items = rate(f"seconds {lane}"), rate(f"items {lane}")
            load += seconds + (rate(f"refused {lane}") * seconds / items if items else 0.0)
        return load

    def _change(self, by: int) -> None:
        for _ in range(max(0, by)):
            self._starting += 1
            self._env.process(self._start())
        for _ in range(max(0, -by)):
            # What is still starting goes first, as Kubernetes deletes what is not ready first. One that has begun to
            # drain gets no new request and finishes those it has.
            if self._starting:
                self._starting -= 1
                self._leaving += 1
            elif len(self._ready) > 1:
                self._ready.pop()

    def _start(self) -> Generator[simpy.Event, None, None]:
        yield self._env.timeout(self._start_s)
        if self._leaving:
            self._leaving -= 1
            return
        self._starting -= 1
        self._add()
