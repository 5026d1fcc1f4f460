"""The procedural world as a generator: what a prompt asks for, in the world's own pictures.

A plain prompt's other objects, and its walls, are as the world's chance has them, alike for all classes. A learned
token stands for a class as its training images show it: what they hold and the colours of their walls, each as often as
they do. So a token that was learned from confounded images brings the confound along, unless the prompt's negative
concepts keep it out. Nothing here reads which confound a scene carries.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saaa.errors import DataError, OptionInvalid
from training.debugging.generators.base import Pixels
from training.debugging.prompts import TOKEN, Prompt
from training.files import write_json
from training.options import check
from training.progress import progress
from training.scenes import prompt as worded
from training.scenes.classes import CLASSES, RULES
from training.scenes.config import MAX_SIZE, MIN_SIZE
from training.scenes.records import SCENES, read_scenes
from training.scenes.room import WALL_COLOURS, WALL_PATTERNS, WALLS
from training.scenes.sampler import Bias
from training.scenes.style import Style, learn_style
from training.scenes.writer import fingerprint

log = logging.getLogger(__name__)

Scenes = dict[str, dict[str, Any]]
"""A world's records by their ids."""
WALL_WORDS = frozenset({"wall", "walls", "wallpaper", "backdrop", "background"})
"""A negative concept with one of these is about the wall: its colour, its pattern."""


