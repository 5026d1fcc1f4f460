"""How fast models are on the compiled runtime, alone and behind the service: `python -m benchmarks.speed`.

Beside ours run torch's eager forward and a bare call of OpenVINO on the same network. All run in one thread and take
turns, so that whatever else the machine does hits all alike; times are medians of processor time, in milliseconds a
batch. Networks of what is timed are untrained but lively: what they cost does not depend on their weights. Needs the
extra openvino; the part `captions` also the archives that `make demo` leaves. The part `maps` trains a classifier
whose truth is known, the first time (15 minutes).

Prints what must be reached, draws it as `build/bench/speed.png`, and writes `build/bench/speed.json`, part by part,
which it prints last:

- "cpu": the processor's name and the features that matter here, "bf16": null or why it is not measured, "precision"
- "predict": {model: {batch: {"torch_fp32", "openvino_direct", "ours"}}}
- "explain": {batch: {"torch_forward", "torch", "ours"}} of a prediction with its default attribution, ViT-Ti;
  "explain_cnn" of EfficientNet-Lite0; "four_classes" {"torch_forward", "torch", "ours"} at batch 1, ViT-Ti
- "decode_step": {rows: {"torch_fp32", "torch", "ours"}} of the captioner's published sizes with 10,000 words, from the
  last words to the next one's log-probabilities: the equations in plain torch, our eager step, the compiled one
- "caption": {batch: {"torch", "ours"}} of the trained captioner, from pixels to a greedy caption along a graph
- "start_s": {"torch", "openvino_cold", "openvino_warm"}, wall clock from the process's start to its first answers, and
  "start_cpu_s", its processor time
- "parity": {model: {precision: as in the model card}, "captions": of a trained captioner, beside torch's, as
  `benchmarks.speed_captioner.captions` tells}
- "maps": {"torch", "openvino_fp32", "openvino_bf16": {figure of `benchmarks.attribution`: mean}} of the default method
- "served": {"predict", "explain", "in_process_fp32_predict"} a second at concurrency 16, see `benchmarks.speed_served`
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import tyro

from benchmarks.attribution import Bench
from benchmarks.attribution import Options as MapOptions
from benchmarks.serving_systems import Place
from benchmarks.speed_captioner import captioning, captions
from benchmarks.speed_classifiers import MODELS, classifiers
from benchmarks.speed_report import draw, gates, tables
from benchmarks.speed_served import Served
from saaa.runtime.engine import has_bf16
from saaa.runtime.options import BF16, FP32

Part = Literal["classifiers", "captioner", "captions", "maps", "served"]
SHARED = ("predict", "parity")
"""What more than one measurement tells of, model by model."""
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    output: Path = Path("build/bench")
    """Folder for speed.json and speed.png."""
    parts: tuple[Part, ...] = ("classifiers", "captioner", "captions", "maps", "served")
    """What to measure; what speed.json already says of the rest is kept, if it is of this processor."""
    rounds: int = 15
    """Measured turns of each call at batch 1; a third of it at larger batches."""
    parity_images: int = 32
    """Made-up images on which parity is measured."""
    models: tuple[str, ...] = tuple(MODELS)
    """Which of the classifiers."""
    demo: Path = Path("build/demo")
    """Output folder of the world demo, for the part captions."""
    pictures: int = 200
    """Validation pictures of the part captions, with all their regions."""
    scenes: int = 100
    """Of the part maps."""
    blocks: int = 20
    """Of the part served; fewer are measured, and not judged."""
    calls: int = 192
    """Of a block."""

    def __post_init__(self) -> None:
        # Servers run in folders of their own and are told of files below this one.
        object.__setattr__(self, "output", self.output.resolve())

    @property
    def captioner(self) -> Path:
        """The archive of the part captions."""
        return self.demo / "models" / "scenes-captioner.mar"


def main(options: Options) -> None:
    """Measure and print."""
    if "captions" in options.parts and not options.captioner.is_file():
        sys.exit(f"{options.captioner} is missing: run `make demo` first, or leave the part captions out")
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    machine = described()
    there = machine["cpu"]["features"]
    lacking = [name for name in _FEATURES if name not in there]
    print(f"{machine['cpu']['name']}: {', '.join(there)}; without {', '.join(lacking) or 'nothing that matters here'}")
    print(machine["bf16"] or "compiled in bf16", flush=True)
    path = options.output / "speed.json"
    for part in options.parts:
        print(f"\n== {part}", flush=True)
        write(path, {**machine, **measure(part, options, machine["precision"])}, machine)
    figures = json.loads(path.read_text())
    judged = gates(figures)
    print(tables(figures))
    print("\ngates")
    for gate in judged:
        print(gate)
    draw(figures, judged, options.output / "speed.png")
    print(f"\n{options.output / 'speed.png'}\n{json.dumps(figures)}")


def measure(part: Part, options: Options, precision: str) -> dict[str, Any]:
    """One part's figures."""
    if part == "classifiers":
        return classifiers(options.models, precision, options.rounds, options.parity_images)
    if part == "captioner":
        return captioning(precision, options.rounds)
    if part == "captions":
        told = captions(options.captioner, options.demo / "world", options.pictures, precision, options.rounds)
        return {"parity": {"captions": told["said"]}, "caption": told["caption"]}
    if part == "maps":
        bench = MapOptions(output=options.output, demo=options.demo, others=options.scenes)
        torch.set_num_threads(bench.threads)
        try:
            return {"maps": Bench(bench).compiled()["compiled"]}
        finally:
            torch.set_num_threads(1)
    place = Place(folder=options.output / "serving", environments=options.output / "env")
    return {"served": asyncio.run(Served(place, options.blocks, options.calls).measure())}


def described() -> dict[str, Any]:
    """ "cpu", "bf16" and "precision"."""
    bf16 = None if has_bf16() else "this processor has no units for bf16; fp32 is measured"
    return {"cpu": cpu(), "bf16": bf16, "precision": FP32 if bf16 else BF16}


def cpu() -> dict[str, Any]:
    """The processor's name, and which of the features that matter it has."""
    told = dict(
        (part.strip() for part in line.split(":", 1)) for line in Path("/proc/cpuinfo").read_text().splitlines() if line
    )
    flags = told.get("flags", "").split()
    return {"name": told.get("model name", ""), "features": [name for name in _FEATURES if name in flags]}


def write(path: Path, figures: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Put figures beside those that are there already, unless these are of another machine or precision."""
    there = json.loads(path.read_text()) if path.is_file() else {}
    if {name: there.get(name) for name in machine} != machine:
        there = {}
    shared = {name: {**there.get(name, {}), **figures.get(name, {})} for name in SHARED}
    path.write_text(json.dumps({**there, **figures, **shared}) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.speed", description=__doc__))
