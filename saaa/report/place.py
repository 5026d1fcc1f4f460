"""Placing labels so that they stay readable: rectangles, and a greedy search for free room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Rect(NamedTuple):
    """A rectangle in picture pixels; right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def overlap(self, other: Rect) -> float:
        """Area that both share."""
        return Rect(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        ).area

    def inside(self, frame: Rect) -> Rect:
        """Moved, not resized, to lie in `frame` as far as it fits."""
        dx = max(frame.left - self.left, 0) or min(frame.right - self.right, 0)
        dy = max(frame.top - self.top, 0) or min(frame.bottom - self.bottom, 0)
        return Rect(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)


class Room:
    """The frame in which labels are placed, what is taken of it, and what had better stay visible."""

    def __init__(self, frame: Rect) -> None:
        self.frame = frame
        self._taken: list[Rect] = []
        self._precious: list[tuple[float, float]] = []

    def take(self, rect: Rect) -> None:
        """Let nothing be placed on `rect` any more."""
        self._taken.append(rect)

    def spare(self, points: Iterable[tuple[float, float]]) -> None:
        """Prefer places that do not cover `points`."""
        self._precious += points

    def place(self, candidates: Iterable[Rect], *, force: bool = False) -> Rect | None:
        """Take the best free candidate: the one that covers fewest spared points, then the first.

        With `force` the first candidate is taken when none is free, else None is returned.
        """
        rects = [candidate.inside(self.frame) for candidate in candidates]
        free = [rect for rect in rects if not any(rect.overlap(taken) for taken in self._taken)]
        if not free and not force:
            return None
        best = min(free, key=self._covered) if free else rects[0]
        self.take(best)
        return best

    def _covered(self, rect: Rect) -> int:
        return sum(rect.left <= x <= rect.right and rect.top <= y <= rect.bottom for x, y in self._precious)


def around(box: Rect, width: float, height: float) -> list[Rect]:
    """Places for a label of that size at a box: corners inside, then outside above, below and beside."""
    left, top, right, bottom = box
    rights, middle = right - width, (top + bottom - height) / 2
    corners = [
        (left, top),
        (left, top - height),
        (rights, top),
        (left, bottom - height),
        (rights, bottom - height),
        (left, bottom),
        (rights, top - height),
        (rights, bottom),
        (right, top),
        (left - width, top),
        (right, middle),
        (left - width, middle),
        ((left + right - width) / 2, middle),
    ]
    return [Rect(x, y, x + width, y + height) for x, y in corners]
