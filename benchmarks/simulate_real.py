"""The real facade measured for `benchmarks.simulate`: what a request costs, and what becomes of bursty arrivals.

Costs come from closed loops before and after the arrivals, never from the arrivals themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import serving_calls as calls
from benchmarks.serving_calls import GrpcCaller, Late, Refused
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_processes import Processes
from benchmarks.serving_systems import ANALYZE, free_ports
from benchmarks.simulate_pod import KINDS, Asked, Costs, Outcome
from saaa.v1 import analysis_pb2 as pb
from saaa.work import Work

OUTPUTS = {Work.PREDICT: ["predictions"], Work.EXPLAIN: ["predictions", "attributions"]}
CALLERS = {Work.PREDICT: (1, 2, 3, 5, 8, 20), Work.EXPLAIN: (1, 2, 3, 4, 10)}
"""Of the closed loops; the last keeps batches full."""
LONE = 1
START_S = 120.0


@dataclass
class Seen:
    """Samples of the closed loops."""

    batches: dict[Work, dict[int, list[float]]] = field(
        default_factory=lambda: {work: defaultdict(list) for work in KINDS}
    )
    decode: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    """A lone caller's seconds without the request's own `total`."""
    around: list[float] = field(default_factory=list)
    """A lone request's seconds in its lane without the worker's."""
    edge: dict[Work, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of processor time a call beside the worker's, with full batches."""

    @classmethod
    def together(cls, first: Seen, second: Seen) -> Seen:
        """Both."""
        both = cls()
        for seen in (first, second):
            for work in KINDS:
                for size, seconds in seen.batches[work].items():
                    both.batches[work][size] += seconds
                both.edge[work] += seen.edge[work]
            both.decode += seen.decode
            both.outside += seen.outside
            both.around += seen.around
        return both

    def costs(self) -> Costs:
        """What the simulation draws from; half of what is outside lies before admission, half after the result."""
        outside = float(np.median(self.outside)) / 2
        return Costs(
            batches={work: dict(sizes) for work, sizes in self.batches.items()},
            decode=tuple(self.decode),
            before=outside,
            around=max(0.0, float(np.median(self.around))),
            after=outside,
        )


class Real:
    """A facade that runs, and its caller.

    Args:
        processes: its own.
        port: of the facade.
        batches: the file in which it writes its batches.
        folder: of the images.
    """

    def __init__(self, processes: Processes, port: int, batches: Path, folder: Path) -> None:
        self._processes = processes
        self._caller = GrpcCaller(port, ANALYZE)
        self._batches = batches
        jpegs = Material(folder).jpegs()
        self._requests = {work: [calls.analyze(jpeg, outputs=OUTPUTS[work]) for jpeg in jpegs] for work in KINDS}
        self.start_s = 0.0

    async def until_answers(self) -> None:
        """Wait for the first answer; `start_s` is how long that took.

        Raises:
            RuntimeError: it ended, or was silent.
        """
        start = time.monotonic()
        while time.monotonic() < start + START_S and self._processes.root.poll() is None:
            with contextlib.suppress(Exception):
                await self._caller(self._requests[Work.PREDICT][0], 10)
                self.start_s = time.monotonic() - start
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the facade does not answer: {self._processes.last_words()}")

    async def measure(self, seconds: float, seen: Seen) -> None:
        """Closed loops, so many seconds each, added to what was seen."""
        for work in KINDS:
            for callers in CALLERS[work]:
                await self._loop(work, callers, seconds, seen)

    async def _loop(self, work: Work, callers: int, seconds: float, seen: Seen) -> None:
        self._rows()
        end, answers = time.perf_counter() + seconds, list[tuple[float, bytes]]()
        cpu = self._processes.seconds()

        async def caller(index: int) -> None:
            while (start := time.perf_counter()) < end:
                answer = await self._caller(self._requests[work][index % len(self._requests[work])])
                answers.append((time.perf_counter() - start, answer))
                index += 1

        await asyncio.gather(*map(caller, range(callers)))
        cpu = self._processes.seconds() - cpu
        rows = self._rows()
        for row in rows:
            seen.batches[Work(row["work"])][row["items"]].append(row["seconds"])
        if callers == LONE:
            for (total, answer), row in zip(answers, rows, strict=True):
                stages = {
                    each.stage: each.milliseconds / 1000 for each in pb.AnalyzeResponse.FromString(answer).timings
                }
                seen.decode.append(stages["decode"])
                seen.outside.append(total - stages["total"])
                seen.around.append(stages["classify"] - row["seconds"])
        if callers == max(CALLERS[work]):
            seen.edge[work].append((cpu - sum(row["cpu"] for row in rows)) / len(answers))

    async def replay(self, times: NDArray[np.float64], wanted: Sequence[Work], deadline_s: float) -> list[Asked]:
        """Send the arrivals when they are due, whatever has become of the others."""
        asked: list[Asked] = []
        begin = time.perf_counter() + 0.2

        async def one(index: int, work: Work) -> None:
            outcome: Outcome = "answered"
            start = time.perf_counter()
            try:
                await self._caller(self._requests[work][index % len(self._requests[work])], deadline_s)
            except Refused:
                outcome = "refused"
            except Late:
                outcome = "expired"
            asked.append(Asked(at=start - begin, work=work, outcome=outcome, seconds=time.perf_counter() - start))

        async with asyncio.TaskGroup() as group:
            for index, (when, work) in enumerate(zip(times, wanted, strict=True)):
                await asyncio.sleep(max(0.0, begin + when - time.perf_counter()))
                group.create_task(one(index, work))
        return asked

    def batches(self) -> dict[Work, dict[int, list[float]]]:
        """What the worker did since it was last asked."""
        found: dict[Work, dict[int, list[float]]] = {work: defaultdict(list) for work in KINDS}
        for row in self._rows():
            found[Work(row["work"])][row["items"]].append(row["seconds"])
        return found

    def _rows(self) -> list[dict[str, Any]]:
        """Its new lines."""
        lines = self._batches.read_text().splitlines() if self._batches.exists() else []
        self._batches.write_text("")
        return [json.loads(line) for line in lines]

    async def close(self) -> None:
        """End it."""
        await self._caller.close()
        await asyncio.to_thread(self._processes.stop)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Real]:
    """A facade that answers, with the small vision transformer of `benchmarks.serving`."""
    archive = Material(folder).archive(FAST)
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="simulate-") as private:
        batches = Path(private) / "batches.jsonl"
        told = {"models": archive.parent, "port": port, "batches": batches}
        flags = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "benchmarks.simulate_server", *flags]
        environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
        real = Real(Processes(command, environment, folder / "logs" / "simulate.log"), port, batches, folder)
        try:
            await real.until_answers()
            yield real
        finally:
            await real.close()
