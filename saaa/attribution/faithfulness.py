"""Is a map faithful to the network? Remove what it points at; and see whether it changes with weights and classes.

The network enters as a function of the caller's, so that any output can be asked for: a softmax or a sigmoid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saaa.attribution.metrics import Map, rank_correlation
from saaa.attribution.removal import blurred, cells_of, chunks
from saaa.errors import OptionInvalid

STEP = 0.05
"""Share of the cells that each step of a curve removes or adds."""

Score = Callable[[Tensor], Tensor]
"""What to watch: inputs (B, 3, S, S), preprocessed, to (B,), in [0, 1]."""


class Fill(Enum):
    """What takes the place of pixels that are removed."""

    MEAN = "mean"
    """The mean colour, 0 after normalisation."""
    BLUR = "blur"
    """The image, blurred (`saaa.attribution.removal.blurred`)."""


@dataclass(frozen=True)
class Curve:
    """How a score changes as cells are removed or added."""

    shares: NDArray[np.float64]
    """(points,), of the cells that are removed (deletion) or present (insertion), from 0 to 1."""
    scores: NDArray[np.float64]
    """(points,)."""

    @property
    def area(self) -> float:
        """Area under the curve by the trapezoid rule, over shares from 0 to 1: the mean score."""
        return float((np.diff(self.shares) * (self.scores[1:] + self.scores[:-1]) / 2).sum())


def deletion(score: Score, image: Tensor, values: Map, *, fill: Fill = Fill.MEAN, step: float = STEP) -> Curve:
    """Remove the map's cells from the image, the largest first; a faithful map makes the score fall at once.

    Petsiuk et al. 2018, RISE, arXiv:1806.07421. Cells of the same value go in an order that is random but always the
    same, so that no side of the image is favoured.

    Args:
        score: what to watch.
        image: (3, S, S), preprocessed.
        values: the map, (rows, columns), at most S each; bring maps that are to be compared to the same grid
            (`saaa.attribution.metrics.to_cells`).
        fill: what takes the place of the removed cells.
        step: share of the cells that each step removes, in (0, 1].

    Returns:
        The curve; less area is better.

    Raises:
        OptionInvalid: a step outside its range, a map that is not finite or finer than the image.
    """
    return _curve(score, image, values, fill, step, insert=False)


def insertion(score: Score, image: Tensor, values: Map, *, fill: Fill = Fill.MEAN, step: float = STEP) -> Curve:
    """Put the map's cells back into an empty image, the largest first; a faithful map makes the score rise at once.

    Arguments and errors are those of `deletion`; more area is better.
    """
    return _curve(score, image, values, fill, step, insert=True)


def mprt(
    net: nn.Module,
    explain: Callable[[nn.Module], NDArray[np.floating]],
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Model-parameter randomisation test: a map must change when the weights do.

    Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292. The layers lose what they have learnt one
    after the other, from the top, and stay so (cascading). A layer is initialised as its class does it; parameters
    without such a way are drawn from a normal distribution with their mean and deviation. All this happens on a copy.

    Args:
        net: the network, for instance a `Classifier`; it is not touched.
        explain: makes the maps (n, ...) of the same n images and targets with the network that it is given.
        layers: names of modules, randomised with all that is in them, in this order; ("",) is the full randomisation
            alone. Without: every module with parameters of its own, from the last defined to the first; the last
            entry is then the full randomisation.
        seed: of the new weights.

    Returns:
        For each layer, in order, the rank correlation (n,) of the maps before any and after its randomisation.

    Raises:
        OptionInvalid: the network has no such layer.
    """
    known = dict(net.named_modules())
    if layers is not None and (unknown := [name for name in layers if name not in known]):
        raise OptionInvalid(f"The network has no module {unknown[0]!r}.", field="layers")
    owners = [name for name, module in known.items() if list(module.parameters(recurse=False))]
    before = np.array(explain(net))
    changed = copy.deepcopy(net)
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name in owners[::-1] if layers is None else layers:
            module = changed.get_submodule(name)
            for part in [module] if layers is None else module.modules():
                _forget(part)
            pairs = zip(before, explain(changed), strict=True)
            found[name] = np.array([rank_correlation(a, b) for a, b in pairs], np.float64)
    return found


def random_logit(
    explain: Callable[[Sequence[int]], NDArray[np.floating]], targets: Sequence[int], classes: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """Random logit test: the map of a class must differ from that of another one.

    Sixt et al. 2020, When Explanations Lie, arXiv:1912.09818, here with the rank correlation for the similarity.

    Args:
        explain: makes the maps (n, ...) of the same n images for one class each.
        targets: the class of each image, (n,).
        classes: number of classes, at least 2.
        seed: of the other classes, each drawn from all but the target.

    Returns:
        (n,), the rank correlation of the two maps of each image.
    """
    wanted = np.asarray(targets, np.int64)
    others = (wanted + np.random.default_rng(seed).integers(1, classes, len(wanted))) % classes
    pairs = zip(explain(wanted.tolist()), explain(others.tolist()), strict=True)
    return np.array([rank_correlation(a, b) for a, b in pairs], np.float64)


def _curve(score: Score, image: Tensor, values: Map, fill: Fill, step: float, *, insert: bool) -> Curve:
    flat, size = np.asarray(values, np.float64).ravel(), image.shape[-1]
    rows, columns = np.shape(values)
    if not 0 < step <= 1:
        raise OptionInvalid(f"step is {step}; choose a share above 0 and at most 1.", field="step")
    if max(rows, columns) > size or not np.isfinite(flat).all():
        raise OptionInvalid(f"The map must be finite and at most {size} cells wide and high.", field="map")
    # Equal values are ordered by a fixed random number.
    order = np.lexsort((np.random.default_rng(0).permutation(len(flat)), -flat))
    rank = np.empty(len(flat), np.int64)
    rank[order] = np.arange(len(flat))
    rank_of_pixel = torch.from_numpy(rank)[cells_of((rows, columns), size)].to(image.device)
    shares = np.append(np.arange(0, 1, step), 1.0)
    counts = np.unique(np.round(shares * len(flat)).astype(np.int64))
    empty = torch.zeros_like(image) if fill is Fill.MEAN else blurred(image[None])[0]
    top, rest = (image, empty) if insert else (empty, image)

    def images() -> Iterator[Tensor]:
        for piece in chunks(len(counts)):
            first = rank_of_pixel < torch.from_numpy(counts[piece]).to(image.device)[:, None, None]
            yield torch.where(first[:, None], top, rest)

    with torch.no_grad():
        scores = torch.cat([score(some).double().cpu() for some in images()])
    return Curve(counts / len(flat), scores.numpy())


def _forget(module: nn.Module) -> None:
    """Give a module's own parameters fresh values from torch's random state."""
    reset = getattr(module, "reset_parameters", None)
    with torch.no_grad():
        if reset is not None:
            reset()
            return
        for parameter in module.parameters(recurse=False):
            parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))
