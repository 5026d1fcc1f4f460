"""The trainer measured: how fast, how exact, how accurate.

    python -m benchmarks.training egdd

speed: the published command's recipe on photographs made here, our trainer and a plain loop (`plain_finetune`) in turn;
exact: both without chance, and two processes against one; photos: the accuracy on scenes15, which lies in --data.
Writes `build/bench/egdd.json`, part by part.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from PIL import Image

from benchmarks.figures import add_figures

Part = Literal["speed", "exact", "photos"]
MODEL, CLASSES = "vit_tiny_patch16_224", 4
WARM_UP, STEPS, BATCH = 2, 6, 32
"""Steps before the clock starts, steps that are timed, images of a step on one process."""
PROCESSES = (1, 2)
KEYS = ("images_per_s", "loader_per_s", "step_per_s", "val_accuracy", "max_loss_gap", "ddp_gap")
"""What egdd.json always has; null is not measured."""
PUBLISHED = (
    f"--model {MODEL} --batch_size {BATCH} --epochs 1 --warmup_epochs 0 --blr 5e-4 --layer_decay 0.65 "
    "--weight_decay 0.05 --drop_path 0.1 --mixup 0.8 --cutmix 1.0 --reprob 0.25 --dist_eval --amp none"
).split()
"""The published command, for a small network and one epoch."""
GATES = (
    ("max_loss_gap", False, 1e-5),
    ("ddp_gap", False, 1e-5),
    ("loader_by_step", True, 2.0),
    ("gpu_gain", True, 2.0),
    ("val_mean", True, 0.90),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to measure, and where."""

    job: tyro.conf.Positional[Literal["egdd"]]
    """Which trainer."""
    output: Path = Path("build/bench")
    data: Path = Path("../shared/data")
    """Folder that holds scenes15, for the photos."""
    rounds: int = 3
    """Timed runs of each kind, in turn; medians are taken."""
    parts: tuple[Part, ...] = ("speed", "exact", "photos")
    """What to measure; what egdd.json already says of the rest is kept."""


def main(options: Options) -> None:
    """Measure the parts, print the table and the gates, write the JSON."""
    measures: Mapping[Part, Callable[[Options], dict[str, Any]]] = {"speed": speed, "exact": exact, "photos": accuracy}
    path = options.output / f"{options.job}.json"
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        add_figures(path, measures[part](options), KEYS)
    figures = json.loads(path.read_text())
    report(figures)
    print(json.dumps(figures))


def speed(options: Options) -> dict[str, Any]:
    """Images a second and peak memory of both trainers; the loader and the step alone; what a GPU's precision gains."""
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = {processes: Path(scratch) / f"photographs-{processes}" for processes in PROCESSES}
        for processes, folder in data.items():
            draw_photographs(folder, (WARM_UP + STEPS) * BATCH * processes)
        for _ in range(options.rounds):
            for processes, folder in data.items():
                runs.setdefault(("ours", processes), []).append(_ours(folder, Path(scratch) / "run", processes))
                runs.setdefault(("plain", processes), []).append(_plain(folder, processes))
        words = ["benchmarks.pace", "--data", str(data[1]), "--model", MODEL, "--batch_size", str(BATCH)]
        alone = json.loads(_run(words)[0].splitlines()[-1])
    middle = {key: [statistics.median(column) for column in zip(*runs[key], strict=True)] for key in runs}
    return {
        "images_per_s": {who: middle[who, 1][0] for who in ("ours", "plain")},
        "images_per_s_2_processes": {who: middle[who, 2][0] for who in ("ours", "plain")},
        "peak_mib": {who: middle[who, 1][1] for who in ("ours", "plain")},
        "peak_mib_2_processes": {who: middle[who, 2][1] for who in ("ours", "plain")},
        **alone,
        "loader_by_step": alone["loader_per_s"] / alone["step_per_s"],
    }


