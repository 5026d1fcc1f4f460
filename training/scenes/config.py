"""What `saaa-train scenes` is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import OptionInvalid
from training.scenes.classes import CLASSES
from training.scenes.room import WALL_PATTERNS, WALLS
from training.scenes.sampler import CONFOUND_OBJECTS, Bias

CONFOUND_KINDS = ("colour", "backdrop", "object")
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
    size: int = 160
    """Width and height of a picture, pixels."""
    seed: int = 0
    """Same seed and options, same bytes."""
    confound: tuple[str, ...] = ()
    """CLASS=KIND, several if wanted: in training only, the class co-occurs with a wall colour (`colour`), a wall
    pattern (`backdrop`) or an object that has nothing to do with it (`object`), which other classes then lack."""
    confound_strength: float = 1.0
    """Fraction of the class's training scenes that carry its confound."""
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
        self.confounds()

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

    def bias_for(self, label: str, *, confounded: bool) -> Bias:
        """What a training scene of a class is biased to: its own confound, and none of the other classes'."""
        own: dict[str, Any] = {}
        avoided: dict[str, set[Any]] = {"wall": set(), "backdrop": set(), "thing": set()}
        for other, kind in self.confounds().items():
            cue: Any = confound_cue(other, kind)
            field = {"colour": "wall", "backdrop": "backdrop", "object": "thing"}[kind]
            if kind == "colour":
                cue = WALLS[int(cue)]
            if other == label and confounded:
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
