"""How the service scales, simulated: the facade's own lanes and the deployed autoscaler under synthetic bursts.

    python -m benchmarks.simulate

Measures what a request costs in a real facade (local backend, gRPC, closed loops), sends it bursty arrivals, simulates
the same arrivals from those costs alone and prints both. Between parts of the arrivals the costs are measured again,
as a machine that is shared changes. Then simulates many pods under the rules in `deploy`. Writes
`build/bench/simulate.json` and `simulate.png`; `--write_doc` puts the tables into `docs/scaling.md`.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks import simulate_report as report
from benchmarks.documents import into_doc, machine
from benchmarks.serving_material import FAST
from benchmarks.simulate_arrivals import arrivals, recorded
from benchmarks.simulate_cluster import Cluster, Scaled
from benchmarks.simulate_pod import KINDS, Asked, Costs, Figures, kinds, simulate_pod
from benchmarks.simulate_real import Seen, running
from benchmarks.simulate_scaler import Rules, deployed_workers
from saaa.work import Work
from serving.settings import FacadeSettings

SETTINGS = FacadeSettings()
WARM = 5
DRAWS = 5
"""Simulations of the same arrivals, pooled: their own chance is to be small beside the real facade's."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of whom."""

    output: Path = Path("build/bench")
    explained: float = 0.3
    """Share of the requests that want an attribution beside the prediction."""
    deadline_s: float = 2.0
    """What each caller allows."""
    load: float = 1.0
    """Of the compared arrivals: their mean rate as a part of the measured capacity; their bursts are far above it."""
    parts: tuple[int, ...] = (60, 400, 800)
    """Where the compared arrivals' parts begin in the recorded intensity, in seconds."""
    part_s: int = 30
    loop_s: float = 1.2
    """Of each closed loop; there are 11 of them before, between and after the parts."""
    pods: float = 1.5
    """Load of the scaled part, in pods' capacity: its mean."""
    scaled_from: int = 600
    """Where its part of the recorded intensity begins, in seconds."""
    scaled_s: int = 900
    busy: float = 0.7
    """Part of its capacity to which a pod is to be used, as the thresholds in deploy are set."""
    pod_start_s: float = 30.0
    """From the autoscaler's decision to a ready pod: node there, image there."""
    prices: report.Prices = field(default_factory=report.Prices)
    seed: int = 0
    write_doc: bool = False


@dataclass
class Validation:
    """Both sides of the comparison."""

    real: list[Asked] = field(default_factory=list)
    simulated: list[Asked] = field(default_factory=list)
    replayed: list[Asked] = field(default_factory=list)
    """Simulated with the batch times of the compared arrivals themselves: what is left is not the machine's change."""
    seen: Seen = field(default_factory=Seen)
    rate: float = 0.0
    seconds: float = 0.0
    start_s: float = 0.0
    drift: list[float] = field(default_factory=list)
    """Of each part: the worker's mean batch of one prediction after it / before it."""

    def figures(self) -> tuple[Figures, Figures, Figures]:
        """Real, simulated, simulated with the parts' own batch times."""
        many = self.seconds * DRAWS
        return (
            Figures.of(self.real, self.seconds),
            Figures.of(self.simulated, many),
            Figures.of(self.replayed, many),
        )


def shares(options: Options) -> dict[Work, float]:
    """Of the requests, by kind."""
    return {Work.PREDICT: 1.0 - options.explained, Work.EXPLAIN: options.explained}


async def validate(options: Options) -> Validation:
    """The real facade, and the simulation of the same arrivals."""
    found = Validation()
    intensity = recorded()
    chosen = [intensity[begin : begin + options.part_s] for begin in options.parts]
    mean = float(np.mean(np.concatenate(chosen)))
    async with running(options.output / "serving") as real:
        found.start_s = real.start_s
        await real.measure(options.loop_s / 3, Seen())  # to warm up
        before = Seen()
        await real.measure(options.loop_s, before)
        found.rate = options.load * before.costs().capacity(shares(options), SETTINGS)
        for number, part in enumerate(chosen):
            times = arrivals(part, found.rate / mean, options.seed + number)
            wanted = kinds(len(times), options.explained, options.seed + number)
            real.batches()
            found.real += await real.replay(times, wanted, options.deadline_s)
            own = real.batches()
            after = Seen()
            await real.measure(options.loop_s, after)
            found.drift.append(after.costs().mean(Work.PREDICT, 1) / before.costs().mean(Work.PREDICT, 1))
            costs = Seen.together(before, after).costs()
            replayed = replace(costs, batches={work: own[work] or costs.batches[work] for work in KINDS})
            for draw in range(DRAWS):
                told: dict[str, Any] = {"deadline_s": options.deadline_s, "seed": draw, "warm": WARM}
                found.simulated += simulate_pod(costs, SETTINGS, times.tolist(), wanted, **told)
                found.replayed += simulate_pod(replayed, SETTINGS, times.tolist(), wanted, **told)
            found.seen = Seen.together(found.seen, before)
            found.seconds += options.part_s
            before = after
        found.seen = Seen.together(found.seen, before)
    return found


