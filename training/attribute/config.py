"""Options of `saaa-train attribute`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saaa.work import AUTO_METHOD, ExplainOptions
from training.options import check

GalleryOrder = Literal["least_confident", "most_confident", "mistakes", "name"]

_DEFAULTS = ExplainOptions()


@dataclass(frozen=True, kw_only=True)
class AttributeConfig:
    """How to explain every image of a folder.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    data: Path
    """Folder of images, at any depth; images in a folder named after a class are of that class. Or a folder with
    annotations/ (a world of `saaa-train scenes`, or the published formats), whose graphs give concept attributions."""
    out: Path
    """Folder for the maps, the index and the gallery; new, or that of the same run, which then goes on."""
    archive: Path
    """The archive to explain: a classifier (EGDD), or a captioner (EGA), which needs annotations."""

    targets: str | None = None
    """Classifier: "predicted" (the default), "true", "top2" (or another number), or class names with commas between.
    Captioner: "words" (the default; every word of the caption), "nodes" (of the graph), or "words,nodes"."""
    method: str = AUTO_METHOD
    """Attribution method; "auto" is the model's default."""
    steps: int = _DEFAULTS.steps
    """integrated_gradients: integration steps."""
    gamma: float = _DEFAULTS.gamma
    """layer_lrp, cp_lrp, attn_lrp: weight of the gamma rule; 0 is the epsilon rule."""
    masks: int = _DEFAULTS.masks
    """rise: random masks; region_shapley: coalitions sampled for graphs of many objects."""
    seed: int = _DEFAULTS.seed
    """Of what a method draws at random."""
    deletion: bool = False
    """Also measure how far the target's probability drops when the map's top tenth is removed."""
    effects: bool = False
    """Also measure the effect of each node of the graph; needs annotations."""
    beam_width: int = 3
    """Captioner: hypotheses kept while decoding; 1 is greedy."""

    annotations: Path | None = None
    """Folder of region files; default: data/annotations where there is one."""
    split: str | None = None
    """With annotations: only this split, such as val_sub; default: all."""
    limit: int | None = None
    """Explain at most so many images, taken evenly over the whole set."""

    batch_size: int = 16
    """Images explained together; also what is lost when the run is killed."""
    workers: int = 2
    """Threads that read and decode images ahead."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""
    overwrite: bool = False
    """Begin anew in a folder that holds another run; its results are deleted."""

    gallery: int = 48
    """Images shown in gallery.html; 0 makes none."""
    gallery_order: GalleryOrder = "least_confident"
    """Which images the gallery shows first; "mistakes" are those whose predicted class is not the true one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "threads", "limit", "beam_width"):
            check(name, getattr(self, name), at_least=1)
        check("gallery", self.gallery, at_least=0)

    def explain(self) -> ExplainOptions:
        """The options of the attribution itself."""
        return ExplainOptions(
            method=self.method,
            steps=self.steps,
            gamma=self.gamma,
            masks=self.masks,
            seed=self.seed,
            deletion=self.deletion,
            effects=self.effects,
        )

    def shaping(self) -> dict[str, Any]:
        """The options that shape the results: a run is gone on with only when these are the same."""
        names = (
            *("targets", "method", "steps", "gamma", "masks", "seed", "deletion", "effects", "beam_width"),
            *("split", "limit", "batch_size"),
        )
        return {name: getattr(self, name) for name in names}
