"""Predictions with attributions: our facade against TorchServe with a handler that calls captum.

captum's integrated gradients get the fewest steps with which they are within one standard error of our default method
in pointing and in the cosine to Shapley values, on a model whose truth is known (`benchmarks.attribution`). Where no
number of steps is, they get the fewest from which on more steps make them no truer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import serving_calls as calls
from benchmarks.serving_identity import JUDGED, SERVED, identity
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_results import Gate, Kept, Row, gate_of_ratio, ratio
from benchmarks.serving_systems import BATCHING, SYSTEMS, Place, Running, Setting, launch
from benchmarks.serving_tuning import ROUNDS, best_setting

STEPS = (4, 8, 16, 32, 64)
UNKNOWN = {"steps": 50, "why": "captum's default; its maps were not judged: run python -m benchmarks.attribution first"}
CASES = 240
CALLERS = 16
MORE = 3
OURS, THEIRS = "facade_torchserve", "torchserve_captum"
MEASURES = ("pointing", "shapley_cosine")
TIMES = 5.0
"""How many times as fast ours should be."""

Judged = Mapping[str, tuple[float, float]]
"""Measure -> mean and its standard error."""


@dataclass(frozen=True)
class Explain:
    """The part.

    Args:
        place: where things are kept.
        calls_: of a block of captum's server; ours, which is faster, gets `MORE` times as many.
    """

    place: Place
    calls_: int

    @property
    def _judged(self) -> Kept:
        return Kept(self.place.folder / f"steps-{identity(JUDGED, cases=CASES, steps=STEPS)}.jsonl")

    def _kept(self, what: str) -> Kept:
        known = identity(SERVED, calls=self.calls_, steps=self.steps()["steps"])
        return Kept(self.place.folder / f"{what}-{known}.jsonl")

    def steps(self) -> Row:
        """How many captum takes, why so many, and what each number was worth."""
        return (self._judged.rows() or [UNKNOWN])[-1]

    async def measure(self, blocks: int) -> None:
        """The steps, captum's best setting, and the blocks that are not there, the two in turn."""
        if not self._judged.rows() and (self.place.folder.parent / "models").is_dir():
            self._judged.add(_fewest(self.place))
        steps, kept = self.steps(), self._kept("explain")
        print(f"captum takes {steps['steps']} steps: {steps['why']}", flush=True)
        begin = len(kept.rows())
        print(f"{begin} blocks are there already: {kept.path}", flush=True)
        if begin >= blocks:
            return
        setting = await best_setting(self._kept("explain_tuned"), THEIRS, BATCHING, self._rate)
        async with AsyncExitStack() as stack:
            servers = {}
            for name, told in ((OURS, Setting()), (THEIRS, setting)):
                servers[name] = await self._up(name, told)
                stack.push_async_callback(servers[name].close)
                await self._block(servers[name], CALLERS)
            for block in range(begin, blocks):
                row: Row = {"block": block, "setting": str(setting)}
                for name in (OURS, THEIRS)[:: -1 if block % 2 else 1]:
                    row[name] = await self._block(servers[name], self.calls_ * (MORE if name == OURS else 1))
                kept.add(row)

    async def _up(self, name: str, setting: Setting) -> Running:
        material, steps = Material(self.place.folder), 0 if name == OURS else int(self.steps()["steps"])
        system = SYSTEMS[OURS if name == OURS else "torchserve"]
        archive = material.archive(FAST)
        server = launch(system, self.place, setting, archive=archive, images=material.images, steps=steps)
        try:
            await server.until_right(self._requests(server)[0], material.right(FAST))
        except BaseException:
            await server.close()
            raise
        return server

    def _requests(self, server: Running) -> list[bytes]:
        jpegs = Material(self.place.folder).jpegs()
        if server.system.name == OURS:
            return [calls.analyze(jpeg, outputs=["predictions", "attributions"]) for jpeg in jpegs]
        return [server.system.request(jpeg) for jpeg in jpegs]

    async def _block(self, server: Running, count: int) -> float:
        """Calls a second."""
        _, seconds = await server.block(self._requests(server), callers=CALLERS, calls_=count)
        return count / seconds

    async def _rate(self, setting: Setting) -> float:
        server = await self._up(THEIRS, setting)
        try:
            return float(np.median([await self._block(server, self.calls_) for _ in range(ROUNDS)][1:]))
        finally:
            await server.close()

    def figures(self) -> dict[str, Any]:
        """Medians, calls a second."""
        rows = self._kept("explain").rows()
        return {name: float(np.median([row[name] for row in rows])) for name in (OURS, THEIRS)} if rows else {}

    def settings(self) -> dict[str, Any]:
        """What the servers were told."""
        rows, tuned = self._kept("explain").rows(), self._kept("explain_tuned").rows()
        return {THEIRS: rows[-1]["setting"], "tuning": tuned} if rows else {}

    def gate(self) -> Gate:
        """Whether ours is so many times as fast."""
        rows = {row["block"]: row for row in self._kept("explain").rows()}
        found = ratio(*({block: row[name] for block, row in rows.items()} for name in (OURS, THEIRS)))
        why = UNKNOWN["why"] if self.steps() == UNKNOWN else ""
        name = "predictions with attributions a second, ours / captum"
        return gate_of_ratio(name, found, TIMES, at_least=True, why=str(why))