def scale(
    name: str, rules: Rules | None, pods: int, costs: Costs, options: Options, times: NDArray[np.float64]
) -> tuple[str, Scaled]:
    """One scenario; runs in a process of its own."""
    cluster = Cluster(
        costs,
        SETTINGS,
        rules=rules,
        pods=pods,
        workers=deployed_workers(),
        start_s=options.pod_start_s,
        seed=options.seed,
    )
    wanted = kinds(len(times), options.explained, options.seed)
    return name, cluster.run(times.tolist(), wanted, deadline_s=options.deadline_s, seconds=options.scaled_s)


def scaled(options: Options, costs: Costs, offered: NDArray[np.float64]) -> dict[str, Scaled]:
    """All scenarios, on the same arrivals: so many a second, of each second."""
    rules = Rules.deployed()
    times = arrivals(offered, 1.0, options.seed)
    enough = math.ceil(options.pods / options.busy)
    told = [
        (f"fixed at {enough} (the mean at {options.busy:.0%})", None, enough),
        ("autoscaler as deployed", rules, rules.least),
        ("the same, never below 4", replace(rules, least=4), 4),
        ("the same, thresholds x 0.6", rules.with_headroom(0.6), rules.least),
    ]
    # Not forked: gRPC's threads would not live in the child.
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(scale, *each, costs, options, times) for each in told]
        return dict(task.result() for task in tasks)


def main(options: Options) -> None:
    """Measure, simulate, tell."""
    start = time.monotonic()
    found = asyncio.run(validate(options))
    real, simulated, replayed = found.figures()
    print("\n".join(report.compared(real, simulated)) + "\n", flush=True)  # the rest takes minutes more
    costs = found.seen.costs()
    worker = costs.capacity(shares(options), SETTINGS)
    rules, workers = Rules.deployed(), deployed_workers()
    capacity = worker * workers
    rate = options.pods * capacity
    offered = recorded()[options.scaled_from : options.scaled_from + options.scaled_s]
    offered *= rate / offered.mean()
    clusters = scaled(options, costs, offered)
    lags = {name: report.short_of_pods(each, offered, capacity) for name, each in clusters.items()}
    alone = {work: costs.capacity({work: 1.0}, SETTINGS) for work in KINDS}
    edge = {work.value: float(np.median(found.seen.edge[work])) for work in KINDS}
    parts = {work.value: share for work, share in shares(options).items()}
    own = ", ".join(f"{name} {value:+.1%}" for name, value in report.differences(real, replayed).items())
    text = "\n".join(
        [
            f"Machine: {machine()}. Model: {FAST} at 224, one thread a worker; {options.explained:.0%} of the requests "
            f"want an attribution; deadline {options.deadline_s:g} s.",
            "",
            f"Measured, a worker in full batches: {alone[Work.PREDICT]:.1f} predictions or {alone[Work.EXPLAIN]:.1f} "
            f"explanations a second, {worker:.1f} of this mix; so {capacity:.1f} of a pod with {workers}. From a cold "
            f"start to the first answer: {found.start_s:.1f} s.",
            "",
            *report.compared(real, simulated),
            "",
            f"{len(found.real)} requests in {found.seconds:.0f} s, {found.rate:.1f} a second on average. The same "
            f"batches' times changed between the closed loops by {' '.join(f'{each - 1:+.0%}' for each in found.drift)}"
            f"; simulated with the batch times of the arrivals themselves the differences are: {own}.",
            "",
            *report.costs(capacity, options.busy, rules.least, rules.most, options.prices),
            "",
            "Bottlenecks of one pod:",
            "",
            report.bottlenecks(worker, workers, edge, parts, rules.most),
            "",
            f"{options.scaled_s / 60:.0f} minutes of bursts, on average {rate:.1f} requests a second "
            f"({options.pods:g} pods' capacity), pods ready {options.pod_start_s:.0f} s after the decision:",
            "",
            *report.scenarios(clusters, lags),
        ]
    )
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    figures = {
        "machine": machine(),
        "options": asdict(options),
        "real": asdict(real),
        "simulated": asdict(simulated),
        "difference": report.differences(real, simulated),
        "difference_with_own_batch_times": report.differences(real, replayed),
        "drift": found.drift,
        "worker_capacity": worker,
        "facade_cpu_s": edge,
        "batch_seconds": {
            work.value: {size: costs.mean(work, size) for size in sorted(costs.batches[work])} for work in KINDS
        },
        "scenarios": {name: report.summary(each) | {"too_few_s": lags[name]} for name, each in clusters.items()},
    }
    (options.output / "simulate.json").write_text(json.dumps(figures, default=str) + "\n")
    picture = options.output / "simulate.png"
    report.draw(picture, found.real, found.simulated, clusters, offered, capacity)
    if options.write_doc:
        into_doc(report.DOC, "python -m benchmarks.simulate", text)
    print(f"\n{picture}, {options.output / 'simulate.json'}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.simulate", description=__doc__))
