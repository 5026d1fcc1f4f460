"""How fast the procedural world is drawn, and what its bytes are.

    python -m benchmarks.scenes [--scenes 120] [--workers 2]

Prints the CPU time of one rendering and of one scene with everything (layout, evidence verified by rendering again,
captions, files) on one core, and the wall time and digest of a small world.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import tyro

from training.scenes import CLASSES, ScenesConfig, render, run, sample_scene


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    scenes: int = 120
    """Scenes of the small world."""
    size: int = 160
    """Width and height of a picture, pixels."""
    workers: int = 2
    """Processes that draw the world."""


def main(options: Options) -> None:
    """Measures and prints one JSON object."""
    scenes = [sample_scene(label, f"benchmark/{k}", size=options.size)[0] for k in range(4) for label in CLASSES]
    started = process_time()
    for scene in scenes:
        render(scene, options.size)
    one = (process_time() - started) / len(scenes)
    parts = {
        "train": options.scenes - 2 * (options.scenes // 6),
        "val": options.scenes // 6,
        "test": options.scenes // 6,
    }
    with tempfile.TemporaryDirectory() as folder:
        started = process_time()
        run(ScenesConfig(output_dir=Path(folder) / "alone", size=options.size, workers=1, **parts))
        alone = (process_time() - started) / options.scenes
        begun = perf_counter()
        made = run(ScenesConfig(output_dir=Path(folder) / "pool", size=options.size, workers=options.workers, **parts))
        wall = perf_counter() - begun
    report = {
        "render_cpu_ms": round(1000 * one, 2),
        "scene_cpu_ms": round(1000 * alone, 2),
        "world_wall_s": round(wall, 2),
        "scenes": options.scenes,
        "workers": options.workers,
        "digest": made.digest,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
