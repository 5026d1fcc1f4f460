"""The captioner on the procedural world, with and without the explanation loss, three seeds each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo import EGDD_WORLD
from benchmarks.ega_runs import mean, means, measured
from benchmarks.steps import command
from training.ega.intervals import difference_interval

SEEDS = (0, 1, 2)
SCENES = ("--train", "4800", "--seed", "0")
"""Four times the demo's world: with its 1200 training scenes the captioner names fewer attributes and relationships."""
RECIPE = tuple(
    "--pretrained efficientnet_lite0 --levels 1 2 3 --grid 3 --width 192 --epochs 12 --captions_per_region 1 "
    "--warmup_epochs 0.3 --batch_size 64 --lr 2e-3 --schedule cosine --ema 0.99 --weight_decay 0.05 "
    "--feature_dropout 0.2 --naming_weight 0.5 --jitter 0.1 --proposed 0.15 --val_every 2 --threads 1".split()
)
"""Of both kinds of run, but for the weight of the explanation loss; chosen on val, measured on val_sub."""
WITH, WITHOUT = "2", "0"
"""That weight. The captioner without it keeps the naming task."""
GRAPHS = ("true", "proposed", "shuffled")
RESAMPLES = 10_000

Report = Mapping[str, Any]
"""The JSON of `saaa-train evaluate ega`."""


def world(demo: Path, folder: Path, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Train and measure all runs.

    Args:
        demo: output folder of the world demo, whose EGDD archive proposes graphs; without it one is trained.
        folder: where the scenes and the runs are kept; what is there is not made again.
        seeds: one training of each kind a seed.

    Returns:
        see `summarise`.
    """
    scenes, proposer = _materials(demo, folder)
    runs: dict[str, list[Report]] = {WITH: [], WITHOUT: []}
    for seed in seeds:
        for weight, reports in runs.items():
            data = ["--data_path", scenes, "--proposer", proposer]
            train = [*RECIPE, *data, "--explanation_weight", weight, "--seed", str(seed)]
            reports.append(measured(folder / f"explanation-{weight}" / str(seed), train, data))
    return {**summarise(runs[WITH], runs[WITHOUT]), "seeds": list(seeds)}


def summarise(with_: Sequence[Report], without: Sequence[Report]) -> dict[str, Any]:
    """Bring the reports of runs with and without the explanation loss together.

    Args:
        with_, without: by seed, on the same regions.

    Returns:
        "cider_with" and "cider_without" by seed; "with_above_without", the difference over all seeds with its 95 %
        interval (bootstrap over images, paired); "node_accuracy" of both; of the runs with the loss "mention",
        "object_precision", "metrics", "diversity", "graphs" and "proposed_above_shuffled". Figures are means over
        seeds, metrics x 100, shares 0 to 1.
    """
    images = [caption["image"] for caption in with_[0]["captions"]]
    both = [_by_region(reports) for reports in (with_, without)]
    proposed, shuffled = (_by_region(with_, key) for key in ("proposed", "other_graph"))
    return {
        "cider_with": [report["ega_cider"] for report in with_],
        "cider_without": [report["ega_cider"] for report in without],
        "with_above_without": _difference(*both, images),
        "node_accuracy": {
            name: mean([report["node_accuracy"] for report in reports])
            for name, reports in (("with", with_), ("without", without))
        },
        "mention": means([report["mention"] for report in with_]),
        "object_precision": mean([report["object_precision"] for report in with_]),
        "metrics": means([report["metrics"] for report in with_]),
        "missing": with_[0]["missing"],
        "graphs": {kind: means([report["graphs"][kind] for report in with_]) for kind in GRAPHS},
        "proposed_above_shuffled": _difference(proposed, shuffled, images),
        "regions": len(images),
    }


def _materials(demo: Path, folder: Path) -> tuple[Path, Path]:
    """The world and the EGDD archive that proposes graphs."""
    scenes, proposer = folder / "scenes", demo / "models" / "scenes.mar"
    if not (scenes / "world.json").exists():
        command("saaa-train", "scenes", "--output_dir", scenes, *SCENES)
    if not proposer.exists():
        proposer = folder / "scenes.mar"
    if not proposer.exists():
        run = folder / "egdd"
        command("saaa-train", "egdd", *EGDD_WORLD, "--data_path", scenes, "--output_dir", run)
        command("saaa-train", "archive", "egdd", "--checkpoint", run / "last.pt", "--output", proposer)
    return scenes, proposer


def _by_region(reports: Sequence[Report], graph: str | None = None) -> NDArray[np.float64]:
    """CIDEr of each region, the mean over the runs; along another graph than the true one if named."""
    found = [[(c if graph is None else c[graph])["cider"] for c in report["captions"]] for report in reports]
    return np.mean(found, axis=0)


def _difference(above: NDArray[np.float64], below: NDArray[np.float64], images: Sequence[str]) -> dict[str, Any]:
    interval = difference_interval(above, below, images=images, seed=0, resamples=RESAMPLES)
    return {"difference": float((above - below).mean()), "interval": list(interval)}
