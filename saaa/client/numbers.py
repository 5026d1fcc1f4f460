"""Numbers as they are written in JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def shortest(value: float | np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def maybe(value: float | None) -> float | None:
    """As `shortest`; None stays."""
    return None if value is None else shortest(value)


def floats(values: NDArray[np.float32]) -> list[Any]:
    """As `shortest`, in lists nested as deep as the array."""
    return [floats(row) if np.ndim(row) else shortest(row) for row in values]
