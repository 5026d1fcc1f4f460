"""What a runtime of a classifier can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saaa.work import AttributionMap, ExplainOptions, WorkItem


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Logits and maps of one call."""

    logits: NDArray[np.float32]
    """(images, classes)."""
    maps: Sequence[tuple[AttributionMap, ...]]
    """One tuple an image, one map a target, in the order asked for."""


class ClassifierRuntime(Protocol):
    """Executes one classifier. Pixels are uint8 (B, S, S, 3), RGB, at the model's input size. Not thread-safe."""

    name: str
    """What computes, with version and precision."""
    precision: str
    """"fp32" or "bf16"."""

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give the logits, (B, classes)."""

    def explains(self, options: ExplainOptions) -> bool:
        """Say whether `explain` can do what the options ask for."""

    def explain(self, pixels: NDArray[np.uint8], items: Sequence[WorkItem], options: ExplainOptions) -> Explanations:
        """Predict and explain; an item without targets has its most probable class explained."""


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits, (B, classes)."""
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and is found later
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        made: NDArray[np.float32] = grown / grown.sum(axis=1, keepdims=True)
    return made
