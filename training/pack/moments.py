"""Mean and standard deviation of features that come part by part."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Of rows added so far, in float64.

    Parts are joined as Chan, Golub and LeVeque do ("Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", 1979): deviations are summed around each part's own mean, so that large means cost no precision.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)

    def add(self, rows: NDArray[np.float32], counts: NDArray[np.int64]) -> Self:
        """Add (n, size) rows, one or more, each `counts` (n,) times, at least once."""
        values, weights = rows.astype(np.float64), counts.astype(np.float64)
        count = int(counts.sum())
        mean: NDArray[np.float64] = weights @ values / count
        squares: NDArray[np.float64] = weights @ np.square(values - mean)
        if self._count:
            both, apart = self._count + count, mean - self._mean
            squares += self._squares + np.square(apart) * (self._count * count / both)
            mean = self._mean + apart * (count / both)
            count = both
        self._count, self._mean, self._squares = count, mean, squares
        return self

    def finish(self) -> NDArray[np.float64]:
        """(2, size): mean, and deviation without correction."""
        return np.stack([self._mean, np.sqrt(self._squares / self._count)])
