"""Bootstrap intervals of what two ways to caption the same images differ by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ratio_interval(
    above: ArrayLike, below: ArrayLike, *, images: Sequence[Hashable] | None = None, seed: int, resamples: int
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(above) / mean(below), drawn in pairs.

    Args:
        above, below: values of the same R regions, (R,).
        images: the image of each; all regions of an image are drawn together, since they are not independent. None
            takes each region for an image.
        seed: of the drawing.
        resamples: how often all images are drawn anew.

    Returns:
        Lower and upper end; infinite where `below` has mean 0.
    """
    one, other, _ = _drawn((above, below), images, seed, resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(one / other, nan=1.0, posinf=np.inf)
    return _ends(ratios)


def difference_interval(
    above: ArrayLike, below: ArrayLike, *, images: Sequence[Hashable] | None = None, seed: int, resamples: int
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(above) - mean(below), drawn in pairs; arguments as for `ratio_interval`."""
    one, other, regions = _drawn((above, below), images, seed, resamples)
    return _ends((one - other) / regions)


def _drawn(
    values: Sequence[ArrayLike], images: Sequence[Hashable] | None, seed: int, resamples: int
) -> list[NDArray[np.float64]]:
    """Sums of each of `values`, and the number of regions, of every resample."""
    rows = [np.asarray(v, np.float64) for v in values]
    rows.append(np.ones(len(rows[0])))
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault(image, len(numbers)) for image in images or range(len(rows[0]))]
    sums = [np.bincount(of, weights=row) for row in rows]
    drawn = np.random.default_rng(seed).integers(0, len(sums[0]), (resamples, len(sums[0])))
    return [total[drawn].sum(1) for total in sums]


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(low), float(high)
