"""The measure of parity and its gate, on answers made up for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from saaa.errors import ArchiveError
from saaa.runtime.base import Explanations
from saaa.runtime.parity import Parity, Reference, measure
from saaa.work import AttributionMap, ExplainOptions, WorkItem

METHOD = "grad_cam"
IMAGES = 200


class Told:
    """A runtime that knows its answers; pixel [0, 0, 0] of an image is its number."""

    name = "told"

    def __init__(self, logits: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        self.logits, self.maps = logits, maps

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.logits[pixels[:, 0, 0, 0]]

    def explains(self, options: ExplainOptions) -> bool:
        return options.method == METHOD

    def explain(self, pixels: NDArray[np.uint8], items: Sequence[WorkItem], options: ExplainOptions) -> Explanations:
        rows = pixels[:, 0, 0, 0]
        maps = [
            (AttributionMap(target=item.targets[0], method=METHOD, values=self.maps[row]),)
            for row, item in zip(rows, items, strict=True)
        ]
        return Explanations(logits=self.logits[rows], maps=maps)


def answers() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    pixels = np.zeros((IMAGES, 2, 2, 3), np.uint8)
    pixels[:, 0, 0, 0] = range(IMAGES)
    return pixels, rng.normal(size=(IMAGES, 5)).astype(np.float32), rng.normal(size=(IMAGES, 3, 3)).astype(np.float32)


def compare(logits: NDArray[np.float32], maps: NDArray[np.float32]) -> Parity:
    pixels, own, own_maps = answers()
    return measure(Reference.make(Told(own, own_maps), pixels, [METHOD]), Told(logits, maps))


def test_equal_answers_pass() -> None:
    _, logits, maps = answers()
    found = compare(logits, 3 * maps)  # the cosine does not feel the scale
    assert (found.images, found.agreement, found.logit_gap) == (IMAGES, 1.0, 0.0)
    assert found.map_cosine_median == pytest.approx(1)
    assert found.refusal() is None
    assert found.describe()["refused"] is None


def test_one_of_200_classes_may_differ_and_not_two() -> None:
    _, logits, maps = answers()
    logits[0] = -logits[0]
    assert compare(logits, maps).refusal() is None
    logits[1] = -logits[1]
    assert compare(logits, maps).refusal() == "top-1 agreement 0.9900 < 0.995"


def test_the_worst_maps_count() -> None:
    _, logits, maps = answers()
    maps[:1] = -maps[:1]
    assert compare(logits, maps).refusal() is None
    maps[1:5] = -maps[1:5]
    assert "first percentile of the maps' cosine -1.0000 < 0.95" in (compare(logits, maps).refusal() or "")
    turned = maps[:, ::-1]
    assert "median of the maps' cosine" in (compare(logits, turned).refusal() or "")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(wrong: float) -> None:
    _, logits, maps = answers()
    assert compare(np.full_like(logits, wrong), maps).refusal() is not None
    found = compare(logits, np.full_like(maps, wrong))
    assert found.map_cosine_median == 0
    assert found.refusal() is not None
    bad = replace(found, logit_gap=float("nan"))
    assert bad.describe()["logit_gap"] is None  # JSON has no NaN


def test_empty_maps_are_equal_and_lost_ones_are_not() -> None:
    pixels, logits, maps = answers()
    empty = np.zeros_like(maps)
    both = measure(Reference.make(Told(logits, empty), pixels, [METHOD]), Told(logits, empty))
    assert both.refusal() is None
    assert compare(logits, empty).map_cosine_median == 0


def test_the_surest_images_are_kept_and_packed() -> None:
    pixels, logits, maps = answers()
    logits[7, 2], logits[3, 1] = 50, 40
    reference = Reference.make(Told(logits, maps), pixels, [METHOD]).surest(2)
    again = Reference.unpack(reference.pack())
    assert again.pixels[:, 0, 0, 0].tolist() == [7, 3]
    np.testing.assert_array_equal(again.logits, logits[[7, 3]])
    np.testing.assert_array_equal(again.maps[METHOD], maps[[7, 3]])
    with pytest.raises(ArchiveError, match="parity samples cannot be read"):
        Reference.unpack(b"no such thing")
