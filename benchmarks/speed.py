"""How fast classifiers and the captioner are on the compiled runtime: `python -m benchmarks.speed`.

Beside ours run torch's eager forward and a bare call of OpenVINO on the same network. All run in one thread and take
turns, so that whatever else the machine does hits all alike; times are medians of processor time, in milliseconds a
batch. Networks are untrained but lively: what they cost does not depend on their weights. Needs the extra openvino.
Writes `build/bench/speed.json`, model by model, and prints it last:

- "cpu": the processor's name and the features that matter here, "bf16": null or why it is not measured
- "predict": {model: {batch: {"torch_fp32", "openvino_direct", "ours"}}}
- "explain": {batch: {"torch_forward", "torch", "ours"}} of a prediction with its default attribution, ViT-Ti;
  "explain_cnn" of EfficientNet-Lite0; "four_classes" {"torch_forward", "torch", "ours"} at batch 1, ViT-Ti
- "decode_step": {rows: {"torch_fp32", "torch", "ours"}} of the captioner's published sizes with 10,000 words, from the
  last words to the next one's log-probabilities: the equations in plain torch, our eager step, the compiled one;
  "decode_parity" as in the model card, of the untrained captioner
- "start_s": {"torch", "openvino_cold", "openvino_warm"}, wall clock from the process's start to its first answers, and
  "start_cpu_s", its processor time
- "parity": {model: {precision: as in the model card}}
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from benchmarks.speed_captioner import captioning
from saaa import archive as archives
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.runtime.compiled import OpenVinoClassifier
from saaa.runtime.compiling import add_graph
from saaa.runtime.eager import TorchClassifier
from saaa.runtime.engine import has_bf16
from saaa.runtime.graph import Graph
from saaa.runtime.options import BF16, FP32
from saaa.work import ExplainOptions, WorkItem

SIZE = 224
CLASSES = tuple(f"class {k}" for k in range(100))
MODELS = {"vit_tiny": "vit_tiny_patch16_224", "efficientnet_lite0": "tf_efficientnet_lite0"}
BATCHES = (1, 8)
WARM_UP = 2
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_START = """
import sys
from pathlib import Path
from saaa.runtime.executor import Executor
from saaa.runtime.options import RuntimeOptions
path, runtime, cache = sys.argv[1:]
executor = Executor.open(path, threads=1, runtime=RuntimeOptions(runtime=runtime, cache_dir=Path(cache)))
executor.warm_up()
assert (runtime == "torch") == ("openvino" not in executor.info.runtime), executor.info.runtime
"""

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    output: Path = Path("build/bench")
    """Folder for speed.json."""
    rounds: int = 15
    """Measured turns of each call at batch 1; a third of it at larger batches."""
    parity_images: int = 32
    """Made-up images on which parity is measured."""
    models: tuple[str, ...] = tuple(MODELS)
    """Which of the models."""
    captioner: bool = True
    """Whether the captioner's step is measured, too."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, description=__doc__)
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"cpu": cpu(), "predict": {}, "parity": {}}
    found["bf16"] = None if has_bf16() else "this processor has no units for bf16; fp32 is measured"
    precision = BF16 if has_bf16() else FP32
    found["precision"] = precision
    print(f"{found['cpu']['name']}: {', '.join(found['cpu']['features'])}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            start = time.monotonic()
            plain = lively(MODELS[name])
            archive = add_graph(plain.to_archive(name, "1", {}), pictures(options.parity_images))
            print(f"{name}: graph made and measured in {time.monotonic() - start:.0f} s", flush=True)
            found["parity"][name] = archive.card["runtime"]["openvino"]
            graph = Graph.of(archive)
            assert graph is not None
            method = archive.info().methods[0].name
            compiled = OpenVinoClassifier(graph, default=method, precision=precision, threads=1)
            eager = TorchClassifier(archive, 1)
            found["predict"][name] = {
                batch: predict(plain, eager, compiled, batch, precision, options.rounds) for batch in BATCHES
            }
            key = "explain" if name == "vit_tiny" else "explain_cnn"
            found[key] = {batch: explain(plain, eager, compiled, batch, (), options.rounds) for batch in BATCHES}
            if name == "vit_tiny":
                found["four_classes"] = explain(plain, eager, compiled, 1, (3, 14, 15, 92), options.rounds)
                path = Path(folder, "a.mar")
                archives.write(path, archive)
                found |= starts(path, Path(folder))
            (options.output / "speed.json").write_text(json.dumps(found) + "\n")
    if options.captioner:
        found |= captioning(precision, options.rounds, medians)
        (options.output / "speed.json").write_text(json.dumps(found) + "\n")
    print(json.dumps(found))


def cpu() -> dict[str, Any]:
    """The processor's name, and which of the features that matter it has."""
    told = dict(
        (part.strip() for part in line.split(":", 1)) for line in Path("/proc/cpuinfo").read_text().splitlines() if line
    )
    flags = told.get("flags", "").split()
    return {"name": told.get("model name", ""), "features": [name for name in _FEATURES if name in flags]}


def lively(architecture: str) -> Classifier:
    """An untrained network whose answers differ from image to image."""
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=SIZE))
    batch_norm = any(isinstance(part, nn.BatchNorm2d) for part in classifier.modules())
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
        for _ in range(2 if batch_norm else 0):
            classifier.train()(classifier.preprocess(torch.from_numpy(pictures(8))))
    return classifier.eval().requires_grad_(False)


