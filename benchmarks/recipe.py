"""Which recipe for the photographs? Cross-validation on scenes15/train; val is never looked at.

Every candidate changes a few options of the demo's recipe and is trained on each of three folds. A run that is there is
not made again, so the command can be stopped and called again. Prints a table and a JSON last line, which is also
`build/bench/recipe.json`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.demo import EGDD_PHOTOS
from benchmarks.steps import command

FOLDS = 3
CANDIDATES: dict[str, str] = {
    "the demo's": "",
    "192 pixels, 12 epochs": "--input_size 192 --epochs 12",
    "192 pixels, 12 epochs, no mixup": "--input_size 192 --epochs 12 --mixup 0",
    "12 epochs": "--epochs 12",
}


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """Where the photographs are, and where runs are kept."""

    data: Path = Path("../shared/data")
    output: Path = Path("build/bench/recipe")


def fold_folders(train: Path, folder: Path) -> list[Path]:
    """Folders with train/ and val/ of each fold: links to the pictures, the same ones on every call."""
    for held_class in sorted(p for p in train.iterdir() if p.is_dir()):
        files = sorted(held_class.iterdir())
        random.Random(f"0{held_class.name}").shuffle(files)
        for place, file in enumerate(files):
            for fold in range(FOLDS):
                part = "val" if place % FOLDS == fold else "train"
                link = folder / str(fold) / part / held_class.name / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
    return [folder / str(fold) for fold in range(FOLDS)]


def accuracy(options: str, fold: Path, output: Path, seed: int) -> tuple[int, int]:
    """Train with `options` on a fold unless that was done: how many held-out pictures are right, and of how many."""
    metrics = output / "metrics.json"
    if not metrics.exists():
        where = ("--data_path", fold, "--output_dir", output, "--seed", str(seed))
        command("saaa-train", "egdd", *EGDD_PHOTOS, *options.split(), *where)
    found = json.loads(metrics.read_text())
    return round(found["accuracy"] * found["images"]), found["images"]


def main() -> None:
    """Entry point of `python -m benchmarks.recipe`."""
    config = tyro.cli(RecipeConfig, prog="python -m benchmarks.recipe", description=__doc__)
    train = config.data / "scenes15" / "train"
    if not train.is_dir():
        raise SystemExit(f"{train} is missing: give the folder that holds scenes15 with --data")
    folds = fold_folders(train, config.output / "folds")
    table: dict[str, Any] = {}
    for name, options in CANDIDATES.items():
        place = config.output / (options.replace(" ", "").strip("-") or "base")
        counts = [accuracy(options, fold, place / str(k), seed=k) for k, fold in enumerate(folds)]
        by_fold = [round(right / total, 4) for right, total in counts]
        pooled = sum(right for right, _ in counts) / sum(total for _, total in counts)
        table[name] = {"options": options, "accuracy": round(pooled, 4), "folds": by_fold}
    print(f"\n{'candidate':<36}{'accuracy':>10}   folds")
    for name, row in table.items():
        print(f"{name:<36}{row['accuracy']:>10.4f}   {row['folds']}")
    (config.output.parent / "recipe.json").write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
