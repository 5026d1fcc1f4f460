"""The captioner on photographs: coco-mini, 172 pictures of COCO with their captions and boxes.

Graphs come from `saaa-train asg coco`. Each of five folds is held out once, with two seeds; a fold's vocabulary is that
of its training captions. Compared on the held-out pictures, one reference a region: captions along the region's graph,
along another picture's graph, and of a captioner that was trained the same way without graphs: its only node is the
whole picture. The recipe was chosen on the training pictures of one fold, by loss and CIDEr on a fifth of them: of
fifteen the one with the coarsest features (one cell a box, the two deepest maps); finer ones were learnt by heart.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ega_runs import mean, means, measured
from benchmarks.steps import command
from training.ega.intervals import difference_interval
from training.ega.mentions import Mentions, Wording
from training.ega.metrics import cider, score
from training.ega.published import AnnotationFolder, Region, Skipped

FOLDS, SEEDS = 5, (0, 1)
HELD = "val_sub"
KINDS = ("guided", "shuffled", "global_only")
MIN_COUNT = 2
EPOCHS = 12
RECIPE = (
    f"--pretrained efficientnet_lite0 --levels 3 4 --grid 1 --input_size 224 --width 128 --epochs {EPOCHS} "
    "--warmup_epochs 0.5 --batch_size 32 --lr 4e-3 --schedule cosine --ema 0.98 --weight_decay 0.05 "
    "--feature_dropout 0.2 --explanation_weight 1 --naming_weight 0.5"
).split()
RESAMPLES = 10_000

Captions = Mapping[str, Sequence[Sequence[str]]]
"""Of each kind the words of each region's caption."""


