"""What the seeds say together: paired over seeds, by Student's t, against several others with Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

LEVEL = 0.95


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of the mean of independent values; (mean, mean) where all are equal.

    Needs at least two values.
    """
    mean, error = fmean(values), float(stats.sem(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def figure(values: Sequence[float]) -> dict[str, Any]:
    """The mean with its interval, and the values; without an interval where there is one value."""
    low, high = interval(values) if len(values) > 1 else (float("nan"), float("nan"))
    return {"mean": fmean(values), "interval": [low, high], "values": list(values)}


def holm(differences: Mapping[str, Sequence[float]], level: float = LEVEL) -> dict[str, dict[str, Any]]:
    """Test several mean differences against zero together.

    Holm's step-down (S. Holm, A simple sequentially rejective multiple test procedure, 1979): the k-th smallest of m
    p values, counted from 0, counts m - k times, and none counts less than one before it. Its interval has the level
    1 - (1 - level) / (m - k).

    Args:
        differences: paired differences by name, at least two each.
        level: of all together.

    Returns:
        By name `difference`, `interval`, `p` (adjusted).
    """
    p = {name: _p(values) for name, values in differences.items()}
    found, least = {}, 0.0
    for k, name in enumerate(sorted(p, key=lambda n: p[n])):
        times = len(p) - k
        least = max(least, min(1.0, times * p[name]))
        low, high = interval(differences[name], 1 - (1 - level) / times)
        found[name] = {"difference": fmean(differences[name]), "interval": [low, high], "p": least}
    return {name: found[name] for name in differences}


def _p(values: Sequence[float]) -> float:
    """Two-sided p value of the mean's being zero."""
    if np.ptp(values) == 0:
        return 1.0 if values[0] == 0 else 0.0
    return float(stats.ttest_1samp(values, 0.0).pvalue)
