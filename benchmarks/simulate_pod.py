"""One simulated pod: the facade's own lanes in front of workers that take as long as the real ones were measured to.

What is simulated is what surrounds the lanes: the way to them, decoding threads, and the workers, who compute one batch
at a time each. Admission, gathering, fairness, estimates and giving up are `serving.lanes` itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from benchmarks.simulate_clock import SimulatedLoop
from saaa.errors import DeadlineExceeded, LaneFull
from saaa.work import ItemResult, Work, WorkBatch, WorkItem
from serving.lanes.lanes import BatchKey, Lane
from serving.observer import Flight, Observer
from serving.settings import FacadeSettings

Outcome = Literal["answered", "refused", "expired"]
KINDS = (Work.PREDICT, Work.EXPLAIN)
_PIXELS = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a request costs outside the lanes' rules, as measured. Each time is drawn from its samples."""

    batches: Mapping[Work, Mapping[int, Sequence[float]]]
    """Kind -> items of a batch -> seconds that a worker was seen to take."""
    decode: Sequence[float] = (0.0,)
    """Seconds of a decoding thread."""
    before: float = 0.0
    """Seconds from the caller to admission."""
    around: float = 0.0
    """Seconds from a batch's leave to the worker's begin, and from its end to the lane, together."""
    after: float = 0.0
    """Seconds from the result to the caller."""

    def seconds(self, work: Work, items: int, rng: np.random.Generator) -> float:
        """One draw; a size that was not seen is scaled from the nearest."""
        seen = self.batches[work]
        nearest = min(seen, key=lambda size: (abs(size - items), size))
        drawn = seen[nearest][int(rng.integers(len(seen[nearest])))]
        if nearest == items:
            return drawn
        return drawn * self.mean(work, items) / self.mean(work, nearest)

    def mean(self, work: Work, items: int) -> float:
        """Expected seconds: between measured sizes on a line, beyond them in proportion."""
        sizes = sorted(self.batches[work])
        means = [float(np.mean(self.batches[work][size])) for size in sizes]
        if items > sizes[-1]:
            return means[-1] * items / sizes[-1]
        return float(np.interp(items, sizes, means))

    def capacity(self, shares: Mapping[Work, float], settings: FacadeSettings) -> float:
        """Requests a second of one worker that is never idle, in full batches."""
        full = {Work.PREDICT: settings.predict.max_batch, Work.EXPLAIN: settings.explain.max_batch}
        return 1.0 / sum(share * self.mean(work, full[work]) / full[work] for work, share in shares.items() if share)


@dataclass
class Sums(Observer):
    """The metrics that autoscaling reads, as `serving.telemetry.metrics` sums them."""

    batch_seconds: Counter[str] = field(default_factory=Counter)
    """Lane -> saaa_batch_seconds_sum."""
    batch_items: Counter[str] = field(default_factory=Counter)
    """Lane -> saaa_batch_items_sum."""
    refused_items: Counter[str] = field(default_factory=Counter)
    """Lane -> saaa_lane_shed_total."""
    wait_seconds: float = 0.0
    """saaa_lane_wait_seconds_sum."""
    lost_items: Counter[str] = field(default_factory=Counter)

    def counters(self) -> dict[str, float]:
        """What a scrape reads, by "wait" or by what is counted and the lane."""
        found = {"wait": self.wait_seconds}
        for kind in KINDS:
            lane = kind.value
            found[f"seconds {lane}"] = self.batch_seconds[lane]
            found[f"items {lane}"] = self.batch_items[lane]
            found[f"refused {lane}"] = self.refused_items[lane]
        return found

    def refused(self, key: BatchKey) -> None:
        self.refused_items[key.work.value] += 1

    def departed(self, flight: Flight) -> None:
        self.batch_items[flight.batch.work.value] += len(flight.batch.items)
        self.wait_seconds += sum(flight.waits)

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        self.batch_seconds[flight.batch.work.value] += seconds  # type: ignore[assignment]

    def lost(self, key: BatchKey, why: str) -> None:
        self.lost_items[why] += 1


