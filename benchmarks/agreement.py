"""Do the backends agree, and does a batch give what single calls give? On the archives that `make demo` left.

Prints the largest differences between `torchserve` and `local` over predictions, attributions and captions, and
between a batch of 8 different images and 8 single calls, relative to the largest value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from benchmarks.demo import Question, held_out_scenes
from benchmarks.steps import facade
from saaa.archive import info
from saaa.client import Analysis, Client
from saaa.images import decode, fit
from saaa.runtime.executor import Executor
from saaa.scene_graph import SceneGraph
from saaa.work import ItemResult, ModelInfo, ModelKind, Work, WorkBatch, WorkItem

BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Where the archives and the held-out scenes are."""

    demo: Path = Path("build/demo")
    """Output folder of the world demo."""


def main(config: Agreement) -> None:
    """Print both comparisons."""
    questions = list(held_out_scenes(config.demo / "world"))
    answers = {backend: analyses(config.demo / "models", backend, questions) for backend in ("torchserve", "local")}
    pairs = list(zip(answers["torchserve"], answers["local"], strict=True))
    same = all(captions(left) == captions(right) for left, right in pairs)
    print(f"\ntorchserve against local, {len(pairs)} requests (aim: at most 1e-4)")
    print(f"  captions                  {'equal' if same else 'DIFFERENT'}")
    for name in ("probabilities", "attributions", "log-probabilities", "node weights"):
        print(f"  {name:<26}{max(difference(name, *pair) for pair in pairs):.1e}")
    print(f"\na batch of {BATCH} against {BATCH} single calls, relative to the largest value (aim: at most 1e-5)")
    for archive in sorted((config.demo / "models").glob("*.mar")):
        print(f"  {info(archive).name:<26}{batch_difference(archive, questions):.1e}")


def analyses(models: Path, backend: str, questions: list[Question]) -> list[Analysis]:
    """Ask every question of a facade on this backend."""
    with facade(models, backend) as address, Client(address) as client:
        return [client.analyze(question.path.read_bytes(), graph=question.graph) for question in questions]


def captions(analysis: Analysis) -> list[str]:
    return [caption.text for caption in analysis.captions]


def difference(name: str, left: Analysis, right: Analysis) -> float:
    """The largest absolute difference between two answers in what `name` says."""
    return max(float(np.abs(a - b).max()) for a, b in zip(numbers(name, left), numbers(name, right), strict=True))


def numbers(name: str, analysis: Analysis) -> Iterator[np.ndarray]:
    if name == "probabilities":
        yield np.array([p.probability for p in sorted(analysis.predictions, key=lambda p: p.index)])
    elif name == "attributions":
        yield from (attribution.grid for attribution in analysis.attributions)
    for caption in analysis.captions:
        if name == "log-probabilities":
            yield np.array([word.log_probability for word in caption.words])
        elif name == "node weights":
            yield np.array([word.node_weights for word in caption.words])


def batch_difference(archive: Path, questions: list[Question]) -> float:
    """The largest difference between one batch and single calls, relative to the largest value of its array."""
    executor = Executor.open(archive, threads=1)
    batch = batch_of(executor.info, questions)
    together = executor.run(batch)
    worst = 0.0
    for index, result in enumerate(together):
        (alone,) = executor.run(
            replace(batch, pixels=batch.pixels[index : index + 1], items=batch.items[index : index + 1])
        )
        for left, right in zip(arrays(result), arrays(alone), strict=True):
            worst = max(worst, float(np.abs(left - right).max() / np.abs(right).max()))
    return worst


def batch_of(model: ModelInfo, questions: list[Question]) -> WorkBatch:
    """The first pictures as one batch: explained by a classifier, captioned by their graph by a captioner."""
    guided = [question for question in questions if question.graph is not None]
    chosen = (guided * BATCH)[:BATCH]
    pixels, items = [], []
    for shift, question in enumerate(chosen):
        # Mirrored and rolled, so that no two pictures of the batch are the same.
        image = np.roll(decode(question.path.read_bytes()), shift, axis=1)
        fitted, geometry = fit(image, model.input_size, mode=model.resize, crop_fraction=model.crop_fraction)
        graph = SceneGraph.from_region(dict(question.graph or {})).role_graph(model.max_nodes or 10)
        pixels.append(fitted)
        items.append(WorkItem(graph=graph.with_boxes(geometry.to_input(graph.boxes))))
    work = Work.EXPLAIN if model.kind is ModelKind.EGDD else Work.CAPTION
    return WorkBatch(model=model.name, version=model.version, work=work, pixels=np.stack(pixels), items=tuple(items))


def arrays(result: ItemResult) -> Iterator[np.ndarray]:
    if result.error is not None:
        raise RuntimeError(json.dumps(result.error.message))
    if result.probabilities is not None:
        yield result.probabilities
    yield from (entry.values for entry in result.maps)
    for caption in result.captions:
        yield caption.log_probabilities
        yield caption.node_weights


if __name__ == "__main__":
    main(tyro.cli(Agreement, prog="python -m benchmarks.agreement", description=__doc__))
