"""How much longer than expected things take, so that a promise can allow for it."""

from __future__ import annotations

from collections import deque

_KEPT = 199
"""So many measurements count."""
_SPARE = 1.05
"""What is kept free besides: promises are seen to be broken only when the next ones have long been made."""
_MOST = 3.0
"""After an accident work must go on."""


class Margin:
    """A factor on expected times, which hardly ever take longer than that.

    Of n + 1 measurements in whatever order each is equally likely to be the largest, so that the next one passes the
    largest of the last n with probability 1 / (n + 1), however they are distributed (David and Nagaraja 2003, Order
    Statistics, section 7.3): 0.5 % of 199.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self.factor = _SPARE
        """What an expected time has to be multiplied with, 1.05 to 3."""

    def add(self, expected: float, actual: float) -> None:
        """Take in what came of one expectation.

        Args:
            expected: seconds, at least 0; 0 tells nothing and is left out.
            actual: seconds, at least 0.
        """
        if expected > 0:
            self._recent.append(actual / expected)
            self.factor = min(max(1.0, *self._recent) * _SPARE, _MOST)
