"""Remove parts of an image and ask the network again: what all perturbation methods share.

What is removed becomes 0 after normalisation, the mean colour, which the network takes for neutral.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import gaussian_blur  # type: ignore[import-untyped]

from saaa.attribution.layers import find_layer
from saaa.models.classifier import Classifier
from saaa.role_graph import NodeKind, RoleGraph

ROWS_AT_ONCE = 32
"""Masked images in one forward; bounds the memory, changes nothing else."""
CELL = 16
"""Pixels on a side of a cell where the network has no patches of its own."""


def grid_of(classifier: Classifier) -> tuple[int, int]:
    """Give rows and columns of the cells that are removed one by one: the patches of a vision transformer, else
    squares of about 16 pixels that divide the input evenly.
    """
    layer = find_layer(classifier.net)
    if layer is not None and layer.grid is not None:
        return layer.grid
    cells = max(1, round(classifier.config.input_size / CELL))
    return cells, cells


def cells_of(grid: tuple[int, int], size: int) -> Tensor:
    """Divide the input into cells.

    Args:
        grid: rows, columns.
        size: width and height of the input.

    Returns:
        int64, (size, size): the cell of each pixel, counted row by row from 0.
    """
    place = torch.arange(size)
    return (place * grid[0] // size)[:, None] * grid[1] + place * grid[1] // size


def object_regions(graph: RoleGraph, size: int) -> Tensor:
    """Mark the pixels of each object of a graph: every pixel that its box touches.

    Args:
        graph: boxes in pixels of the model's input; what lies outside of it is cut off.
        size: width and height of the input.

    Returns:
        bool, (objects, size, size), in the order of the graph's object nodes; they may overlap.
    """
    return box_regions(graph.boxes[graph.types == NodeKind.OBJECT], size)


def box_regions(boxes: np.ndarray, size: int) -> Tensor:
    """Mark every pixel that a box touches: boxes (n, 4), left, top, right, bottom, to bool (n, size, size)."""
    edges = torch.as_tensor(np.asarray(boxes, np.float64))
    start, end = edges[:, :2].floor(), edges[:, 2:].ceil()
    place = torch.arange(size)
    inside = (start[..., None] <= place) & (place < end[..., None])  # (n, 2, size): columns, rows
    return inside[:, 1, :, None] & inside[:, 0, None, :]


def keep_masks(regions: Tensor, coalitions: Tensor) -> Tensor:
    """Say which pixels stay when only some regions are present.

    A pixel is removed when it lies in an absent region and in no present one. The background always stays.

    Args:
        regions: bool, (R, S, S); they may overlap.
        coalitions: bool, (n, R), the present regions.

    Returns:
        bool, (n, S, S).
    """
    flat = regions.flatten(1)
    present = (coalitions.to(torch.float32) @ flat.to(torch.float32)) > 0
    return (present | ~flat.any(dim=0)).view(-1, *regions.shape[1:])


def chunks(rows: int) -> Iterator[slice]:
    """Cut `rows` rows into pieces of at most ROWS_AT_ONCE."""
    for start in range(0, rows, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, rows))


def masked_logits(classifier: Classifier, image: Tensor, masks: Iterable[Tensor]) -> Tensor:
    """Classify one image under many masks.

    Args:
        classifier: frozen, in evaluation mode.
        image: (3, S, S), preprocessed.
        masks: pieces (n, S, S), as few rows each as memory asks for (`chunks`); 0 removes a pixel, 1 keeps it. Made one
            after the other, so that they never exist all at once.

    Returns:
        (sum of n, classes).
    """
    with torch.no_grad():
        return torch.cat([classifier(image * piece[:, None].to(image)) for piece in masks])


def coalition_logits(classifier: Classifier, image: Tensor, regions: Tensor, coalitions: Tensor) -> Tensor:
    """Classify one image with only some of its regions present.

    Args:
        classifier: frozen, in evaluation mode.
        image: (3, S, S), preprocessed.
        regions: bool, (R, S, S); they may overlap.
        coalitions: bool, (n, R), n at least 1.

    Returns:
        (n, classes).
    """
    here = regions.to(image.device)
    pieces = (keep_masks(here, coalitions[piece].to(image.device)) for piece in chunks(len(coalitions)))
    return masked_logits(classifier, image, pieces)


def blur_sigma(size: int) -> float:
    """Deviation, in pixels, of the Gaussian that hides what is in an input of `size` pixels."""
    return size / 12


def blurred(inputs: Tensor) -> Tensor:
    """Blur images (n, 3, S, S) so that only large areas of colour are left: the fill that looks most like an image."""
    sigma = blur_sigma(inputs.shape[-1])
    kernel = 2 * int(2 * sigma) + 1
    hazy: Tensor = gaussian_blur(inputs, [kernel, kernel], [sigma, sigma])
    return hazy


def top_share(maps: Tensor, size: int, share: float) -> Tensor:
    """Mark the largest values of each map, enlarged bilinearly.

    Args:
        maps: (n, rows, columns).
        size: width and height of the result.
        share: of the pixels to mark, in (0, 1].

    Returns:
        bool, (n, size, size), exactly round(share * size * size) pixels true in each.
    """
    large = interpolate(maps[:, None].float(), size=(size, size), mode="bilinear", align_corners=False)
    flat = large.flatten(1)
    best = flat.topk(round(share * size * size), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).view(-1, size, size)
