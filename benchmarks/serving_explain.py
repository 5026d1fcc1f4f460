"""Predictions with attributions: our facade against TorchServe with a handler that calls captum.

captum's integrated gradients get the fewest steps with which they are about as true as our default method, on models
whose truth is known (`benchmarks.attribution`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import serving_calls as calls
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_results import Kept, Row
from benchmarks.serving_systems import SYSTEMS, Place, Setting, launch

STEPS = (4, 8, 16, 32, 64)
UNKNOWN_STEPS = 50
"""captum's own default."""
CASES = 120
CALLERS = 16
WORLD_MISSING = "build/bench/models is missing: run python -m benchmarks.attribution first"
OURS, THEIRS = "facade_torchserve", "torchserve_captum"
MEASURES = ("pointing", "shapley_cosine")


@dataclass(frozen=True)
class Explain:
    """The part.

    Args:
        place: where things are kept.
    """

    place: Place

    @property
    def rows(self) -> Kept:
        """A row a block."""
        return Kept(self.place.folder / "explain.jsonl")

    def steps(self) -> Row:
        """The fewest steps of integrated gradients within one standard error of our method on both measures; the most
        tried where none is; captum's default where the models with known truth are not there."""
        kept = Kept(self.place.folder / "steps.jsonl")
        if kept.rows():
            return kept.rows()[-1]
        if not (self.place.folder.parent / "models").is_dir():
            print(WORLD_MISSING)
            return {"steps": UNKNOWN_STEPS, "why": "captum's default; faithfulness not measured"}
        row = _fewest(self.place)
        kept.add(row)
        return row

    async def measure(self, blocks: int, calls_: int) -> None:
        """The blocks that are not there, the two in turn."""
        begin = len(self.rows.rows())
        if begin >= blocks:
            return
        material = Material(self.place.folder)
        archive, jpegs, right = material.archive(FAST), material.jpegs(), material.right(FAST)
        ours, theirs = SYSTEMS[OURS], SYSTEMS["torchserve"]
        steps = self.steps()["steps"]
        asked = [calls.analyze(jpeg, outputs=["predictions", "attributions"]) for jpeg in jpegs]
        facade = launch(ours, self.place, Setting(), archive=archive, images=material.images)
        captum = launch(theirs, self.place, Setting(), archive=archive, images=material.images, steps=steps)
        try:
            requests = {facade: asked, captum: [theirs.request(jpeg) for jpeg in jpegs]}
            await facade.until_right(asked[0], right)
            await captum.until_right(requests[captum][0], right)
            for server, own in requests.items():
                await server.block(own, callers=CALLERS, calls_=CALLERS)
            for block in range(begin, blocks):
                row: Row = {"block": block, "steps": steps}
                for server, name in ((facade, OURS), (captum, THEIRS))[:: -1 if block % 2 else 1]:
                    _, seconds = await server.block(requests[server], callers=CALLERS, calls_=calls_)
                    row[name] = calls_ / seconds
                self.rows.add(row)
        finally:
            await facade.close()
            await captum.close()

    def figures(self) -> dict[str, Any]:
        """Medians, calls a second."""
        rows = self.rows.rows()
        return {name: float(np.median([row[name] for row in rows])) for name in (OURS, THEIRS)} if rows else {}


def _fewest(place: Place) -> Row:
    from benchmarks.attribution import Bench, Options
    from saaa.work import ExplainOptions

    bench = Bench(Options(output=place.folder.parent))
    judge = replace(bench._judge(0), blur=False)
    cases = bench._cases(judge, 0)[:CASES]
    referee = judge.referee(cases)

    def measured(options: ExplainOptions) -> dict[str, tuple[float, float]]:
        values = judge.measure(cases, referee, options).values
        return {
            name: (float(np.mean(values[name])), float(np.std(values[name], ddof=1) / len(values[name]) ** 0.5))
            for name in MEASURES
        }

    ours, tried = measured(ExplainOptions()), {}
    for steps in STEPS:
        found = measured(ExplainOptions(method="integrated_gradients", steps=steps))
        tried[steps] = found
        if all(found[name][0] >= ours[name][0] - ours[name][1] for name in MEASURES):
            return {"steps": steps, "why": "as true as ours", "ours": ours, "tried": tried}
    return {"steps": STEPS[-1], "why": "never as true as ours", "ours": ours, "tried": tried}
