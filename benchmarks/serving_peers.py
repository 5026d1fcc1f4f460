"""Throughput, latency and processor time of all servers: interleaved blocks, each server at its best setting."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving_identity import OTHERS, SERVED, identity
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_results import Gate, Kept, Ratio, Row, gate_of_ratio, percentile, ratio
from benchmarks.serving_systems import IN_PROCESS, SYSTEMS, Absent, Place, Running, Setting, System, launch
from benchmarks.serving_tuning import ROUNDS, best_setting

CONCURRENCY = (1, 4, 16)
BUSIEST = CONCURRENCY[-1]
SHARES = {1: 1 / 3, 4: 2 / 3, 16: 1.0}
"""Of a block's calls at each concurrency: fewer callers take longer for as many."""
FIGURES = ("throughput", "p50", "p99", "cpu_per_request")
OURS, OURS_LOCAL = "facade_torchserve", "facade_local"


@dataclass
class Peers:
    """The part.

    Args:
        place: where things are kept.
        names: of the systems.
        blocks: of each system and concurrency.
        calls: of a block at the greatest concurrency.
        tune: whether to look for the best setting of each first; else the first is taken.
    """

    place: Place
    names: tuple[str, ...]
    blocks: int
    calls: int
    tune: bool = True
    absent: dict[str, str] = field(default_factory=dict, init=False)
    _alone: dict[str, Setting] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.material = Material(self.place.folder)
        self._requests = {name: [SYSTEMS[name].request(jpeg) for jpeg in self.material.jpegs()] for name in self.names}
        known = identity(SERVED, calls=self.calls, tune=self.tune)
        self.rows = Kept(self.place.folder / f"peers-{known}.jsonl")
        self._absent = Kept(self.place.folder / f"absent-{known}.jsonl")
        last = {row["system"]: row["why"] for row in self._absent.rows()}
        self.absent = {name: why for name, why in last.items() if why}
        packages = {name: system.packages for name, system in SYSTEMS.items()}
        self._tuned = Kept(self.place.folder / f"tuned-{identity(OTHERS, calls=self.calls, packages=packages)}.jsonl")

    async def measure(self) -> None:
        """Find the best settings, then measure the blocks that are not there."""
        had = [name for name in self.names if name not in self.absent]
        left = [block for block in range(self.blocks) if not self._whole(block, had)]
        print(f"{self.blocks - len(left)} of {self.blocks} blocks are there already: {self.rows.path}", flush=True)
        if not left:
            return
        self._right = self.material.right(FAST)
        settings = {}
        for name in self.names:
            try:
                settings[name] = await self._best(SYSTEMS[name])
                self._alone[name] = await self._best_alone(SYSTEMS[name], settings[name])
            except Absent as reason:
                self._leave_out(name, reason)
        async with AsyncExitStack() as stack:
            running = {}
            for name, setting in settings.items():
                try:
                    running[name] = await self._up(SYSTEMS[name], setting)
                except Absent as reason:
                    self._leave_out(name, reason)
                    continue
                stack.push_async_callback(running[name].close)
                if self.absent.pop(name, ""):
                    self._absent.add({"system": name, "why": ""})
                if SYSTEMS[name].pauses:
                    running[name].processes.pause()
            for block in (block for block in range(self.blocks) if not self._whole(block, running)):
                await self._round(block, running, settings)

    def _leave_out(self, name: str, reason: Absent) -> None:
        self.absent[name] = str(reason)
        self._absent.add({"system": name, "why": str(reason)})
        print(f"left out: {name}: {reason}", flush=True)

    def _whole(self, block: int, names: Iterable[str]) -> bool:
        """Whether all of a block is there; else all is measured again, so that what is compared is of one time."""
        there = {(row["system"], row["concurrency"]) for row in self.rows.rows() if row["block"] == block}
        return there >= {(name, concurrency) for name in names for concurrency in CONCURRENCY}

    async def _up(self, system: System, setting: Setting) -> Running:
        running = launch(system, self.place, setting, archive=self.material.archive(FAST), images=self.material.images)
        try:
            if system is IN_PROCESS:
                running.next_line()
            else:
                await running.until_right(self._requests[system.name][0], self._right)
        except BaseException:
            await running.close()
            raise
        return running

    async def _best(self, system: System) -> Setting:
        """The setting of highest throughput at the greatest concurrency."""
        self.place.python(system)

        async def rate(setting: Setting) -> float:
            running = await self._up(system, setting)
            try:
                found = [await self._block(running, BUSIEST) for _ in range(ROUNDS)]
            finally:
                await running.close()
            return float(statistics.median(row["throughput"] for row in found[1:]))

        settings = system.settings if self.tune else system.settings[:1]
        return await best_setting(self._tuned, system.name, settings, rate)

    async def _best_alone(self, system: System, busy: Setting) -> Setting:
        """The setting for one caller: a server has one for all, but who calls the model himself may take his own."""
        if system is not IN_PROCESS:
            return busy

        async def rate(setting: Setting) -> float:
            found = [await self._block(running, 1, setting) for _ in range(ROUNDS)]
            return float(statistics.median(row["throughput"] for row in found[1:]))

        running = await self._up(system, busy)
        try:
            settings = system.settings if self.tune else system.settings[:1]
            return await best_setting(self._tuned, f"{system.name} at 1", settings, rate)
        finally:
            await running.close()

    async def _round(self, block: int, running: dict[str, Running], settings: dict[str, Setting]) -> None:
        turns = [(name, concurrency) for name in running for concurrency in CONCURRENCY]
        random.Random(block).shuffle(turns)
        for name, concurrency in turns:
            if name not in running:
                continue
            server = running[name]
            server.processes.go_on()
            try:
                setting = self._alone[name] if concurrency == 1 else settings[name]
                warm = min(2 * concurrency, self._calls(concurrency))
                await server.block(self._requests[name], callers=concurrency, calls_=warm, setting=setting)
                row = await self._block(server, concurrency, setting)
            except Exception as error:
                # The others are measured all the same; its rows so far stay.
                self._leave_out(name, Absent(f"it failed in block {block}: {type(error).__name__}: {error}"))
                del running[name]
                continue
            finally:
                if server.system.pauses:
                    server.processes.pause()
            told = str(settings[name]) + (f"; alone {self._alone[name]}" if self._alone[name] != settings[name] else "")
            self.rows.add({"system": name, "block": block, "setting": told, **row})
        print(f"block {block + 1} of {self.blocks}", flush=True)

    def _calls(self, concurrency: int) -> int:
        return max(1, round(self.calls * SHARES[concurrency]))

    async def _block(self, server: Running, concurrency: int, setting: Setting | None = None) -> Row:
        before, own, count = server.processes.seconds(), time.process_time(), self._calls(concurrency)
        requests = self._requests[server.system.name]
        times, seconds = await server.block(requests, callers=concurrency, calls_=count, setting=setting)
        own, spent = time.process_time() - own, server.processes.seconds() - before
        return {
            "concurrency": concurrency,
            "calls": count,
            "throughput": count / seconds,
            "p50": percentile(times, 0.5),
            "times": [round(each, 5) for each in times],
            "cpu_per_request": spent / count * 1000,
            "generator_cpu": own / count * 1000,
        }

    def by_block(self, name: str, concurrency: int, figure: str) -> dict[int, Any]:
        """A figure of each block, the last where it was measured again."""
        return {
            row["block"]: row[figure]
            for row in self.rows.rows()
            if (row["system"], row["concurrency"]) == (name, concurrency)
        }

    def figures(self) -> dict[str, Any]:
        """Medians over blocks, but p99 of all blocks' calls; throughput in calls a second, times in milliseconds."""
        found: dict[str, Any] = {figure: {} for figure in (*FIGURES, "generator_cpu") if figure != "p99"}
        for figure, table in found.items():
            for name in SYSTEMS:
                cells = {str(c): self.by_block(name, c, figure) for c in CONCURRENCY}
                row = {c: statistics.median(values.values()) for c, values in cells.items() if values}
                if row:
                    table[name] = row
        found["p99"] = {
            name: {
                str(c): percentile([t for each in times.values() for t in each], 0.99)
                for c in CONCURRENCY
                if (times := self.by_block(name, c, "times"))
            }
            for name in found["throughput"]
        }
        settings = {row["system"]: row["setting"] for row in self.rows.rows()}
        return {**found, "settings": settings, "tuning": self._tuned.rows(), "absent": self.absent}

    def ratio(self, figure: str, concurrency: int, name: str, other: str) -> Ratio | None:
        """One system's figure by another's."""
        return ratio(self.by_block(name, concurrency, figure), self.by_block(other, concurrency, figure))

    def gates(self) -> list[Gate]:
        """What must be reached."""
        gates = []
        for name in SYSTEMS:
            if name not in (IN_PROCESS.name, "grpc_aio", OURS, OURS_LOCAL):
                found = self.ratio("throughput", BUSIEST, OURS, name)
                label, why = f"throughput at {BUSIEST}, {OURS} / {name}", self.absent.get(name, "")
                gates.append(gate_of_ratio(label, found, 1.0, at_least=True, why=why))
        for figure, concurrency, bound in (("cpu_per_request", BUSIEST, 1.10), ("p50", 1, 1.25)):
            found = self.ratio(figure, concurrency, OURS, IN_PROCESS.name)
            name = f"{figure} at {concurrency}, {OURS} / {IN_PROCESS.name}"
            gates.append(gate_of_ratio(name, found, bound, at_least=False))
        return gates
