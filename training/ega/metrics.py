"""What captions are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class ObjectWords:
    """Finds object names in captions.

    Args:
        names: of objects; a name may have several words, and a longer name wins over a shorter one inside it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {self.normal(name) for name in names}
        self._longest = max((len(name) for name in self._names), default=0)

    @staticmethod
    def normal(name: str) -> tuple[str, ...]:
        """A name as it is compared: its words in lower case."""
        return tuple(name.lower().split())

    def mentioned(self, words: Sequence[str]) -> set[tuple[str, ...]]:
        """The names that a caption's words mention."""
        found: set[tuple[str, ...]] = set()
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                candidate = tuple(word.lower() for word in words[place : place + length])
                if candidate in self._names:
                    found.add(candidate)
                    place += length
                    break
            else:
                place += 1
        return found


@dataclass(frozen=True)
class Mentions:
    """How well captions mention the objects of their graphs; counts over different names of each caption."""

    wanted: int
    """Names in the graphs."""
    mentioned: int
    """Names in the captions."""
    both: int

    @property
    def recall(self) -> float:
        """Share of the graphs' names that the captions mention; 1 when there are none."""
        return self.both / self.wanted if self.wanted else 1.0

    @property
    def precision(self) -> float:
        """Share of the captions' names that are in the graphs; 1 when there are none."""
        return self.both / self.mentioned if self.mentioned else 1.0


def count_mentions(words: ObjectWords, captions: Sequence[Sequence[str]], names: Sequence[Iterable[str]]) -> Mentions:
    """Compare captions (their words) with the object names of their graphs."""
    wanted = mentioned = both = 0
    for caption, objects in zip(captions, names, strict=True):
        told, there = words.mentioned(caption), {words.normal(name) for name in objects}
        wanted, mentioned, both = wanted + len(there), mentioned + len(told), both + len(told & there)
    return Mentions(wanted, mentioned, both)


def cider(captions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """CIDEr x 100 of each caption; the mean is the corpus's (Vedantam et al. 2015; pycocoevalcap's CIDEr-D).

    Args:
        captions: words of each.
        references: one or more for each, tokenised (words between blanks).
    """
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]

    given = {k: [" ".join(words)] for k, words in enumerate(captions)}
    _, scores = Cider().compute_score({k: list(said) for k, said in enumerate(references)}, given)
    return 100 * np.asarray(scores, np.float64)


def ratio_interval(
    above: NDArray[np.float64], below: NDArray[np.float64], *, seed: int, resamples: int
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(above) / mean(below), images drawn in pairs.

    Args:
        above, below: a value of each image.
        seed: of the drawing.
        resamples: how often all images are drawn anew.

    Returns:
        Lower and upper end; infinite where `below` has mean 0.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(above), (resamples, len(above)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(above[drawn].mean(1) / below[drawn].mean(1), nan=1.0, posinf=np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of `count` >= 2 things that leaves none in its place."""
    order = np.random.default_rng(seed).permutation(count)
    # Everyone takes the next one's along one random circle.
    out = np.empty(count, np.int64)
    out[order] = np.roll(order, 1)
    return out
