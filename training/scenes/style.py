"""What the scenes of some pictures have in common: the world's notion of a token learned from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from saaa.errors import DataError
from training.scenes.classes import evidence_of, label_of
from training.scenes.kinds import KINDS
from training.scenes.palette import Rgb, clip
from training.scenes.room import WALLS
from training.scenes.sampler import Bias, with_one_more
from training.scenes.scene import Scene

WALL_PART = 0.45
"""Part of a picture's height, from the top, that shows wall in every room."""
LIT = 0.94
"""A wall's usual brightness in a picture, as a factor of its own; the light falls off to the sides (`light_up`)."""
TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Style:
    """How often pictures hold what; nothing in it tells why."""

    things: Mapping[str, float] = field(default_factory=dict)
    """By kind of object, the fraction of the pictures that hold one."""
    walls: tuple[Rgb, ...] = ()
    """The walls' colours, one a picture, as far as the light lets see them."""

    def choose_wall(self, bias: Bias, rng: Random) -> Bias:
        """The bias with a wall of one of the pictures, unless it has one or keeps all of them out."""
        walls = [wall for wall in self.walls if _nearest(wall) not in bias.avoid_walls]
        return bias if bias.wall is not None or not walls else replace(bias, wall=rng.choice(walls))

    def furnish(self, scene: Scene, rng: Random, *, avoid: frozenset[str] = frozenset()) -> Scene:
        """The scene with other kinds of objects, each as often as the pictures hold it; its class stays."""
        label, evidence = label_of(scene), evidence_of(scene)
        there = {thing.kind for thing in scene.things}
        drawn = [name for name, share in self.things.items() if rng.random() < share]
        # While there is room, the usual mostly before the rare; and what stands on other things after them.
        turn = {name: rng.random() ** (1 / self.things[name]) for name in drawn}
        drawn.sort(key=lambda name: (KINDS[name].places == ("top",), -turn[name]))
        for name in drawn:
            if name in there or name in avoid:
                continue
            for _ in range(TRIES):
                more = with_one_more(scene, KINDS[name], rng, label=label, evidence=evidence)
                if more is not scene:
                    scene = more
                    break
        return scene

    def to_json(self) -> dict[str, Any]:
        """In JSON's own types."""
        return {"things": dict(self.things), "walls": [list(wall) for wall in self.walls]}

    @classmethod
    def from_json(cls, data: Any) -> Style:
        """The style that `to_json` gave.

        Raises:
            DataError: it is none.
        """
        try:
            things = {name: float(share) for name, share in data["things"].items()}
            walls = tuple(clip(wall) for wall in data["walls"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"this is no style of scenes: {error}") from error
        if not things.keys() <= KINDS.keys() or not all(0 <= share <= 1 for share in things.values()):
            raise DataError("this is no style of this world's scenes: it names other objects, or odd shares")
        return cls(things=things, walls=walls)


def learn_style(scenes: Sequence[tuple[Path, Mapping[str, Any]]]) -> Style:
    """Counts what scenes hold, and looks at their walls.

    Args:
        scenes: at least one: the folder of its world, whose picture and mask are read, and its record, of which the
            objects alone are used.

    Raises:
        DataError: a picture cannot be read.
    """
    counts = Counter(name for _, scene in scenes for name in {item["name"] for item in scene["objects"]})
    things = {name: counts[name] / len(scenes) for name in sorted(counts)}
    return Style(things=things, walls=tuple(_wall(world, scene) for world, scene in scenes))


def _wall(world: Path, scene: Mapping[str, Any]) -> Rgb:
    try:
        with Image.open(world / scene["file"]) as file:
            picture = np.asarray(file.convert("RGB"))
        with Image.open(world / "masks" / f"{scene['id']}.png") as file:
            room = np.asarray(file) == 0
    except (OSError, ValueError) as error:
        raise DataError(f"the picture or the mask of scene {scene['id']} in {world} cannot be read: {error}") from error
    rows = round(WALL_PART * picture.shape[0])
    seen = picture[:rows][room[:rows]]
    # A room whose wall is all covered with things shows at least their colours.
    return clip(tuple(np.median(seen if len(seen) else picture[:rows].reshape(-1, 3), axis=0) / LIT))


def _nearest(wall: Rgb) -> Rgb:
    """Which of the world's wall colours this is a variation of."""
    return min(WALLS, key=lambda other: sum((x - y) ** 2 for x, y in zip(wall, other, strict=True)))