def _fewest(place: Place) -> Row:
    """Judge our default and integrated gradients by the cells that a handler answers with."""
    from benchmarks.attribution import Bench, Options
    from saaa.attribution.metrics import centred_cosine, object_means, pointing, to_cells, to_pixels
    from saaa.attribution.removal import grid_of
    from saaa.work import ExplainOptions

    bench = Bench(Options(output=place.folder.parent))
    judge = bench._judge(0)
    cases = bench._cases(judge, 0)[:CASES]
    referee, rng = judge.referee(cases), np.random.default_rng(0)

    def judged(options: ExplainOptions) -> Judged:
        values: dict[str, list[float]] = {name: [] for name in MEASURES}
        for case, shares, found in zip(cases, referee, judge.maps(cases, options, rng), strict=True):
            pixels = to_pixels(to_cells(found, grid_of(judge.classifier)), case.inputs.shape[-1])
            masks = case.regions.numpy()
            values["pointing"].append(pointing(pixels, masks[0]))
            if shares is not None:
                values["shapley_cosine"].append(centred_cosine(object_means(pixels, masks), shares))
        return {
            name: (float(np.mean(each)), float(np.std(each, ddof=1) / len(each) ** 0.5))
            for name, each in values.items()
        }

    def told(name: str, found: Judged) -> None:
        words = ", ".join(f"{name} {mean:.3f} +- {error:.3f}" for name, (mean, error) in found.items())
        print(f"  {name:<34}{words}", flush=True)

    ours, tried = judged(ExplainOptions()), dict[int, Judged]()
    told("ours", ours)
    for steps in STEPS:
        tried[steps] = judged(ExplainOptions(method="integrated_gradients", steps=steps))
        told(f"integrated gradients, {steps} steps", tried[steps])
        if as_true(tried[steps], ours):
            break
    steps, why = choose(ours, tried)
    return {"steps": steps, "why": why, "cases": len(cases), "ours": ours, "tried": tried}


def as_true(found: Judged, other: Judged) -> bool:
    """Whether it is within one standard error of another, or above, in all measures."""
    return all(found[name][0] >= mean - error for name, (mean, error) in other.items())


def choose(ours: Judged, tried: Mapping[int, Judged]) -> tuple[int, str]:
    """The fewest steps that are as true as ours, else as the most steps that were tried; and which it is."""
    equal = [steps for steps, found in tried.items() if as_true(found, ours)]
    if equal:
        return min(equal), "the fewest as true as ours"
    most = max(tried)
    fewest = min(steps for steps, found in tried.items() if as_true(found, tried[most]))
    return fewest, f"never as true as ours; the fewest as true as {most}"
