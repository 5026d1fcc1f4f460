"""Our service beside others: the same model, the same JPEGs of 100 KB, the same client, in interleaved blocks.

    python -m benchmarks.serving --parts peers dead_work explain interference overload soak

Others are installed into environments of their own below `build/bench/env` (uv) and left out with a word where that
fails. Every block is kept below `build/bench/serving`, in files that are named by a digest of the code, the settings,
the packages and the processor: the same command goes on where it stopped, and what was measured of anything else is not
used. A server that could not be had, and is so left out, is tried again where blocks are missing. `--again` forgets.
Processor time is that of a server's processes alone; the load generator's is printed beside it. Writes
`build/bench/serving.json` (which is also the last line printed) and `build/bench/serving.png`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro

from benchmarks.serving_explain import OURS, Explain
from benchmarks.serving_identity import SERVED, identity
from benchmarks.serving_peers import CONCURRENCY, FIGURES, Peers
from benchmarks.serving_plot import draw
from benchmarks.serving_results import (
    Gate,
    Kept,
    gate_of_goodput,
    gate_of_ratio,
    gate_of_value,
    gates_of_soak,
    percentile,
    pooled_ratio,
)
from benchmarks.serving_stress import BURST, OVERLOAD_DEADLINE_S, PREDICTING, SLOW_EXPLANATIONS, Stress
from benchmarks.serving_systems import IN_PROCESS, SYSTEMS, Absent, Place, Setting

Part = Literal["peers", "dead_work", "explain", "interference", "overload", "soak"]
PARTS: tuple[Part, ...] = ("peers", "dead_work", "explain", "interference", "overload", "soak")

FILES: dict[Part, tuple[str, ...]] = {"peers": ("tuned", "absent"), "explain": ("explain_tuned", "steps")}
"""What else a part keeps."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and how long."""

    output: Path = Path("build/bench")
    parts: tuple[Part, ...] = PARTS
    systems: tuple[str, ...] = tuple(SYSTEMS)
    """Of the parts peers and dead_work."""
    blocks: int = 20
    """Of each system and concurrency, and of explain and interference."""
    calls: int = 96
    """Of a block at the greatest concurrency, and of a block of interference."""
    explained: int = 16
    """Calls of a block of the part explain to captum's server; ours, which is faster, gets three times as many."""
    tune: bool = True
    """Find each server's best setting first."""
    overload_s: float = 60.0
    soak_minutes: float = 30.0
    again: bool = False
    """Forget what was measured of these parts."""

    def __post_init__(self) -> None:
        # Servers run in folders of their own and are told of files below this one.
        object.__setattr__(self, "output", self.output.resolve())


class Bench:
    """The parts, what they keep, and what follows.

    Args:
        options: see there.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = options.output / "serving"
        place = Place(folder=self._folder, environments=options.output / "env")
        if options.again:
            for part in options.parts:
                for kept in (part, *FILES.get(part, ())):
                    for path in self._folder.glob(f"{kept}-*.jsonl"):
                        path.unlink()
        shutil.rmtree(self._folder / "logs", ignore_errors=True)
        self._stress = Stress(place)
        self.peers_ = Peers(place, options.systems, options.blocks, options.calls, options.tune)
        self._explain = Explain(place, options.explained)

    def kept(self, part: Part) -> Kept:
        """The rows of a part that has nothing but rows, measured with this code and these settings."""
        told = self._options
        settings = {"interference": told.calls, "overload": told.overload_s, "soak": told.soak_minutes}
        return Kept(self._folder / f"{part}-{identity(SERVED, setting=settings.get(part))}.jsonl")

    async def peers(self) -> None:
        """All servers."""
        await self.peers_.measure()

    async def dead_work(self) -> None:
        """One row a system."""
        for name in self._options.systems:
            if name != IN_PROCESS.name and not self.kept("dead_work").has(system=name):
                try:
                    self.kept("dead_work").add(await self._stress.dead_work(name, Setting()))
                except Absent as reason:
                    print(f"left out: {name}: {reason}", flush=True)

    async def explain(self) -> None:
        """The blocks."""
        await self._explain.measure(self._options.blocks)

    async def interference(self) -> None:
        """The blocks."""
        kept = self.kept("interference")
        left = self._options.blocks - len(kept.rows())
        if left > 0:
            await self._stress.interference(left, self._options.calls, kept.add)

    async def overload(self) -> None:
        """One row."""
        if not self.kept("overload").rows():
            self.kept("overload").add(await self._stress.overload(self._options.overload_s))

    async def soak(self) -> None:
        """One row."""
        if not self.kept("soak").rows():
            self.kept("soak").add(await self._stress.soak(self._options.soak_minutes * 60))

    def figures(self) -> dict[str, Any]:
        """All that was measured, in this run or before."""
        dead = self.kept("dead_work").rows()
        return {
            **self.peers_.figures(),
            "dead_work": {row["system"]: row["dead"] for row in dead},
            "dead_work_calls": BURST,
            "explain_throughput": self._explain.figures(),
            "explain_settings": self._explain.settings(),
            "explain_steps": self._explain.steps(),
            "interference": self._interference(),
            "overload": (self.kept("overload").rows() or [None])[-1],
            "soak": (self.kept("soak").rows() or [None])[-1],
        }

    def _interference(self) -> dict[str, dict[str, float]]:
        """p99 of all blocks' calls in ms: callers -> "quiet" or "busy" -> figure."""
        rows = self.kept("interference").rows()
        return {
            str(callers): {
                name: percentile([seconds for row in rows for seconds in row[f"{name}_{callers}"]], 0.99)
                for name in ("quiet", "busy")
            }
            for callers in (PREDICTING if rows else ())
        }

    def gates(self, figures: dict[str, Any]) -> list[Gate]:
        """What must be reached."""
        gates = [*self.peers_.gates(), self._explain.gate()]
        blocks = dict(enumerate(self.kept("interference").rows()))
        for callers in PREDICTING:
            pair = [{b: row[f"{name}_{callers}"] for b, row in blocks.items()} for name in ("busy", "quiet")]
            name = f"p99 of predictions of {callers}, beside 20 explanations / alone"
            gates.append(gate_of_ratio(name, pooled_ratio(*pair, 0.99), 1.25, at_least=False))
        dead, flood = figures["dead_work"].get(OURS), figures["overload"] or {}
        gates += [
            gate_of_value(f"dead work of {BURST} calls, {OURS}", dead, 1),
            gate_of_goodput(flood),
            gate_of_value("overload: p99 of accepted, s", flood.get("p99_accepted_s"), OVERLOAD_DEADLINE_S),
            gate_of_value("overload: p99 of refusals, ms", flood.get("refusal_p99_ms"), 20),
            gate_of_value("overload: neither answered, refused nor late", flood.get("failed"), 0),
            gate_of_value("overload: memory, end / begin", flood.get("memory_growth"), 1.05),
        ]
        return [*gates, *gates_of_soak(figures["soak"] or {})]


