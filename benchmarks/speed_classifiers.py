"""The classifiers' part of `benchmarks.speed`: predictions, explained or not, batch by batch; a worker's start."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.speed_turns import Call, medians
from saaa import archive as archives
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.runtime.compiled import OpenVinoClassifier
from saaa.runtime.compiling import add_graph
from saaa.runtime.eager import TorchClassifier
from saaa.runtime.graph import Graph
from saaa.runtime.options import BF16
from saaa.work import ExplainOptions, WorkItem

SIZE = 224
CLASSES = tuple(f"class {k}" for k in range(100))
MODELS = {"vit_tiny": "vit_tiny_patch16_224", "efficientnet_lite0": "tf_efficientnet_lite0"}
EXPLAINED = {"vit_tiny": "explain", "efficientnet_lite0": "explain_cnn"}
BATCHES = (1, 8)
FOUR = (3, 14, 15, 92)
"""Classes explained at once."""
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


def classifiers(names: Sequence[str], precision: str, rounds: int, parity_images: int) -> dict[str, Any]:
    """ "predict", "explain", "explain_cnn", "four_classes", "start_s", "start_cpu_s", "parity": `benchmarks.speed`."""
    found: dict[str, Any] = {"predict": {}, "parity": {}}
    for name in names:
        start = time.monotonic()
        plain = lively(MODELS[name])
        archive = add_graph(plain.to_archive(name, "1", {}), pictures(parity_images))
        print(f"{name}: graph made and measured in {time.monotonic() - start:.0f} s", flush=True)
        found["parity"][name] = archive.card["runtime"]["openvino"]
        graph = Graph.of(archive)
        assert graph is not None
        compiled = OpenVinoClassifier(graph, default=archive.info().methods[0].name, precision=precision, threads=1)
        eager = TorchClassifier(archive, 1)
        found["predict"][name] = {batch: predict(plain, compiled, batch, precision, rounds) for batch in BATCHES}
        found[EXPLAINED[name]] = {batch: explain(plain, eager, compiled, batch, (), rounds) for batch in BATCHES}
        if name == "vit_tiny":
            found["four_classes"] = explain(plain, eager, compiled, 1, FOUR, rounds)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "a.mar")
                archives.write(path, archive)
                found |= starts(path, Path(folder))
    return found


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


def predict(plain: Classifier, ours: OpenVinoClassifier, batch: int, precision: str, rounds: int) -> dict[str, float]:
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