def pictures(count: int) -> NDArray[np.uint8]:
    """Coarse random pictures, uint8 (count, SIZE, SIZE, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def predict(
    plain: Classifier, eager: TorchClassifier, ours: OpenVinoClassifier, batch: int, precision: str, rounds: int
) -> dict[str, float]:
    """A batch of predictions: eager, by a bare call of OpenVINO, and ours from the pixels on."""
    pixels = pictures(batch)
    inputs = plain.preprocess(torch.from_numpy(pixels)).contiguous()
    exported = torch.export.export(plain, (inputs,), strict=False)
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BF16 else "f32",
    }
    direct = openvino.Core().compile_model(openvino.convert_model(exported), "CPU", settings).create_infer_request()
    array = inputs.numpy()
    calls: dict[str, Call] = {
        "torch_fp32": lambda: forward(plain, inputs),
        "openvino_direct": lambda: direct.infer([array], share_inputs=True),
        "ours": lambda: ours.predict(pixels),
    }
    return medians(calls, rounds if batch == 1 else max(3, rounds // 3))


def explain(
    plain: Classifier,
    eager: TorchClassifier,
    ours: OpenVinoClassifier,
    batch: int,
    targets: tuple[int, ...],
    rounds: int,
) -> dict[str, float]:
    """A batch of predictions with the default attribution of some classes, beside a forward alone."""
    pixels = pictures(batch)
    inputs = plain.preprocess(torch.from_numpy(pixels))
    items = [WorkItem(targets=targets)] * batch
    calls: dict[str, Call] = {
        "torch_forward": lambda: forward(plain, inputs),
        "torch": lambda: eager.explain(pixels, items, ExplainOptions()),
        "ours": lambda: ours.explain(pixels, items, ExplainOptions()),
    }
    return medians(calls, rounds if batch == 1 else max(3, rounds // 3))


@torch.inference_mode()
def forward(network: Classifier, inputs: torch.Tensor) -> torch.Tensor:
    """A prediction alone."""
    logits: torch.Tensor = network(inputs)
    return logits


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median processor time of each call in ms; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= WARM_UP:
                times[name].append(time.process_time() - start)
    return {name: round(1000 * statistics.median(found), 2) for name, found in times.items()}


def starts(path: Path, folder: Path, rounds: int = 3) -> dict[str, Any]:
    """From a worker's start to its first answers of both kinds, with and without compiled blobs."""
    wall: dict[str, list[float]] = {"torch": [], "openvino_cold": [], "openvino_warm": []}
    used: dict[str, list[float]] = {name: [] for name in wall}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for turn in range(rounds):
        for name in wall:
            arguments = [str(path), name.split("_")[0], str(folder / f"cache{turn}")]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, "-c", _START, *arguments], check=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall[name].append(time.monotonic() - start)
            used[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        key: {name: round(statistics.median(found), 2) for name, found in times.items()}
        for key, times in (("start_s", wall), ("start_cpu_s", used))
    }


if __name__ == "__main__":
    main()
