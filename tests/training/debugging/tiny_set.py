"""Class folders of small pictures, and a generator that paints what it is asked for, or fails as it is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from saaa.errors import GeneratorFailed, OptionInvalid
from training.debugging.generators.base import Pixels
from training.debugging.prompts import Prompt

CLASSES = ("attic", "bathroom", "den")
"""Three of the five that the tiny archive knows."""


def draw_folders(root: Path, count: int, seed: int, classes: Sequence[str] = CLASSES) -> Path:
    """Write `count` pictures a class into root/<class>/."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(8, axis=0).repeat(8, axis=1)).save(root / name / f"{i:02}.png")
    return root


class Painter:
    """One colour for each prompt and seed. It keeps a book of what it painted.

    Args:
        fails_at: the number of the picture at which it fails, once.
        refuses: texts that it does not understand.
        book: a file that gets a line for each picture.
    """

    identity = "painter"

    def __init__(self, *, fails_at: int | None = None, refuses: Sequence[str] = (), book: Path | None = None) -> None:
        self.painted: list[tuple[str, int]] = []
        self.learned: dict[str, list[str]] = {}
        self._fails_at, self._refuses, self._book = fails_at, refuses, book

    def learn(self, images: Mapping[str, Sequence[Path]], folder: Path) -> None:
        self.learned = {label: [path.name for path in paths] for label, paths in images.items()}

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Pixels]:
        for prompt in prompts:
            if prompt.text in self._refuses:
                raise OptionInvalid("that is nonsense")
        pictures = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            if len(self.painted) == self._fails_at:
                self._fails_at = None
                raise GeneratorFailed("out of paint")
            self.painted.append((prompt.text, seed))
            if self._book is not None:
                with self._book.open("a") as lines:
                    lines.write(f"{prompt.label} {seed}\n")
            pictures.append(paint(prompt, seed))
        return pictures


def paint(prompt: Prompt, seed: int) -> Pixels:
    colour = hashlib.sha256(f"{prompt}/{seed}".encode()).digest()[:3]
    return np.full((8, 8, 3), list(colour), np.uint8)
