"""A scene graph for an image that came without one: the attribution's peaks and how they lie to each
other."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from saaa.concepts import Region
from saaa.errors import OptionInvalid
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject

MAX_PROPOSED_NODES = 10
"""The most nodes of a proposed graph; the published captioner reads no more."""

_GRID = 28
"""Finer maps are averaged to at most this many rows and columns: a pixel-sized spike is no object."""
_RELATIVE_PEAK = 0.25
"""A peak lower than this share of the highest is no object."""
_RELATIVE_REGION = 0.5
"""A peak's region is where the map is at least this share of the peak."""


def propose_graph(
    map_values: NDArray[np.floating],
    region: Region,
    image_size: tuple[int, int],
    max_objects: int = 4,
) -> SceneGraph:
    """Proposes objects at the peaks of a map and relationships from their arrangement.

    From the highest peak down, each peak that stands apart from those before it becomes an object: the box
    around the connected region above half of the peak. Objects are named "region 1", "region 2", ...; pairs
    are related by "inside", "overlaps", "left of" or "above". The same input always gives the same graph.

    Args:
        map_values: (rows, columns), larger speaks more for the target; negative counts as 0, and the median
            is the ground from which peaks rise.
        region: the part of the image that the map covers evenly, in pixels of the image.
        image_size: (width, height) of the image in pixels.
        max_objects: the most objects, 1 to 10.

    Returns:
        A graph with 1 to `max_objects` objects, boxes inside the image, and at most 10 nodes. A map without
        a peak gives one object, the whole image.

    Raises:
        OptionInvalid: `max_objects` outside its range.
    """
    if not 1 <= max_objects <= MAX_PROPOSED_NODES:
        raise OptionInvalid(f"max_objects must be 1 to {MAX_PROPOSED_NODES}", field="max_objects")
    values = np.asarray(map_values, np.float64)
    grid = _coarse(np.where(np.isfinite(values) & (values > 0), values, 0))
    # A level that most of the map shares is no evidence for any place.
    grid = np.maximum(grid - np.median(grid), 0)
    peaks = _peaks(grid, max_objects)
    boxes = [_to_image(cells, grid.shape, region, image_size) for cells in peaks]
    if not boxes:
        boxes = [Box(0, 0, *image_size)]
    objects = tuple(SceneObject(i, f"region {i}", box) for i, box in enumerate(boxes, 1))
    pairs = itertools.islice(itertools.combinations(objects, 2), MAX_PROPOSED_NODES - len(objects))
    return SceneGraph(objects, tuple(_relate(i, *pair) for i, pair in enumerate(pairs, 1)))


def _coarse(values: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        size = values.shape[axis]
        starts = np.arange(min(size, _GRID)) * size // min(size, _GRID)
        counts = np.diff(np.append(starts, size))
        values = np.add.reduceat(values, starts, axis) / np.expand_dims(counts, 1 - axis)
    return values


def _peaks(grid: NDArray[np.float64], max_objects: int) -> list[NDArray[np.bool_]]:
    """The regions of the peaks, as masks over the grid, highest peak first."""
    padded = np.pad(grid, 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    candidates = np.where(grid >= around.max((2, 3)), grid, 0)
    regions: list[NDArray[np.bool_]] = []
    while len(regions) < max_objects:
        row, column = divmod(int(candidates.argmax()), grid.shape[1])
        peak = candidates[row, column]
        if peak <= 0 or peak < _RELATIVE_PEAK * grid.max():
            break
        mask = _grow(grid >= _RELATIVE_REGION * peak, row, column)
        regions.append(mask)
        top, bottom, left, right = _extent(mask)
        # A peak on the fringe of a region belongs to it.
        candidates[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 0
    return regions


def _grow(allowed: NDArray[np.bool_], row: int, column: int) -> NDArray[np.bool_]:
    """The cells of `allowed` that are connected to one of them by their sides."""
    mask = np.zeros_like(allowed)
    mask[row, column] = True
    count = 0
    while count != (count := int(mask.sum())):
        wider = np.pad(mask, 1)
        near = wider[:-2, 1:-1] | wider[2:, 1:-1] | wider[1:-1, :-2] | wider[1:-1, 2:]
        mask |= near & allowed
    return mask


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the cells that are set, bottom and right exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _to_image(mask: NDArray[np.bool_], shape: tuple[int, ...], region: Region, image_size: tuple[int, int]) -> Box:
    top, bottom, left, right = _extent(mask)
    x, width = _span(region.x, region.width / shape[1], left, right, image_size[0])
    y, height = _span(region.y, region.height / shape[0], top, bottom, image_size[1])
    return Box(x, y, width, height)


def _span(origin: float, step: float, first: int, last: int, limit: int) -> tuple[int, int]:
    """Start and length in whole pixels of the cells `first` to `last` (exclusive), inside 0 to `limit`."""
    start = min(max(math.floor(origin + first * step), 0), limit - 1)
    end = min(max(math.ceil(origin + last * step), start + 1), limit)
    return start, end - start


def _relate(number: int, one: SceneObject, other: SceneObject) -> Relationship:
    a, b = one.box, other.box
    if a.union(b) == b:
        return Relationship(number, one.id, other.id, "inside")
    if a.union(b) == a:
        return Relationship(number, other.id, one.id, "inside")
    if max(a.x, b.x) < min(a.right, b.right) and max(a.y, b.y) < min(a.bottom, b.bottom):
        return Relationship(number, one.id, other.id, "overlaps")
    across = (b.x + b.right) - (a.x + a.right)
    down = (b.y + b.bottom) - (a.y + a.bottom)
    name, forward = ("left of", across > 0) if abs(across) >= abs(down) else ("above", down > 0)
    first, second = (one, other) if forward else (other, one)
    return Relationship(number, first.id, second.id, name)
