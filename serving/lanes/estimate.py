"""How long a batch takes: a line through what was measured, the recent counting more.

Work is counted in whatever is proportional to time; the lanes count forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ServiceTime:
    """Estimates seconds = fixed + slope * work by exponentially weighted least squares.

    Where all batches had (nearly) the same work the two parts cannot be told apart; then the time counts as all
    in proportion above that much and as all fixed below it, which errs on the long side.
    """

    keep: float = 0.8
    """Weight that a measurement keeps when the next one arrives, in (0, 1)."""
    _weight: float = 0.0
    _work: float = 0.0
    _work_squared: float = 0.0
    _seconds: float = 0.0
    _product: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        """Take in one measured batch.

        Args:
            work: how much it was, above 0.
            seconds: the time it took, at least 0.
        """
        self._weight = self.keep * self._weight + 1.0
        self._work = self.keep * self._work + work
        self._work_squared = self.keep * self._work_squared + work * work
        self._seconds = self.keep * self._seconds + seconds
        self._product = self.keep * self._product + work * seconds

    @property
    def fixed(self) -> float:
        """Expected seconds that do not depend on the work; 0 as long as they cannot be told apart."""
        slope = self._slope()
        return 0.0 if slope is None else (self._seconds - slope * self._work) / self._weight

    def estimate(self, work: float) -> float:
        """Expected seconds of a batch of so much work; 0 before the first measurement."""
        if not self._weight:
            return 0.0
        mean_work = self._work / self._weight
        mean_seconds = self._seconds / self._weight
        slope = self._slope()
        if slope is None:
            return mean_seconds * max(1.0, work / mean_work)
        return mean_seconds + slope * (work - mean_work)

    def _slope(self) -> float | None:
        """Seconds for each piece of work; None where all batches had nearly the same work, or there were none."""
        if not self._weight:
            return None
        mean_work = self._work / self._weight
        mean_seconds = self._seconds / self._weight
        variance = self._work_squared / self._weight - mean_work**2
        if variance < 1e-6 * mean_work**2:
            return None
        covariance = self._product / self._weight - mean_work * mean_seconds
        return min(max(covariance / variance, 0.0), mean_seconds / mean_work)
