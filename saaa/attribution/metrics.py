"""How good is a map? Pure functions on arrays: whether it points at the pixels that are known to matter, whether it
adds up, whether it agrees with another. `saaa.attribution.faithfulness` asks the network instead.

A map is (rows, columns), larger speaks more for the target; a mask is bool, of the same shape, so enlarge the map by
`to_pixels` first. A map that prefers nothing gets what chance gets: equal values share their places.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from saaa.errors import OptionInvalid

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]

LEAST = float(np.finfo(np.float32).eps)
"""What stands in for a difference of 0 where one divides by it."""


def to_pixels(values: Map, size: int) -> NDArray[np.float32]:
    """Enlarge a map to (size, size) bilinearly; what all the localisation metrics are measured on."""
    large = interpolate(_tensor(values), size=(size, size), mode="bilinear", align_corners=False)
    return np.asarray(large[0, 0].numpy(), np.float32)


def to_cells(values: Map, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Average a map over the cells of a coarser grid (rows, columns).

    Perturbation curves compare two maps only at the same grain; this brings maps of pixels and of patches to one.
    """
    return np.asarray(adaptive_avg_pool2d(_tensor(values), grid)[0, 0].numpy(), np.float32)


def pointing(values: Map, mask: Mask) -> float:
    """Pointing game: whether the map's largest value lies in the mask (Zhang et al. 2016, arXiv:1608.00507).

    Returns:
        1 or 0; where several values are the largest, the share of them that lies inside. Chance is the mask's share of
        the area.

    Raises:
        OptionInvalid: as all localisation metrics do: a map that is not finite, a mask without a pixel or of another
            shape.
    """
    flat, inside = _checked(values, mask)
    return float(inside[flat == flat.max()].mean())


def relevance_mass(values: Map, mask: Mask) -> float:
    """Relevance mass accuracy: share of the map's positive mass that lies in the mask, 0 to 1.

    Arras et al. 2022, CLEVR-XAI, arXiv:2003.07258; the energy-based pointing game of Wang et al. 2020, Score-CAM,
    arXiv:1910.01279, is the same. Chance is the mask's share of the area.
    """
    flat, inside = _checked(values, mask)
    positive = np.maximum(flat, 0)
    if not positive.any():
        positive = np.ones_like(flat)
    positive /= positive.max()  # so that no sum can overflow
    return _share(positive[inside].sum() / positive.sum())


def rank_accuracy(values: Map, mask: Mask) -> float:
    """Relevance rank accuracy: of the |mask| largest values, the share that lies in the mask, 0 to 1.

    Arras et al. 2022, as above. Values that tie for the last places share them. Chance is the mask's share of the area.
    """
    flat, inside = _checked(values, mask)
    count = int(inside.sum())
    last = np.partition(flat, len(flat) - count)[len(flat) - count]
    above, tied = flat > last, flat == last
    places = count - above.sum()
    return _share((inside[above].sum() + places * inside[tied].mean()) / count)


def iou(values: Map, mask: Mask) -> float:
    """Foreground IoU: intersection over union of the mask and the values above the map's mean, 0 to 1."""
    flat, inside = _checked(values, mask)
    return _iou(flat > flat.mean(), inside)


def mean_iou(values: Map, mask: Mask) -> float:
    """Mean of the IoU of foreground and of background at the map's mean, 0 to 1.

    The mIoU of the ImageNet-Segmentation protocol (Chefer et al. 2021, arXiv:2012.09838).
    """
    flat, inside = _checked(values, mask)
    marked = flat > flat.mean()
    return (_iou(marked, inside) + _iou(~marked, ~inside)) / 2


def object_means(values: Map, masks: Mask) -> NDArray[np.float64]:
    """Mean value of a map (rows, columns) on each object of masks (objects, rows, columns): (objects,)."""
    return np.array([flat[inside].mean() for flat, inside in (_checked(values, mask) for mask in masks)])


def object_top1(values: Map, masks: Mask, target: int) -> float:
    """Whether the map's mean is larger on the target object than on every other.

    Args:
        values: (rows, columns).
        masks: bool, (objects, rows, columns), one or more.
        target: the object that the map should be about, 0 to objects - 1.

    Returns:
        1 or 0; 1 / n where n objects share the largest mean. Chance is 1 / objects.
    """
    means = object_means(values, masks)
    best = means == means.max()
    return float(best[target] / best.sum())


def completeness_gap(total: float, difference: float) -> float:
    """Say how far a map is from adding up to what it explains (completeness, Sundararajan et al. 2017).

    Args:
        total: sum of the map.
        difference: what the sum should be, such as the logit minus that of the neutral image.

    Returns:
        |total - difference| / |difference|, at least 0; 0 is exact.
    """
    return abs(total - difference) / max(abs(difference), LEAST)


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two arrays of the same size, -1 to 1; equal values share their mean rank.

    0 when one of the arrays is constant: it says nothing of the other.
    """
    return centred_cosine(_ranks(np.asarray(first).ravel()), _ranks(np.asarray(second).ravel()))


def centred_cosine(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Cosine of two vectors, (n,) each, after subtracting each one's mean: Pearson's correlation, -1 to 1.

    For instance of the map's means on the objects of a scene and their Shapley values. 0 when one is constant.
    """
    a, b = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (first, second))
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / length, -1, 1)) if length > 0 else 0.0


def _share(value: float) -> float:
    """Rounding may carry a share of the whole past 1: sums over a part and over the whole add in different orders."""
    return min(float(value), 1.0)


def _tensor(values: Map) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))[None, None]


def _checked(values: Map, mask: Mask) -> tuple[NDArray[np.float64], Mask]:
    """Flatten a map and a mask that fit each other."""
    flat, inside = np.array(values, np.float64).ravel(), np.asarray(mask, np.bool_)
    if inside.shape != np.shape(values):
        raise OptionInvalid(
            f"The map is {np.shape(values)}, but the mask {inside.shape}; enlarge the map.", field="mask"
        )
    if not inside.any():
        raise OptionInvalid("The mask marks no pixel; leave such images out.", field="mask")
    if not np.isfinite(flat).all():
        raise OptionInvalid("The map holds values that are not finite.", field="map")
    return flat, inside.ravel()


def _iou(first: Mask, second: Mask) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Place of each value in order, from 1; equal values get the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - (counts - 1) / 2)[place.reshape(-1)]
    return mean
