"""Options of `saaa-train annotate`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from saaa.difficulty import Aggregate, DifficultyOptions, Rule
from training.attribute.config import GalleryOrder
from training.options import check

_DEFAULTS = DifficultyOptions()
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
"""The user's folder for what can be made anew."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which tasks to make.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    run: Path
    """Folder of a finished run of `saaa-train attribute`."""
    out: Path
    """Folder for tasks and pictures; new or empty."""
    data: Path | None = None
    """The images; default: the folder that the run explained."""
    limit: int | None = None
    """At most so many images (or regions)."""
    order: GalleryOrder = "least_confident"
    """Which come first when there is a limit."""
    side: int = 640
    """Longer side of a picture, pixels."""
    pictures_url: str = "/data/local-files/?d=pictures/"
    """What Label Studio finds the pictures under; a picture's name follows. The default is its local storage with `out`
    as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""

    def __post_init__(self) -> None:
        check("limit", self.limit, at_least=1)
        check("side", self.side, at_least=16, at_most=4096)


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Which answers to read, and what to make of them.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    answers: tuple[Path, ...]
    """Exports of Scale, of Label Studio, of the facade (`saaa ratings export`): one or several, of any of them."""
    out: Path
    """Folder for what they say; files of an earlier import are replaced."""
    run: Path | None = None
    """The run of `saaa-train attribute` on the same images: the facade's ratings, which know an image by its digest,
    are then of its files."""
    annotations: Path | None = None
    """Folder of annotations in the published formats: gives relevance.json its regions, and the easy images of `split`
    as a split of their own."""
    split: str = "val_sub"
    """The split to take hard instances out of; what is left is <split>_opt."""

    alpha: float = _DEFAULTS.alpha
    """Weight of an object's attributes and relationships against its own ratings, 0 to 1."""
    hard: Rule = _DEFAULTS.rule
    """Hard is what reaches tau ("tau"), or lies above the largest gap between neighbouring difficulties ("gap")."""
    tau: float = _DEFAULTS.tau
    """0 to 1."""
    aggregate: Aggregate = _DEFAULTS.aggregate
    """An image's difficulty: mean or max of its objects', or the share of hard ones."""
    max_mb: float = 512
    """Refuse larger files."""

    def __post_init__(self) -> None:
        self.difficulty()
        check("max_mb", self.max_mb, above=0)

    def difficulty(self) -> DifficultyOptions:
        """The options of the estimate."""
        return DifficultyOptions(alpha=self.alpha, rule=self.hard, tau=self.tau, aggregate=self.aggregate)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Which tasks to answer in Label Studio, and where it lives.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    tasks: Path
    """Folder that `saaa-train annotate export` made."""
    pull: bool = False
    """Fetch the answers given so far and end, whether it runs or not."""
    port: int = 8080
    """Of 127.0.0.1 for a browser; 0 picks a free one."""
    environment: Path = _CACHE / "saaa" / "label-studio"
    """Folder for Label Studio's own Python environment, which is made in it at the first time (1 GB)."""

    def __post_init__(self) -> None:
        check("port", self.port, at_least=0, at_most=65535)