def coco(data: Path, folder: Path, folds: int = FOLDS, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Train and measure everything.

    Args:
        data: the folder that holds coco-mini.
        folder: where runs are kept; one that is there is not made again.
        folds: how many of the five are held out, fewer for a look.
        seeds: one training of each kind a seed.

    Returns:
        "guided", "shuffled", "global_only": CIDEr; "metrics": all metrics of each; "guided_above_shuffled" and
        "guided_above_global_only": differences of CIDEr with 95 % intervals (bootstrap over pictures, paired);
        "mention", "object_precision" and "diversity" as of `saaa-train evaluate ega`; counts.
    """
    pictures = sorted(image["file_name"] for image in _json(data / "coco-mini" / "captions.json")["images"])
    random.Random(0).shuffle(pictures)
    found = [_fold(data / "coco-mini", folder, pictures, fold, seeds) for fold in range(folds)]
    regions = [region for part, _, _ in found for region in part]
    captions = {seed: {kind: [c for _, said, _ in found for c in said[seed][kind]] for kind in KINDS} for seed in seeds}
    vocabulary = [_unknown(folder, fold, part) for fold, (part, _, _) in enumerate(found)]
    several = [report["diversity"] for _, _, reports in found for report in reports]
    return {
        **compare(regions, captions),
        "diversity": means(several),
        "unknown_words": sum(unknown for unknown, _ in vocabulary) / sum(words for _, words in vocabulary),
        "regions": len(regions),
        "pictures": len({region.image_id for region in regions}),
        "folds": folds,
        "seeds": list(seeds),
    }


def compare(regions: Sequence[Region], captions: Mapping[int, Captions]) -> dict[str, Any]:
    """The figures of captions of the same regions, by seed; means over seeds.

    Args:
        regions: with graphs and references.
        captions: by seed.
    """
    references = [region.captions for region in regions]
    graphs = [region.graph for region in regions]
    wording = Wording(graphs, references)
    ciders = {k: np.mean([cider(said[k], references) for said in captions.values()], axis=0) for k in KINDS}
    scores = {k: [score(said[k], references) for said in captions.values()] for k in KINDS}
    mentions = {k: [wording.count(said[k], graphs) for said in captions.values()] for k in KINDS}
    images = [region.image_id for region in regions]
    figures: dict[str, Any] = {kind: float(ciders[kind].mean()) for kind in KINDS}
    for other in KINDS[1:]:
        interval = difference_interval(ciders["guided"], ciders[other], images=images, seed=0, resamples=RESAMPLES)
        figures[f"guided_above_{other}"] = {
            "difference": float((ciders["guided"] - ciders[other]).mean()),
            "interval": list(interval),
        }
    return {
        **figures,
        "metrics": {kind: means([one.values for one in scores[kind]]) for kind in KINDS},
        "missing": scores["guided"][0].missing,
        "mention": {kind: means([_recalls(one) for one in mentions[kind]]) for kind in KINDS},
        "object_precision": {kind: mean([one.objects.precision for one in mentions[kind]]) for kind in KINDS},
    }


def _fold(
    data: Path, folder: Path, pictures: Sequence[str], fold: int, seeds: Sequence[int]
) -> tuple[list[Region], dict[int, Captions], list[dict[str, Any]]]:
    """The held-out regions of a fold, their captions by seed, and the reports of the guided captioner."""
    place = folder / f"fold-{fold}"
    held = pictures[fold::FOLDS]
    guided = place / "graphs"
    if not guided.exists():
        make_graphs(data, guided, {"trn": [p for p in pictures if p not in set(held)], HELD: held})
    alone = place / "whole"
    if not alone.exists():
        whole_pictures(data, guided, alone)
    regions = AnnotationFolder(guided / "annotations").regions(HELD, Skipped())
    captions: dict[int, Captions] = {}
    reports = []
    for seed in seeds:
        along, without = (_run(data, place, kind, seed) for kind in ("graphs", "whole"))
        reports.append(along)
        rows = {(c["image"], c["region"]): c for c in along["captions"]}
        plain = {(c["image"], c["region"]): c for c in without["captions"]}
        keys = [(region.image_id, region.region_id) for region in regions]
        captions[seed] = {
            "guided": [rows[key]["caption"].split() for key in keys],
            "shuffled": [rows[key]["other_graph"]["caption"].split() for key in keys],
            "global_only": [plain[key]["caption"].split() for key in keys],
        }
    return regions, captions, reports


def _run(data: Path, place: Path, kind: str, seed: int) -> dict[str, Any]:
    where = ["--data_path", place / kind, "--images", data / "images"]
    train = [*RECIPE, *where, "--val_set", HELD, "--val_every", str(EPOCHS), "--seed", str(seed)]
    evaluate = [*where, "--eval_set", HELD, *([] if kind == "graphs" else ["--diverse", "1"])]
    # The last epoch, whatever it is worth on the held-out pictures: they choose nothing.
    return measured(place / "runs" / kind / str(seed), train, evaluate, served="last.pt")


def make_graphs(data: Path, output: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Region files, captions and vocabulary of coco-mini, for splits of our own."""
    output.parent.mkdir(parents=True, exist_ok=True)
    listed = output.with_name(f"{output.name}.splits.json")
    listed.write_text(json.dumps(splits) + "\n")
    files = ("--captions", data / "captions.json", "--instances", data / "instances.json")
    command(
        "saaa-train", "asg", "coco", *files, "--output_dir", output, "--splits", listed, "--min_count", str(MIN_COUNT)
    )


def whole_pictures(data: Path, graphs: Path, output: Path) -> None:
    """The same data with graphs of one node, the whole picture."""
    sizes = {Path(i["file_name"]).stem: i for i in _json(data / "captions.json")["images"]}
    for file in sorted(path for path in graphs.rglob("*") if path.is_file()):
        target = output / file.relative_to(graphs)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.parent.name != "regionfiles" or file.suffix != ".json":
            target.write_bytes(file.read_bytes())
            continue
        box = {"x": 0, "y": 0, "w": sizes[file.stem]["width"], "h": sizes[file.stem]["height"]}
        node = {"object_id": 0, "name": "picture", "attributes": [], **box}
        alone = {key: {**region, "objects": [node], "relationships": []} for key, region in _json(file).items()}
        target.write_text(json.dumps(alone) + "\n")


def _unknown(folder: Path, fold: int, regions: Sequence[Region]) -> tuple[int, int]:
    """Words of the held-out captions that the vocabulary lacks, and all of them."""
    known = AnnotationFolder(folder / f"fold-{fold}" / "graphs" / "annotations").vocabulary().ids
    words = [word for region in regions for caption in region.captions for word in caption.split()]
    return sum(word not in known for word in words), len(words)


def _recalls(found: Mentions) -> dict[str, float | None]:
    return {
        "object": found.objects.recall,
        "attribute": found.attributes.recall,
        "relationship": found.relationships.recall,
    }


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