class Pod:
    """One facade and its workers.

    Args:
        loop: the simulation.
        costs: measured.
        settings: of the real facade.
        workers: batches computed at the same time, at least 1.
        rng: draws the times.
    """

    def __init__(
        self, loop: SimulatedLoop, costs: Costs, settings: FacadeSettings, workers: int, rng: np.random.Generator
    ) -> None:
        self._loop = loop
        self._costs = costs
        self._rng = rng
        self._workers = simpy.Resource(loop.env, workers)
        self._decoders = simpy.Resource(loop.env, settings.decode_threads)
        self.sums = Sums()
        told = {Work.PREDICT: settings.predict, Work.EXPLAIN: settings.explain}
        self.lanes = {work: Lane(self._run, told[work], self.sums) for work in KINDS}
        self._keys = {work: BatchKey(model="simulated", version="1", work=work) for work in KINDS}

    async def ask(self, work: Work, deadline: float) -> Outcome:
        """One request's way; `deadline` is simulated time."""
        await self._wait(self._costs.before)
        lane = self.lanes[work]
        try:
            with lane.admit(self._keys[work], deadline) as place:
                with self._decoders.request() as turn:
                    await self._loop.happens(turn)
                    await self._wait(self._costs.decode[int(self._rng.integers(len(self._costs.decode)))])
                await place.result(_PIXELS, WorkItem())
        except LaneFull:
            return "refused"
        except DeadlineExceeded:
            return "expired"
        await self._wait(self._costs.after)
        return "answered" if self._loop.time() <= deadline else "expired"

    async def _run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        with self._workers.request() as turn:
            await self._loop.happens(turn)
            await self._wait(self._costs.seconds(batch.work, len(batch.items), self._rng) + self._costs.around)
        return [ItemResult() for _ in batch.items]

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._loop.happens(self._loop.env.timeout(seconds))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What became of one request."""

    at: float
    """Seconds, when it came."""
    work: Work
    outcome: Outcome
    seconds: float
    """Until the caller knew."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is compared."""

    throughput: float
    """Answers a second."""
    shed: float
    """Share of the requests that were not answered in time: refused or expired."""
    p50: float
    """Of the answered, seconds."""
    p95: float

    @classmethod
    def of(cls, asked: Sequence[Asked], seconds: float) -> Figures:
        """Of all requests of so many seconds."""
        times = [each.seconds for each in asked if each.outcome == "answered"]
        p50, p95 = np.quantile(times, (0.5, 0.95)) if times else (float("nan"), float("nan"))
        shed = 1.0 - len(times) / max(1, len(asked))
        return cls(throughput=len(times) / seconds, shed=shed, p50=float(p50), p95=float(p95))


def kinds(count: int, explained: float, seed: int) -> list[Work]:
    """What each request wants: a share wants explanations, drawn."""
    drawn: NDArray[np.bool_] = np.random.default_rng(seed).random(count) < explained
    return [Work.EXPLAIN if each else Work.PREDICT for each in drawn]


def simulate_pod(
    costs: Costs,
    settings: FacadeSettings,
    times: Sequence[float],
    wanted: Sequence[Work],
    *,
    deadline_s: float,
    workers: int = 1,
    seed: int = 0,
    warm: int = 0,
) -> list[Asked]:
    """One pod and these arrivals; one outcome a request, in order of the answers.

    Args:
        times: sorted seconds, at least 0.
        wanted: one kind a request.
        deadline_s: what each caller allows.
        warm: lone requests of each kind before, so that the lanes' estimates are those of a pod in use.
    """
    env = simpy.Environment()
    loop = SimulatedLoop(env)  # type: ignore[abstract]
    pod = Pod(loop, costs, settings, workers, np.random.default_rng(seed))
    asked: list[Asked] = []

    async def one(work: Work) -> None:
        start = loop.time()
        outcome = await pod.ask(work, start + deadline_s)
        asked.append(Asked(at=start - begin, work=work, outcome=outcome, seconds=loop.time() - start))

    async def warming() -> None:
        for work in KINDS * warm:
            if work in costs.batches:
                await pod.ask(work, loop.time() + 60)

    loop.create_task(warming())
    loop.run()
    begin = loop.time()
    for when, work in zip(times, wanted, strict=True):
        loop.call_at(begin + when, lambda work=work: loop.create_task(one(work)))
    loop.run()
    return asked
