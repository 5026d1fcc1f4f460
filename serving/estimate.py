"""How long a batch takes: a line through what was measured, the recent counting more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ServiceTime:
    """Estimates seconds = fixed + per_item * items by exponentially weighted least squares.

    Where all batches had (nearly) the same size the two parts cannot be told apart; then the time counts as all
    per item above that size and as all fixed below it, which errs on the long side.
    """

    keep: float = 0.8
    """Weight that a measurement keeps when the next one arrives, in (0, 1)."""
    _weight: float = 0.0
    _items: float = 0.0
    _items_squared: float = 0.0
    _seconds: float = 0.0
    _product: float = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Take in one measured batch.

        Args:
            items: its size, at least 1.
            seconds: the time it took, at least 0.
        """
        self._weight = self.keep * self._weight + 1.0
        self._items = self.keep * self._items + items
        self._items_squared = self.keep * self._items_squared + items * items
        self._seconds = self.keep * self._seconds + seconds
        self._product = self.keep * self._product + items * seconds

    def estimate(self, items: int) -> float:
        """Expected seconds of a batch of so many items; 0 before the first measurement."""
        if not self._weight:
            return 0.0
        mean_items = self._items / self._weight
        mean_seconds = self._seconds / self._weight
        variance = self._items_squared / self._weight - mean_items**2
        if variance < 1e-6:
            return mean_seconds * max(1.0, items / mean_items)
        covariance = self._product / self._weight - mean_items * mean_seconds
        slope = min(max(covariance / variance, 0.0), mean_seconds / mean_items)
        return mean_seconds + slope * (items - mean_items)
