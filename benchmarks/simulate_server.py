"""The real facade on its local backend, as `saaa up --backend local`, with the worker's times written down.

    python -m benchmarks.simulate_server --models FOLDER --port PORT --batches FILE

Each batch is a line of JSON: kind, items, wall and processor seconds that the executor took. Nothing else differs from
`saaa up`.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro

from saaa.work import ItemResult, ModelInfo, WorkBatch
from serving.backends.local import LocalBackend
from serving.server import Facade, serve, until_signal
from serving.settings import FacadeSettings

if TYPE_CHECKING:
    from saaa.runtime.executor import Executor


class _Timed:
    """An executor whose batches are written down."""

    def __init__(self, executor: Executor, path: Path) -> None:
        self._executor = executor
        self._path = path

    @property
    def info(self) -> ModelInfo:
        return self._executor.info

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        start, cpu = time.perf_counter(), time.thread_time()
        results = self._executor.run(batch)
        took = {"seconds": time.perf_counter() - start, "cpu": time.thread_time() - cpu}
        row = {"work": batch.work.value, "items": len(batch.items), **took}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return results


class _TimedBackend(LocalBackend):
    def __init__(self, models: Path, batches: Path) -> None:
        super().__init__(models)
        self._batches = batches

    def _open(self, path: Path) -> Executor:
        return cast("Executor", _Timed(super()._open(path), self._batches))


def main(models: Path, port: int, batches: Path) -> None:
    """Serve until a signal.

    Args:
        models: folder of archives.
        port: to listen on.
        batches: file that batches are added to.
    """

    async def work() -> None:
        async with _TimedBackend(models, batches) as backend:
            await serve(Facade(backend, FacadeSettings(port=port)))

    asyncio.run(until_signal(work()))


if __name__ == "__main__":
    tyro.cli(main)
