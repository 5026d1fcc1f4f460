"""The model in TorchServe, for `benchmarks.serving`, without our facade and without our handlers.

As a program it makes the archive and becomes TorchServe's Java, started as `saaa up` starts it (quiet logs, own
folder), which is faster than TorchServe's own way. The classes are its handlers: `Predicting`, and `Explaining` by
captum's integrated gradients.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.serving_model import Model, told

NAME = "bench"
SOURCE_VARIABLE, STEPS_VARIABLE = "SERVING_ARCHIVE", "SERVING_STEPS"
BATCH_DELAY_MS = 5


class Predicting:
    """Class probabilities."""

    def initialize(self, context: Any) -> None:
        """Load the model."""
        self.model = Model(os.environ[SOURCE_VARIABLE], int(os.environ["OMP_NUM_THREADS"]))

    def handle(self, data: list[Mapping[str, bytes]], context: Any) -> list[bytes]:
        """Answer all requests of a batch by one forward."""
        return self.model.answers([bytes(form["image"]) for form in data])


class Explaining(Predicting):
    """Class probabilities, and integrated gradients of the most probable class at the patches' grid."""

    def handle(self, data: list[Mapping[str, bytes]], context: Any) -> list[bytes]:
        """Explain all requests of a batch together."""
        import torch
        from captum.attr import IntegratedGradients

        inputs = self.model.inputs([bytes(form["image"]) for form in data])
        with torch.inference_mode():
            rows = self.model.classifier(inputs).softmax(dim=1)
        method = IntegratedGradients(self.model.classifier)
        steps = int(os.environ[STEPS_VARIABLE])
        maps = method.attribute(inputs, target=rows.argmax(dim=1).clone(), n_steps=steps, internal_batch_size=8)
        grids = torch.nn.functional.avg_pool2d(maps.sum(dim=1, keepdim=True).float(), 16)[:, 0]
        self.model.computed(len(data))
        return [
            json.dumps({**dict(zip(self.model.classes, row.tolist(), strict=True)), "map": grid.tolist()}).encode()
            for row, grid in zip(rows, grids, strict=True)
        ]


def write_archive(path: Path, handler: str, *, workers: int, batch: int) -> None:
    """A `.mar` that starts one of the handlers above, with so many workers and so large batches."""
    manifest = {
        "runtime": "python",
        "model": {"modelName": NAME, "modelVersion": "1", "handler": "shim.py", "configFile": "config.yaml"},
        "archiverVersion": "0.12.0",
    }
    config = {
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": batch,
        "maxBatchDelay": BATCH_DELAY_MS if batch > 1 else 1,
        "responseTimeout": 600,
        "startupTimeout": 300,
    }
    shim = f"from benchmarks.serving_torchserve import {handler}\n\n\nclass Handler({handler}):\n    pass\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        file.writestr("config.yaml", "".join(f"{key}: {value}\n" for key, value in config.items()))
        file.writestr("shim.py", shim)


def main() -> None:
    """Become TorchServe."""
    from serving.backends.java import find_java
    from serving.backends.launch import Launch, Ports

    options = told()
    folder = Path(options.folder).resolve() / "torchserve"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = folder / "bench.mar"
    handler = "Explaining" if options.steps else "Predicting"
    write_archive(archive, handler, workers=options.workers, batch=options.batch)
    free = Ports.free()
    ports = Ports(
        inference=options.ports[0],
        management=options.ports[1],
        rest=free.rest,
        rest_management=free.rest_management,
        metrics=free.metrics,
    )
    launch = Launch(folder=folder, java=find_java(), ports=ports, threads=options.threads, heap_mb=1024)
    launch.prepare([archive])
    own = {SOURCE_VARIABLE: str(Path(options.archive).resolve()), STEPS_VARIABLE: str(options.steps)}
    os.environ["PYTHONPATH"] = str(Path.cwd())
    environment = launch.environment() | own
    os.chdir(folder)
    command = launch.command()
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
