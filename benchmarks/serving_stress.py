"""Servers under stress: callers who are gone, overload, explanations beside predictions, half an hour of all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import serving_calls as calls
from benchmarks.serving_calls import Late, Refused
from benchmarks.serving_material import FAST, SLOW, Material
from benchmarks.serving_processes import OTHER, PROGRAMS
from benchmarks.serving_results import Row, percentile, second_and_last
from benchmarks.serving_systems import IN_PROCESS, SYSTEMS, Place, Running, Setting, launch

BURST, DEADLINE_S, STEADY, SETTLE_S = 24, 0.3, 4, 1.5
OVERLOAD, OVERLOAD_DEADLINE_S, CAPACITY_S = 5.0, 2.0, 8.0
FLOOD_BLOCKS = 20
SLOW_EXPLANATIONS = 20
PREDICTING = (1, 4)
"""Callers beside them."""
EXPLANATIONS = ({"method": "integrated_gradients", "steps": 32}, {"method": "rise", "masks": 64})
PATIENT = ("--explain.max_wait_s", "600")
SAMPLE_S = 5.0
FACADE = "facade_torchserve"
MEMORY = (*PROGRAMS, OTHER)
"""Whose memory is told apart."""


@dataclass(frozen=True)
class Stress:
    """The parts.

    Args:
        place: where things are kept.
    """

    place: Place

    @contextlib.asynccontextmanager
    async def running(
        self,
        name: str,
        setting: Setting,
        *,
        model: str = FAST,
        archive: Path | None = None,
        count: Path | None = None,
        options: Sequence[str] = (),
    ) -> AsyncIterator[tuple[Running, list[bytes]]]:
        """A server that answers, and its requests.

        Args:
            archive: another one of the same model, which must answer alike; the plain one unless given.
        """
        system, material = SYSTEMS[name], Material(self.place.folder)
        requests = [system.request(jpeg) for jpeg in material.jpegs()]
        archive = archive or material.archive(model)
        server = launch(
            system, self.place, setting, archive=archive, images=material.images, count=count, options=options
        )
        try:
            if system is IN_PROCESS:
                server.next_line()
            else:
                await server.until_right(requests[0], material.right(model))
            yield server, requests
        finally:
            await server.close()

    async def dead_work(self, name: str, setting: Setting) -> Row:
        """Calls with a short deadline among steady ones: how many images were computed for nobody.

        A server without metrics of its own counts in a file.
        """
        count = self.place.folder / "computed.bin"
        count.unlink(missing_ok=True)
        async with self.running(name, setting, model=SLOW, count=count) as (server, requests):

            def computed() -> int:
                return _metric(server, "saaa_batch_items_sum") if server.system.backend else count.stat().st_size

            answered, stop = 0, asyncio.Event()

            async def steady() -> None:
                nonlocal answered
                while not stop.is_set():
                    await server.caller(requests[0], 120)
                    answered += 1

            async def hurried(index: int) -> None:
                nonlocal answered
                with contextlib.suppress(Late, Refused):
                    await server.caller(requests[index % len(requests)], DEADLINE_S)
                    answered += 1

            await _still(computed)
            before = computed()
            loops = [asyncio.create_task(steady()) for _ in range(STEADY)]
            await asyncio.sleep(SETTLE_S)
            in_time = -answered
            await asyncio.gather(*(hurried(index) for index in range(BURST)))
            in_time += answered
            await asyncio.sleep(SETTLE_S)
            stop.set()
            await asyncio.gather(*loops)
            await _still(computed)
            return {"system": name, "dead": computed() - before - answered, "answered": answered}

    async def overload(self, seconds: float) -> Row:
        """Five times the capacity: what is still answered in time, how fast the rest is refused, what memory does.

        The load generator lives on the server's processors and takes more of them in the flood than when the capacity
        is found. So "goodput_blocks" are answers a second, in twenty blocks, and "goodput_bound" what the server could
        at most give on what the generator leaves of the processors; "goodput_share" is of the capacity as it was seen.
        """
        async with self.running(FACADE, Setting()) as (server, requests):
            for _ in range(2):  # once to warm up
                own = time.process_time()
                capacity = await _capacity(server, requests)
                own = (time.process_time() - own) / CAPACITY_S
            free = (os.cpu_count() or 1) - own
            memory, lags, accepted, refused, late, failed = [server.processes.memory()], [], [], [], 0, 0
            blocks = [0] * FLOOD_BLOCKS
            rng = random.Random(0)

            async def one(request: bytes, due: float) -> None:
                nonlocal late, failed
                start = time.perf_counter()
                lags.append(start - due)
                try:
                    await server.caller(request, OVERLOAD_DEADLINE_S)
                    end = time.perf_counter()
                    accepted.append(end - start)
                    if end < started + seconds:
                        blocks[int((end - started) / seconds * FLOOD_BLOCKS)] += 1
                except Refused:
                    refused.append(time.perf_counter() - start)
                except Late:
                    # Taken and not answered in time: it must weigh on what is said of those taken.
                    accepted.append(max(OVERLOAD_DEADLINE_S * 2, time.perf_counter() - start))
                    late += 1
                except Exception:
                    failed += 1

            async def look() -> None:
                while True:
                    # It costs tens of milliseconds of the same cores: rarely, and beside the arrivals.
                    await asyncio.sleep(min(SAMPLE_S, seconds / 20))
                    memory.append(await asyncio.to_thread(server.processes.memory))

            started, own = time.perf_counter(), time.process_time()
            looking = asyncio.create_task(look())
            tasks, due = set[asyncio.Task[None]](), started
            while due < started + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                task = asyncio.create_task(one(rng.choice(requests), due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += rng.expovariate(OVERLOAD * capacity)
            took = time.perf_counter() - started
            share = (time.process_time() - own) / took
            await asyncio.gather(*tasks)
            looking.cancel()
            goodput = (len(accepted) - late) / took
            tenth = max(1, len(memory) // 10)
            return {
                "capacity": capacity,
                "offered": (len(accepted) + len(refused) + failed) / took,
                "goodput": goodput,
                "goodput_share": goodput / capacity,
                "goodput_blocks": [count * FLOOD_BLOCKS / seconds for count in blocks],
                "goodput_bound": capacity * ((os.cpu_count() or 1) - share) / free,
                "p99_accepted_s": percentile(accepted, 0.99) / 1000 if accepted else None,
                "deadline_s": OVERLOAD_DEADLINE_S,
                "refused": len(refused),
                "refusal_p50_ms": percentile(refused, 0.5) if refused else None,
                "refusal_p99_ms": percentile(refused, 0.99) if refused else None,
                "late": late,
                "failed": failed,
                "generator_lag_p99_ms": percentile(lags, 0.99),
                "generator_cpu_share": share,
                "memory_growth": statistics.median(memory[-tenth:]) / statistics.median(memory[tenth : 2 * tenth + 1]),
            }

    async def interference(self, blocks: int, calls_: int, keep: Callable[[Row], None]) -> None:
        """Seconds of predictions with and without slow explanations in flight, in turn; a row a block.

        Args:
            calls_: the most of one row, two thirds of them from 4 callers and a third from 1.
        """
        async with self.running(FACADE, Setting(), options=PATIENT) as (server, requests):
            jpegs = Material(self.place.folder).jpegs()
            slow = [calls.analyze(jpegs[0], outputs=["attributions"], **options) for options in EXPLANATIONS]
            await server.block(requests, callers=4, calls_=16)
            for _ in range(blocks):
                row: Row = {}
                for callers, count in zip(PREDICTING, (calls_ // 3, 2 * calls_ // 3), strict=True):
                    quiet, _ = await server.block(requests, callers=callers, calls_=count)
                    async with _in_flight(server, slow):
                        busy, _ = await server.block(requests, callers=callers, calls_=count)
                    row |= {f"quiet_{callers}": quiet, f"busy_{callers}": busy}
                keep(row)

    async def soak(self, seconds: float) -> Row:
        """A mixed load: predictions, explanations, images that are none, callers that leave early."""
        async with self.running(FACADE, Setting()) as (server, requests):
            jpeg = Material(self.place.folder).jpegs()[0]
            explain = calls.analyze(jpeg, outputs=["predictions", "attributions"])
            rng, outcomes, samples = random.Random(0), dict[str, int](), list[dict[str, int]]()
            end = time.monotonic() + seconds

            async def caller() -> None:
                while time.monotonic() < end:
                    kind = rng.random()
                    request, timeout = rng.choice(requests), 30.0
                    if kind < 0.2:
                        request = explain
                    elif kind < 0.3:
                        request = calls.analyze(jpeg[: rng.randrange(len(jpeg) - 100)] or b"?")
                    elif kind < 0.4:
                        timeout = rng.uniform(0.001, 0.2)
                    try:
                        await server.caller(request, timeout)
                        said = "answered"
                    except (Late, Refused) as error:
                        said = type(error).__name__.lower()
                    except Exception as error:
                        code = getattr(error, "code", None)
                        said = code().name if code else type(error).__name__
                    outcomes[said] = outcomes.get(said, 0) + 1

            loops = [asyncio.create_task(caller()) for _ in range(8)]
            while time.monotonic() < end:
                await asyncio.sleep(min(SAMPLE_S, seconds / 20))
                samples.append(await asyncio.to_thread(server.sample))
            await asyncio.gather(*loops)
            return {
                "seconds": seconds,
                "outcomes": outcomes,
                "programs": server.processes.programs(),
                "memory": second_and_last([sum(told[name] for name in MEMORY) for told in samples]),
                "memory_of": {name: second_and_last([told[name] for told in samples]) for name in MEMORY},
                **{name: second_and_last([told[name] for told in samples]) for name in ("descriptors", "files")},
            }


async def _capacity(server: Running, requests: Sequence[bytes]) -> float:
    """Answers a second to 16 callers."""
    done, end = 0, time.perf_counter() + CAPACITY_S

    async def caller(index: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await server.caller(requests[index % len(requests)], 60)
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(caller(index) for index in range(16)))
    return done / (time.perf_counter() - start)


@contextlib.asynccontextmanager
async def _in_flight(server: Running, requests: Sequence[bytes]) -> AsyncIterator[None]:
    """`SLOW_EXPLANATIONS` calls under way, each followed by the next."""

    async def again(request: bytes) -> None:
        while True:
            try:
                await server.caller(request, 600)
            except Refused:
                await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(again(requests[index % len(requests)])) for index in range(SLOW_EXPLANATIONS)]
    try:
        await asyncio.sleep(1)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(2)  # what is at the backend ends


def _metric(server: Running, name: str) -> int:
    """The sum of a metric of `saaa up`, over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports[1]}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return round(sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


async def _still(count: Callable[[], int]) -> None:
    """Wait until a count stays the same."""
    last, since = count(), time.monotonic()
    while time.monotonic() < since + SETTLE_S:
        await asyncio.sleep(0.1)
        if (now := count()) != last:
            last, since = now, time.monotonic()