class WorldGenerator:
    """Draws prompts as scenes of the procedural world.

    Negative concepts that mean nothing here, or without which the picture would not be what was asked for, cannot be
    kept out; that is logged once.

    Args:
        size: width and height of the pictures, pixels; as the world's.

    Raises:
        OptionInvalid: the size is out of range.
    """

    def __init__(self, *, size: int = 160) -> None:
        check("size", size, at_least=MIN_SIZE, at_most=MAX_SIZE)
        self._size = size
        self._styles: dict[str, Style] = {}
        self._told: set[str] = set()

    @property
    def identity(self) -> str:
        """The size, and the code that draws."""
        return f"world, size {self._size}, code {fingerprint()[:16]}"

    def learn(self, images: Mapping[str, Sequence[Path]], folder: Path) -> None:
        """Learn each class's style from the scenes that its images show.

        Args:
            images: pictures of worlds, each where `saaa-train scenes` put it: it tells its scene by its id.
            folder: gets <class>.json, where a person can read what was learned.

        Raises:
            OptionInvalid: a class that the world does not have.
            DataError: a class without one picture of a world, or a file in the folder that is no style.
        """
        worlds: dict[Path, Scenes] = {}
        for label, paths in progress(images.items(), "tokens", total=len(images), unit="class"):
            _check_class(label)
            kept = folder / f"{label}.json"
            if not kept.exists():
                found = [scene for scene in (_scene_of(path, worlds) for path in paths) if scene is not None]
                if not found:
                    raise DataError(
                        f"None of the {len(paths)} images of {label} lies in a world (a folder with {SCENES}), and "
                        "the world's generator learns from no others; use another generator."
                    )
                if len(found) < len(paths):
                    self._tell(f"{len(paths) - len(found)} of the {len(paths)} images of {label} are of no world")
                write_json(kept, {"images": len(found), **learn_style(found).to_json()})
            self._styles[label] = _read_style(kept)

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Pixels]:
        """Draw one image a prompt, (size, size, 3).

        Raises:
            OptionInvalid: a class that the world does not have, a text about another class, a concept that means
                nothing here or cannot be in a picture of the class, or a token that was not learned.
        """
        return [self._draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _draw(self, prompt: Prompt, seed: int) -> Pixels:
        asked = _understood(prompt)
        if asked.unknown:
            self._tell(f"{prompt.text!r}: {', '.join(asked.unknown)} mean nothing in the world and are left out")
        style = None
        if prompt.token:
            if prompt.label not in self._styles:
                raise OptionInvalid(f"No token of {prompt.label} was learned; let it learn first.", field="prompt")
            style = self._styles[prompt.label]
        bias, without = self._kept_out(prompt, asked)
        asked = replace(asked, unknown=())
        return worded.render_prompt(asked, seed, size=self._size, style=style, bias=bias, without=without)[0]

    def _kept_out(self, prompt: Prompt, asked: worded.Prompt) -> tuple[Bias, list[worded.Prompt]]:
        """What the negative concepts keep out: walls and kinds of objects, and whole phrases."""
        needed = {wish.kind for wish in asked.wishes} | {kind for kind, _ in RULES[prompt.label].needs}
        walls: set[tuple[int, int, int]] = set()
        backdrops: set[str] = set()
        things: set[str] = set()
        phrases = []
        for concept in prompt.negative:
            words = concept.lower().replace("_", " ").split()
            if WALL_WORDS & set(words):
                colours = {wall for wall, name in zip(WALLS, WALL_COLOURS, strict=True) if name in words}
                patterns = {name for name in WALL_PATTERNS if any(word.startswith(_stem(name)) for word in words)}
                walls |= colours
                backdrops |= patterns
                if not colours and not patterns:
                    self._tell(f"{concept!r} names no wall of the world and is not kept out")
                continue
            try:
                unwanted = worded.parse_prompt(concept)
            except OptionInvalid:
                unwanted = None
            if unwanted is None or not unwanted.wishes:
                self._tell(f"{concept!r} means nothing in the world and is not kept out")
            elif {wish.kind for wish in unwanted.wishes} <= needed:
                self._tell(f"{prompt.text!r} of {prompt.label} cannot be without {concept!r}")
            elif len(unwanted.wishes) == 1 and not unwanted.wishes[0].attributes:
                things.add(unwanted.wishes[0].kind)
            else:
                phrases.append(unwanted)
        # Every room has some wall.
        for unwanted_walls, there_are in ((walls, WALLS), (backdrops, WALL_PATTERNS)):
            if len(unwanted_walls) == len(there_are):
                self._tell(f"{prompt.negative} leave no wall; all walls are drawn")
                unwanted_walls.clear()
        bias = Bias(
            avoid_walls=frozenset(walls), avoid_backdrops=frozenset(backdrops), avoid_things=frozenset(things - needed)
        )
        return bias, phrases

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


def _check_class(label: str) -> None:
    if label not in CLASSES:
        raise OptionInvalid(
            f"The world has no class {label!r}, only {', '.join(CLASSES)}; use another generator.", field="generator"
        )


def _understood(prompt: Prompt) -> worded.Prompt:
    """The prompt as the world reads it, with its class.

    Raises:
        OptionInvalid: see `WorldGenerator.draw`.
    """
    _check_class(prompt.label)
    name = prompt.label.replace("_", " ")
    text = prompt.text.replace(TOKEN, name)
    asked = worded.parse_prompt(text)
    if asked.label not in (None, prompt.label) and name not in text.lower().replace("_", " "):
        raise OptionInvalid(f"{text!r} is about a {asked.label}, not a {prompt.label}.", field="prompt")
    if prompt.concept and not asked.wishes:
        raise OptionInvalid(f"The world has no {prompt.concept!r}.", field="prompt")
    return replace(asked, label=prompt.label)


def _stem(pattern: str) -> str:
    """What "stripes" and "striped" begin with."""
    return pattern if pattern == "plain" else pattern.rstrip("s").rstrip("e")


def _scene_of(path: Path, worlds: dict[Path, Scenes]) -> tuple[Path, dict[str, Any]] | None:
    """The world that a picture lies in, and its scene; None outside worlds."""
    world = next(
        (folder for folder in path.absolute().parents if folder in worlds or (folder / SCENES).is_file()), None
    )
    if world is None:
        return None
    if world not in worlds:
        worlds[world] = {str(scene["id"]): scene for scene in read_scenes(world)}
    scene = worlds[world].get(path.stem)
    return (world, scene) if scene is not None and world / scene["file"] == path.absolute() else None


def _read_style(path: Path) -> Style:
    try:
        return Style.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except DataError as error:
        raise DataError(f"{path} is to be removed, so that it is learned anew: {error}") from error
