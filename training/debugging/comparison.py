"""What a retraining changed on the test images: accuracies before and after on the same images, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.difficulty import wilson
from saaa.errors import DataError
from training.debugging.pool import Candidates
from training.debugging.slices import ALIGNED, COUNTER

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """Accuracy on some images before and after, in [0, 1]."""

    images: int
    before: float
    after: float
    interval: tuple[float, float]
    """95 %, of after - before."""

    @property
    def change(self) -> float:
        """After - before."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "images": self.images,
            "before": round(self.before, 6),
            "after": round(self.after, 6),
            "change": round(self.change, 6),
            "interval": [round(bound, 6) for bound in self.interval],
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on the same test images; groups without images are left out."""

    original: Change
    """On all of them."""
    failures: Change | None
    """On those that the first model got wrong; before is 0 by definition."""
    successes: Change | None
    """On those that it got right; before is 1 by definition."""
    classes: Mapping[str, Change]
    slices: Mapping[str, Change]
    """By name; of a confounded world "aligned" and "counter"."""
    by_class: Mapping[str, Mapping[str, Change]]
    """Of each slice its classes."""

    @property
    def gap(self) -> tuple[float, float] | None:
        """What the confound costs, before and after: accuracy on aligned less that on counter images."""
        if not {ALIGNED, COUNTER} <= self.slices.keys():
            return None
        aligned, counter = self.slices[ALIGNED], self.slices[COUNTER]
        return aligned.before - counter.before, aligned.after - counter.after

    def to_json(self) -> dict[str, Any]:
        """As in report.json."""

        def each(changes: Mapping[str, Change]) -> dict[str, Any]:
            return {name: change.to_json() for name, change in changes.items()}

        gap = self.gap
        return {
            "original": self.original.to_json(),
            "failures": self.failures and self.failures.to_json(),
            "successes": self.successes and self.successes.to_json(),
            "classes": each(self.classes),
            "slices": each(self.slices),
            "slices_by_class": {name: each(own) for name, own in self.by_class.items()},
            "confound_gap": gap and {"before": round(gap[0], 6), "after": round(gap[1], 6)},
        }


def compare(before: Candidates, after: Candidates, slices: Mapping[str, str]) -> Comparison:
    """Compare two models.

    Args:
        before, after: what they say of the same images.
        slices: of images, by name, the slice that they are in.

    Raises:
        DataError: they are not the same images.
    """
    if before.listing.names != after.listing.names:
        raise DataError("The test images changed while the report was made; start again.")
    first, second, labels = ~before.wrong, ~after.wrong, before.labels
    names = before.listing.classes
    of = np.array([slices.get(name, "") for name in before.listing.names])

    def changes(groups: Mapping[str, Flags]) -> dict[str, Change]:
        found = {name: change_of(first[chosen], second[chosen]) for name, chosen in groups.items()}
        return {name: change for name, change in found.items() if change is not None}

    original = change_of(first, second)
    assert original is not None, "a listing has images"
    named = sorted(set(slices.values()) & set(of.tolist()))
    by_label = {name: labels == label for label, name in enumerate(names)}
    return Comparison(
        original=original,
        failures=change_of(first[~first], second[~first]),
        successes=change_of(first[first], second[first]),
        classes=changes(by_label),
        slices=changes({name: of == name for name in named}),
        by_class={
            name: changes({label: chosen & (of == name) for label, chosen in by_label.items()}) for name in named
        },
    )


def change_of(before: Flags, after: Flags) -> Change | None:
    """Compare which of n images are right, (n,) and (n,); None for n = 0."""
    count = len(before)
    if not count:
        return None
    return Change(count, float(before.mean()), float(after.mean()), paired_interval(before, after))


def paired_interval(before: Flags, after: Flags) -> tuple[float, float]:
    """Give the 95 % interval of mean(after) - mean(before) of paired n flags, n at least 1.

    Source: R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on
    paired data, Statistics in Medicine 17 (1998), method 10. Unlike a bootstrap it knows that few images without a
    change do not mean that there is none.
    """
    count = len(before)
    both, gained = int((before & after).sum()), int((~before & after).sum())
    lost, neither = int((before & ~after).sum()), int((~before & ~after).sum())
    one, other = (both + gained) / count, (both + lost) / count
    (low, high), (low_other, high_other) = wilson(one, count), wilson(other, count)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    agreed = float(both * neither - gained * lost)
    if agreed > 0:
        agreed = max(agreed - count / 2, 0.0)
    phi = agreed / math.sqrt(margins) if margins else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    change = one - other
    return change - reach(one - low, high_other - other), change + reach(high - one, other - low_other)
