"""What `saaa-train scenes` is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from saaa.errors import OptionInvalid
from training.options import check
from training.scenes.classes import CLASSES
from training.scenes.room import WALL_PATTERNS, WALLS
from training.scenes.sampler import CONFOUND_OBJECTS, Bias

CONFOUND_KINDS = ("colour", "backdrop", "object")
CONFOUNDED_SPLITS = ("train", "pool")
"""Where a class's own cue co-occurs with it at `confound_strength`."""
MIN_SIZE, MAX_SIZE = 64, 1024


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Options of the procedural world."""

    output_dir: Path = Path("build/world")
    """Where the world goes; a world that is already there is replaced, anything else is left alone."""
    train: int = 1200
    """Training scenes; the classes take turns."""
    val: int = 240
    """Validation scenes."""
    test: int = 240
    """Held-out scenes (`val_sub` of the published formats)."""
    pool: int = 0
    """Scenes to choose more training images from, as confounded as training; in none of the published splits."""
    classes: tuple[str, ...] = ()
    """The classes that have scenes; all when none is named."""
    size: int = 160
    """Width and height of a picture, pixels."""
    seed: int = 0
    """Same seed and options, same bytes."""
    confound: tuple[str, ...] = ()
    """CLASS=KIND, several if wanted: in training, the class co-occurs with a wall colour (`colour`), a wall pattern
    (`backdrop`) or an object that has nothing to do with it (`object`), which other classes then lack."""
    confound_strength: float = 1.0
    """Fraction of the class's training scenes that carry its confound."""
    confound_held_out: float | None = None
    """Fraction of a confounded class's validation and test scenes that carry its own cue; the others carry the cue of
    another class with the same kind of confound. None: confounds shape training (and the pool) only."""
    regions: int = 2
    """Regions an image, each with 5 captions."""
    quality: int = 92
    """JPEG quality, 1 to 95."""
    workers: int = 0
    """Processes; 0 is one a core, at most 8. The result does not depend on it."""

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            if getattr(self, name) < 1:
                raise OptionInvalid(f"{name} must be at least 1", field=name)
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise OptionInvalid(f"size must be {MIN_SIZE} to {MAX_SIZE} pixels", field="size")
        if not 0 < self.confound_strength <= 1:
            raise OptionInvalid("confound_strength must be above 0 and at most 1", field="confound_strength")
        if self.regions < 2:
            raise OptionInvalid("regions must be at least 2", field="regions")
        if not 1 <= self.quality <= 95:
            raise OptionInvalid("quality must be 1 to 95", field="quality")
        if self.workers < 0:
            raise OptionInvalid("workers must be 0 (one a core) or more", field="workers")
        check("pool", self.pool, at_least=0)
        check("confound_held_out", self.confound_held_out, at_least=0, at_most=1)
        unknown = [label for label in self.classes if label not in CLASSES]
        if unknown:
            raise OptionInvalid(f"there is no class {unknown[0]!r}; use some of {', '.join(CLASSES)}", field="classes")
        confounds = self.confounds()
        absent = sorted(confounds.keys() - set(self.labels()))
        if absent:
            raise OptionInvalid(f"{absent[0]} has a confound but no scenes; add it to classes", field="confound")
        if self.confound_held_out is not None:
            if not confounds:
                raise OptionInvalid("confound_held_out needs a confound; name one", field="confound_held_out")
            alone = [label for label in confounds if not self._others(label)]
            if alone and self.confound_held_out < 1:
                raise OptionInvalid(
                    f"no class has another {confounds[alone[0]]} cue than {alone[0]}: its other held-out scenes have "
                    "none to carry; name a second confound of that kind",
                    field="confound_held_out",
                )

    def labels(self) -> tuple[str, ...]:
        """The classes that have scenes, in alphabetical order; in every split they take turns."""
        return tuple(label for label in CLASSES if not self.classes or label in self.classes)

    def confounds(self) -> dict[str, str]:
        """Kind of confound by class.

        Raises:
            OptionInvalid: an entry is not CLASS=KIND, names an unknown class or kind, or a class twice.
        """
        found: dict[str, str] = {}
        for entry in self.confound:
            label, _, kind = entry.partition("=")
            label = label.strip().replace(" ", "_")
            if label not in CLASSES:
                raise OptionInvalid(
                    f"confound {entry!r} names no class; write CLASS=KIND with one of {', '.join(CLASSES)}",
                    field="confound",
                )
            if kind not in CONFOUND_KINDS:
                raise OptionInvalid(
                    f"confound {entry!r} has no such kind; use one of {', '.join(CONFOUND_KINDS)}", field="confound"
                )
            if label in found:
                raise OptionInvalid(f"confound names {label} twice; keep one", field="confound")
            found[label] = kind
        return found

    def cue_of(self, label: str, split: str, rng: Random) -> str | None:
        """The class whose cue a scene of `label` carries, drawn by chance; None where it is to carry none."""
        if label not in self.confounds():
            return None
        if split in CONFOUNDED_SPLITS:
            return label if rng.random() < self.confound_strength else None
        if self.confound_held_out is None:
            return None
        return label if rng.random() < self.confound_held_out else rng.choice(self._others(label))

    def bias_for(self, cue_of: str | None) -> Bias:
        """What shapes a scene that carries the cue of this class, if any, and none of the other classes' cues."""
        own: dict[str, Any] = {}
        avoided: dict[str, set[Any]] = {"wall": set(), "backdrop": set(), "thing": set()}
        for other, kind in self.confounds().items():
            cue: Any = confound_cue(other, kind)
            field = {"colour": "wall", "backdrop": "backdrop", "object": "thing"}[kind]
            if kind == "colour":
                cue = WALLS[int(cue)]
            if other == cue_of:
                own[field] = cue
            else:
                avoided[field].add(cue)
        # Two classes may share a cue; what a scene must have it cannot avoid.
        for field, cue in own.items():
            avoided[field].discard(cue)
        return Bias(
            **own,
            avoid_walls=frozenset(avoided["wall"]),
            avoid_backdrops=frozenset(avoided["backdrop"]),
            avoid_things=frozenset(avoided["thing"]),
        )

    def _others(self, label: str) -> list[str]:
        """The classes whose confound is of the same kind and has another cue."""
        confounds = self.confounds()
        kind = confounds[label]
        same = [other for other in sorted(confounds) if confounds[other] == kind]
        return [other for other in same if confound_cue(other, kind) != confound_cue(label, kind)]

    def processes(self) -> int:
        """How many processes draw."""
        return self.workers or min(8, os.cpu_count() or 1)


def confound_cue(label: str, kind: str) -> str:
    """The cue of a class's confound: index of a wall colour, name of a wall pattern, or name of an object."""
    index = CLASSES.index(label)
    if kind == "colour":
        return str(len(WALLS) - 1 - index % len(WALLS))
    if kind == "backdrop":
        return WALL_PATTERNS[1 + index % (len(WALL_PATTERNS) - 1)]
    return CONFOUND_OBJECTS[index % len(CONFOUND_OBJECTS)]
