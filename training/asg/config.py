"""Options of `saaa-train asg coco` and `saaa-train evaluate asg`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saaa.errors import OptionInvalid
from training.options import check


@dataclass(frozen=True, kw_only=True)
class AsgCocoConfig:
    """How to make scene graphs of COCO's captions and instances.

    Raises:
        OptionInvalid: an option is outside its range, or two contradict each other.
    """

    captions: Path
    """COCO's captions (JSON with "images" and "annotations")."""
    instances: Path
    """COCO's instances of the same images (JSON with "annotations" and "categories")."""
    output_dir: Path
    """Folder for annotations/ in the published formats; new, or made by this job before (it is replaced)."""
    val_share: float = 0.1
    """Share of the images for the split val."""
    val_sub_share: float = 0.1
    """Share of the images for the split val_sub."""
    folds: int = 0
    """Make the splits trn_1, val_1, trn_2, ... of a cross-validation of so many folds instead."""
    splits: Path | None = None
    """JSON {split: [image ids or file names]}: these splits instead, Karpathy's for instance. An image may be in
    several, or in none."""
    min_count: int = 1
    """A word is in the vocabulary if the captions of the training splits (their names begin with "trn") use it so
    often."""
    seed: int = 0
    """Of the splits."""
    phrases: Path | None = None
    """Also measure the phrase parser on this file, see `saaa-train evaluate asg`."""

    def __post_init__(self) -> None:
        for name in ("val_share", "val_sub_share"):
            check(name, getattr(self, name), at_least=0, below=1)
        if self.val_share + self.val_sub_share >= 1:
            raise OptionInvalid("val_share and val_sub_share leave nothing to train on; lower them.", field="val_share")
        check("folds", self.folds, at_least=0)
        if self.folds == 1:
            raise OptionInvalid("folds is 1; choose at least 2, or 0 for one split.", field="folds")
        if self.folds and self.splits is not None:
            raise OptionInvalid("Give either --folds or --splits.", field="splits")
        check("min_count", self.min_count, at_least=1)
        check("seed", self.seed, at_least=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateAsgConfig:
    """How to measure the phrase parser."""

    phrases: Path
    """CSV with the columns caption and scene_graph, such as FACTUAL's dev.csv."""
    output: Path | None = None
    """Where the JSON goes; default: only the table is printed."""
