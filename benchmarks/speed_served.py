"""The served part of `benchmarks.speed`: what is left of the compiled model's speed behind facade and TorchServe.

The facade on TorchServe answers 16 callers that send JPEGs of 100 KB over gRPC; beside it torch predicts the same JPEGs
eagerly, in float32, in a process of its own without any server, at its best number of workers and threads. They take
turns, block by block, on the same processors, and each ratio is of figures of one block.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import serving_calls as calls
from benchmarks.serving_identity import SERVED, identity
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_results import Gate, Kept, Ratio, Row, gate_of_ratio, ratio
from benchmarks.serving_stress import FACADE, Stress
from benchmarks.serving_systems import IN_PROCESS, Place, Running, Setting
from benchmarks.serving_tuning import ROUNDS, best_setting
from saaa.client import Client
from saaa.runtime.options import RuntimeOptions

CALLERS = 16
PREDICT, EXPLAIN, BESIDE = "predict", "explain", "in_process_fp32_predict"
LEAST = {PREDICT: 1.8, EXPLAIN: 1.0}
"""Of the rate in process."""


@dataclass(frozen=True)
class Served:
    """The part.

    Args:
        place: where things are kept; its folder is absolute.
        blocks: of each side; fewer than 20 are not judged.
        calls: of a block.
    """

    place: Place
    blocks: int
    calls: int

    def _kept(self, what: str) -> Kept:
        code = (*SERVED, "benchmarks/speed_served.py")
        known = identity(code, calls=self.calls, runtime=RuntimeOptions.from_environment())
        return Kept(self.place.folder / f"{what}-{known}.jsonl")

    async def measure(self) -> dict[str, Any]:
        """The blocks that are not there yet.

        Returns:
            Calls a second by `PREDICT`, `EXPLAIN` and `BESIDE`, medians of the blocks; "ratios" of the first two to the
            last, as `Ratio`; "setting" of the last; "runtime": what the service computed with.

        Raises:
            Absent: a server does not start, or answers otherwise than the model does.
        """
        kept = self._kept("speed_served")
        begin = len(kept.rows())
        print(f"{min(begin, self.blocks)} of {self.blocks} blocks are there already: {kept.path}", flush=True)
        if begin < self.blocks:
            async with AsyncExitStack() as stack:
                setting = await self._best_in_process()
                stress, archive = Stress(self.place), Material(self.place.folder).compiled(FAST)
                ours, requests = await stack.enter_async_context(stress.running(FACADE, Setting(), archive=archive))
                beside, plain = await stack.enter_async_context(stress.running(IN_PROCESS.name, setting))
                asked = [calls.analyze(jpeg, outputs=["predictions", "attributions"]) for jpeg in plain]
                sides = {PREDICT: (ours, requests), EXPLAIN: (ours, asked), BESIDE: (beside, plain)}
                for side in sides.values():
                    await self._rate(*side)
                told = {"setting": str(setting), "runtime": _runtime(ours)}
                for block in range(begin, self.blocks):
                    order = list(sides) if block % 2 else list(sides)[::-1]
                    kept.add({"block": block, **told, **{name: await self._rate(*sides[name]) for name in order}})
                    print(f"block {block + 1} of {self.blocks}", flush=True)
        return summary(kept.rows())

    async def _best_in_process(self) -> Setting:
        async def rate(setting: Setting) -> float:
            async with Stress(self.place).running(IN_PROCESS.name, setting) as side:
                return statistics.median([await self._rate(*side) for _ in range(ROUNDS)][1:])

        return await best_setting(self._kept("speed_tuned"), IN_PROCESS.name, IN_PROCESS.settings, rate)

    async def _rate(self, server: Running, requests: list[bytes]) -> float:
        """Calls a second."""
        _, seconds = await server.block(requests, callers=CALLERS, calls_=self.calls)
        return self.calls / seconds


def summary(rows: list[Row]) -> dict[str, Any]:
    """What `Served.measure` gives, of its blocks, 1 or more."""
    by_block = {name: {row["block"]: row[name] for row in rows} for name in (PREDICT, EXPLAIN, BESIDE)}
    ratios = {name: ratio(by_block[name], by_block[BESIDE]) for name in LEAST}
    return {
        **{name: round(statistics.median(rates.values()), 2) for name, rates in by_block.items()},
        "ratios": {name: asdict(found) for name, found in ratios.items() if found is not None},
        "setting": rows[-1]["setting"],
        "runtime": rows[-1]["runtime"],
    }


def gates_of_served(served: Mapping[str, Any]) -> list[Gate]:
    """What must be reached of `Served.measure`, which may be empty."""
    titles = {PREDICT: "predictions", EXPLAIN: "explained predictions"}
    gates = []
    for name, title in titles.items():
        found = served.get("ratios", {}).get(name)
        title = f"served: {title}, ours / torch fp32 in process"
        gates.append(gate_of_ratio(title, Ratio(**found) if found else None, LEAST[name], at_least=True))
    return gates


def _runtime(server: Running) -> str:
    """What the model is served with, and why with nothing faster."""
    with Client(f"127.0.0.1:{server.ports[0]}") as client:
        (model,) = client.models()
    told = model.execution
    return "" if told is None else f"{told.runtime}, {told.precision}{told.refused and f': {told.refused}'}"