def exact(options: Options) -> dict[str, Any]:
    """The largest gaps over 50 steps: to the plain trainer, and of two processes to one with twice the batch."""
    from benchmarks.exactness import CASES, gap_to_plain, gaps_of_processes, prepare

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(next(iter(CASES.values())), folder)
        plain = {name: gap_to_plain(case, folder, folder / name) for name, case in CASES.items()}
        processes = gaps_of_processes(folder, folder / "processes")
    return {
        "max_loss_gap": max(plain.values()),
        "loss_gaps": plain,
        "ddp_gap": max(processes.values()),
        "ddp_gaps": processes,
    }


def accuracy(options: Options) -> dict[str, Any]:
    """The accuracy on photographs, ours and a plain fine-tune's."""
    from benchmarks.photos_accuracy import photos

    if not (options.data / "scenes15").is_dir():
        print(f"{options.data / 'scenes15'} is missing: the accuracy on photographs is left out")
        return {}
    found = photos(options.data, options.output / "photos")
    return {**found, "val_mean": statistics.mean(found["val_accuracy"])}


def draw_photographs(folder: Path, count: int) -> None:
    """Write FOLDER/train/<class>/ with `count` JPEG pictures in all, as large and as dear to decode as photographs of
    the web, and FOLDER/val/ with one a class."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", CLASSES)):
        for i in range(number):
            rough = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            pixels = np.asarray(rough.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
            grain = rng.integers(-12, 13, pixels.shape, dtype=np.int16)
            place = folder / split / f"class-{i % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(place / f"{i:04}.jpg", quality=90)


def _ours(data: Path, output: Path, processes: int) -> tuple[float, float]:
    """Images a second of our trainer and MiB of its largest process; each step's own time counts, not the start."""
    import csv

    shutil.rmtree(output, ignore_errors=True)
    words = ["training", "egdd", "--data_path", str(data), "--output_dir", str(output), *PUBLISHED]
    _, memory = _run(words, processes)
    with (output / "steps.csv").open(newline="") as file:
        rates = [float(row["images_per_s"]) for row in csv.DictReader(file)]
    return statistics.harmonic_mean(rates[WARM_UP:]), memory


def _plain(data: Path, processes: int) -> tuple[float, float]:
    """The same of the plain loop, with as many reading processes as ours takes: one a core."""
    workers = max(1, len(os.sched_getaffinity(0)) // processes)
    words = (
        f"--data {data} --model {MODEL} --batch_size {BATCH} --steps {STEPS} --warm_up {WARM_UP} --workers {workers}"
    )
    printed, memory = _run(["benchmarks.plain_finetune", *words.split()], processes)
    return json.loads(printed.splitlines()[-1])["images_per_s"], memory


def _run(words: Iterable[str], processes: int = 1) -> tuple[str, float]:
    """Run a module, by torchrun if in several processes; gives what it printed and MiB of its largest process."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    command += words
    print("$ python", *command[1:], flush=True)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{printed}\n{' '.join(command)} ended with exit code {child.returncode}")
    return printed, usage.ru_maxrss / 1024


def report(figures: Mapping[str, Any]) -> None:
    """Print the table, and the gates of what was measured."""
    rows = (
        ("images a second", "images_per_s"),
        ("  2 processes", "images_per_s_2_processes"),
        ("peak MiB, largest process", "peak_mib"),
        ("  2 processes", "peak_mib_2_processes"),
    )
    print(f"\n{MODEL}, 224 pixels{'ours':>28}{'plain':>10}")
    for title, key in rows:
        if figures.get(key):
            print(f"  {title:<46}" + "".join(f"{figures[key][who]:10.1f}" for who in ("ours", "plain")))
    for key in ("loader_per_s", "loader_uncached_per_s", "step_per_s"):
        if figures.get(key):
            print(f"  {key:<46}{figures[key]:10.1f}")
    if figures.get("gpu"):
        print(f"  GPU: {figures['gpu']}")
    print("\ngates")
    for name, at_least, bound in GATES:
        value = figures.get(name)
        if value is not None:
            sign, reached = (">=", value >= bound) if at_least else ("<=", value <= bound)
            print(f"  {name:<24}{value:10.3g}   {sign} {bound:<6g}{'reached' if reached else 'MISSED'}")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.training", description=__doc__))