def report(figures: dict[str, Any]) -> None:
    """Print the tables."""
    titles = {
        "throughput": "calls a second",
        "p50": "p50, ms",
        "p99": "p99, ms",
        "cpu_per_request": "server's processor time a call, ms",
        "generator_cpu": "load generator's processor time a call, ms (not in the figures above)",
    }
    for figure in (*FIGURES, "generator_cpu"):
        print(f"\n{titles[figure]}\n  {'':<20}" + "".join(f"{f'at {c}':>10}" for c in CONCURRENCY))
        for name, row in figures[figure].items():
            cells = "".join(f"{row[str(c)]:10.2f}" if str(c) in row else f"{'-':>10}" for c in CONCURRENCY)
            print(f"  {name:<20}{cells}   {figures['settings'].get(name, '')}")
    for name, why in figures["absent"].items():
        print(f"  {name:<20}left out: {why.splitlines()[0]}")
    print(f"\ncomputed for nobody, of {BURST} calls with a short deadline on a busy server")
    for name, count in figures["dead_work"].items():
        print(f"  {name:<20}{count:5d}")
    print("\npredictions with attributions a second")
    for name, rate in figures["explain_throughput"].items():
        print(f"  {name:<20}{rate:8.2f}   {figures['explain_settings'].get(name, '')}")
    print(f"  captum: {figures['explain_steps']['steps']} steps, {figures['explain_steps']['why']}")
    for callers, found in figures["interference"].items():
        said = f"alone {found['quiet']:.1f}, beside {SLOW_EXPLANATIONS} slow explanations {found['busy']:.1f}"
        print(f"\np99 of predictions of {callers}, ms: {said}")
    for name in ("overload", "soak"):
        if figures[name]:
            print(f"\n{name}\n  " + json.dumps(figures[name]))


async def measure(options: Options) -> None:
    """The parts asked for, one after the other."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    bench = Bench(options)
    for part in options.parts:
        print(f"\n== {part}", flush=True)
        start = time.monotonic()
        await getattr(bench, part)()
        print(f"{part}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    figures = bench.figures()
    report(figures)
    print("\ngates")
    gates = bench.gates(figures)
    for gate in gates:
        print(gate)
    draw(figures, options.output / "serving.png")
    figures["gates"] = {gate.name: gate.as_json() for gate in gates}
    text = json.dumps(figures)
    (options.output / "serving.json").write_text(text + "\n")
    print(f"\n{options.output / 'serving.png'}\n{text}")


if __name__ == "__main__":
    try:
        asyncio.run(measure(tyro.cli(Options, prog="python -m benchmarks.serving", description=__doc__)))
    except asyncio.CancelledError:
        sys.exit("stopped; the same command goes on from here")
