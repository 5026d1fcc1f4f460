"""How good are maps whose truth is known? Localisation, deletion and insertion, Shapley values, sanity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saaa.attribution import attribute
from saaa.attribution.faithfulness import Fill, deletion, insertion, mprt
from saaa.attribution.metrics import (
    centred_cosine,
    iou,
    mean_iou,
    object_means,
    object_top1,
    pointing,
    rank_accuracy,
    relevance_mass,
    to_cells,
    to_pixels,
)
from saaa.attribution.removal import coalition_logits, grid_of
from saaa.attribution.shapley import all_coalitions, shapley_values
from saaa.concepts import EXACT_REGIONS
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions
from training.progress import progress

Shares = NDArray[np.float64]

RANDOM = "random"
BATCH = 16
LEAST_REGIONS = 3
"""Regions of a scene for its Shapley values to be compared with."""
DRAWS = 2000


@dataclass(frozen=True)
class Case:
    """One picture with what its explanation should point at."""

    inputs: Tensor
    """(3, S, S), preprocessed."""
    target: int
    """Class index."""
    regions: Tensor
    """bool, (R, S, S): the objects; the first is the one that the class is about."""


@dataclass
class Figures:
    """Every case's figures of one method, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note the figure of one case."""
        self.values.setdefault(name, []).append(value)

    def extend(self, other: Figures) -> None:
        """Take in those of other cases."""
        for name, values in other.values.items():
            self.values.setdefault(name, []).extend(values)

    def means(self) -> dict[str, float]:
        """The mean over the cases."""
        return {name: float(np.mean(values)) for name, values in self.values.items()}

    def interval(self, name: str) -> tuple[float, float]:
        """95 % bootstrap interval of the mean over the cases."""
        values = np.asarray(self.values[name])
        drawn = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
        low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
        return float(low), float(high)


def explain(classifier: nn.Module, cases: Sequence[Case], options: ExplainOptions) -> list[NDArray[np.float32]]:
    """One map a case."""
    assert isinstance(classifier, Classifier)
    found = attribute(
        classifier,
        torch.stack([case.inputs for case in cases]),
        [(case.target,) for case in cases],
        replace(options, deletion=False),
        regions=[case.regions for case in cases],
    )
    return [of_image[0].values for of_image in found.maps]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measures the methods of one classifier.

    `probability` makes probabilities of logits (n, classes): softmax, or sigmoid for a multi-label head.
    """

    classifier: Classifier
    probability: nn.Module
    blur: bool = False
    """Deletion and insertion also with the blurred image as the fill."""
    explain: Callable[[nn.Module, Sequence[Case], ExplainOptions], list[NDArray[np.float32]]] = explain
    """Makes one map a case."""

    def measure(
        self, cases: Sequence[Case], referee: Sequence[Shares | None], options: ExplainOptions, *, seed: int = 0
    ) -> Figures:
        """Measure a method, or random maps, on the cases; `referee` is what the method of that name gives."""
        figures = Figures()
        maps = self.maps(cases, options, np.random.default_rng(seed))
        label = f"{options.method}, {len(cases)} cases"
        for case, shares, values in zip(progress(cases, label, unit="case"), referee, maps, strict=True):
            self._localisation(figures, case, shares, values)
            self._removal(figures, case, values)
        return figures

    def referee(self, cases: Sequence[Case]) -> list[Shares | None]:
        """The exact Shapley values of each case's objects, (R,); None where there are too few or too many."""
        found: list[Shares | None] = []
        for case in progress(cases, "Shapley values", unit="case"):
            if not LEAST_REGIONS <= len(case.regions) <= EXACT_REGIONS:
                found.append(None)
                continue
            coalitions = all_coalitions(len(case.regions))
            logits = coalition_logits(self.classifier, case.inputs, case.regions, coalitions)[:, [case.target]]
            found.append(shapley_values(logits)[:, 0].numpy())
        return found

    def maps(
        self, cases: Sequence[Case], options: ExplainOptions, rng: np.random.Generator
    ) -> Iterator[NDArray[np.float32]]:
        """Each case's map, at the method's own resolution."""
        for start in range(0, len(cases), BATCH):
            batch = cases[start : start + BATCH]
            if options.method == RANDOM:
                yield from rng.random((len(batch), *grid_of(self.classifier)), np.float32)
            else:
                yield from self.explain(self.classifier, batch, options)

    def randomised(self, cases: Sequence[Case], options: ExplainOptions, *, seed: int = 0) -> Figures:
        """Rank correlation of the maps with those of the same network with fresh weights."""
        found = mprt(self.classifier, lambda net: np.stack(self.explain(net, cases, options)), layers=("",), seed=seed)
        figures = Figures()
        for values in found.values():
            for value in values:
                figures.add("mprt", float(value))
        return figures

    def _localisation(self, figures: Figures, case: Case, shares: Shares | None, values: NDArray[np.float32]) -> None:
        pixels, masks = to_pixels(values, case.inputs.shape[-1]), case.regions.numpy()
        figures.add("pointing", pointing(pixels, masks[0]))
        figures.add("mass", relevance_mass(pixels, masks[0]))
        figures.add("rank", rank_accuracy(pixels, masks[0]))
        figures.add("object_top1", object_top1(pixels, masks, 0))
        figures.add("iou", iou(pixels, masks[0]))
        figures.add("mean_iou", mean_iou(pixels, masks[0]))
        figures.add("area", float(masks[0].mean()))
        if shares is not None:
            figures.add("shapley_cosine", centred_cosine(object_means(pixels, masks), shares))

    def _removal(self, figures: Figures, case: Case, values: NDArray[np.float32]) -> None:
        # Curves of two methods can be compared only at one grain.
        cells = to_cells(values, grid_of(self.classifier))

        def score(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                made: Tensor = self.probability(self.classifier(inputs))[:, case.target]
            return made

        for fill in Fill if self.blur else (Fill.MEAN,):
            suffix = "" if fill is Fill.MEAN else f"_{fill.value}"
            figures.add(f"deletion{suffix}", deletion(score, case.inputs, cells, fill=fill).area)
            figures.add(f"insertion{suffix}", insertion(score, case.inputs, cells, fill=fill).area)
