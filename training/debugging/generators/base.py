"""What makes an image of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.debugging.prompts import Prompt

Pixels = NDArray[np.uint8]
"""(height, width, 3)."""


class Generator(Protocol):
    """Makes images of prompts; the same prompt and seed give the same image."""

    @property
    def identity(self) -> str:
        """What makes its images these and no others: its kind, model and options. A debug set goes on only with the
        same."""

    def learn(self, images: Mapping[str, Sequence[Path]], folder: Path) -> None:
        """Learn a token of each class from its images, before prompts with `token` are drawn.

        Args:
            images: the images of each class.
            folder: where what was learned is kept; a class that is there already is not learned again.

        Raises:
            OptionInvalid: this generator learns no tokens.
            DataError: the images teach it nothing.
        """

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Pixels]:
        """Draw one image a prompt.

        Raises:
            OptionInvalid: a prompt that this generator does not understand.
            GeneratorFailed: it cannot go on now; the images made before are kept.
        """
