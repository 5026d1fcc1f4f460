"""Occlusion, RISE and region Shapley: networks solved by hand, captum, and what a method must not depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from torch import Tensor, nn

from saaa.attribution.base import Explained, Job, Method, frozen
from saaa.attribution.occlusion import Occlusion
from saaa.attribution.region_shapley import RegionShapley
from saaa.attribution.removal import cells_of, grid_of
from saaa.attribution.rise import CELLS, SEEN, Rise, random_masks
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.work import ExplainOptions

SIZE = 64


class Counted(nn.Module):
    """A function of the pixels as a network; counts the images that it was given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.function(x)


def make(architecture: str = "resnet10t", function: Callable[[Tensor], Tensor] | None = None) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, classes=("a", "b", "c"), input_size=SIZE)
    classifier = Classifier(config)
    if function is not None:
        classifier.net = Counted(function)
    else:
        with torch.no_grad():
            for parameter in classifier.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    return classifier.eval()


def some_inputs(count: int = 2) -> Tensor:
    return torch.randn((count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))


def some_regions(count: int, *, overlap: int = 0) -> Tensor:
    """Boxes of 16 x 16 on a grid of four a row; each goes `overlap` pixels into the next."""
    regions = torch.zeros((count, SIZE, SIZE), dtype=torch.bool)
    for g in range(count):
        y, x = 16 * (g // 4), 16 * (g % 4)
        regions[g, y : y + 12, x : x + 12 + overlap] = True
    return regions


def run(
    method: Method,
    classifier: Classifier,
    inputs: Tensor,
    targets: list[tuple[int, ...]],
    *,
    regions: list[Tensor] | None = None,
    **options: int,
) -> Explained:
    job = Job(
        classifier=classifier,
        inputs=inputs,
        choose=lambda _: targets,
        options=ExplainOptions(method=method.name, **options),  # type: ignore[arg-type]
        regions=regions,
    )
    with frozen(classifier), torch.enable_grad():
        return method.run(job)


WEIGHTS = torch.randn((3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2)) / 50


def linear(x: Tensor) -> Tensor:
    """Logits: each class weighs every pixel."""
    return torch.einsum("bchw,kchw->bk", x, WEIGHTS)


def shares_of(x: Tensor) -> Tensor:
    """What each pixel adds to each logit of `linear`: (classes, S, S)."""
    return (x * WEIGHTS).sum(dim=1)


def test_occlusion_of_a_linear_network() -> None:
    classifier, inputs = make(function=linear), some_inputs()
    found = run(Occlusion(), classifier, inputs, [(0, 2), (1,)])
    assert [len(maps) for maps in found.maps] == [2, 1]
    expected = shares_of(inputs[0]).view(3, 4, 16, 4, 16).sum(dim=(2, 4))
    torch.testing.assert_close(found.maps[0][0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.maps[0][1], expected[2], atol=1e-4, rtol=1e-4)
    assert classifier.net.images == 2 * (1 + 16) == 2 * Occlusion().cost(classifier)


@pytest.mark.parametrize("architecture", ["test_vit", "resnet10t"])
def test_occlusion_equals_captum(architecture: str) -> None:
    """In double precision: a drop is a small difference of two logits, which single precision rounds."""
    classifier, inputs = make(architecture).double(), some_inputs().double()
    cells = cells_of(grid_of(classifier), SIZE)
    with torch.no_grad():
        oracle = FeatureAblation(classifier).attribute(inputs, target=[2, 0], feature_mask=cells.expand(1, 3, -1, -1))
    found = run(Occlusion(), classifier, inputs, [(2,), (0,)])
    for own, other in zip(found.maps, oracle[:, 0, ::16, ::16], strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(own[0], other, atol=1e-9 * float(other.abs().max()), rtol=1e-9)


def test_random_masks() -> None:
    masks = random_masks(400, SIZE, torch.Generator().manual_seed(0))
    assert masks.shape == (400, SIZE, SIZE)
    assert masks.min() == 0
    assert masks.max() == 1
    assert abs(float(masks.mean()) - SEEN) < 0.01
    assert 0.4 < float(masks.mean(dim=0).min()) < float(masks.mean(dim=0).max()) < 0.6, "no pixel is favoured"
    middle = masks[:, 32, :].diff(dim=1).abs().max()
    assert middle <= 1 / (SIZE // CELLS), "a mask changes within a cell, bilinearly"
    generator = torch.Generator().manual_seed(0)
    pieces = [random_masks(n, SIZE, generator) for n in (3, 1, 5)]
    assert torch.equal(torch.cat(pieces), masks[:9])


def test_rise_by_its_formula() -> None:
    """The published sum, with its expectation subtracted, mask by mask."""
    classifier, inputs = make("test_vit"), some_inputs(1)
    found = run(Rise(), classifier, inputs, [(1, 2)], masks=40, seed=3)
    masks = random_masks(40, SIZE, torch.Generator().manual_seed(3))
    with torch.no_grad():
        p = torch.cat([classifier(inputs * mask).softmax(dim=1) for mask in masks])[:, [1, 2]]
    for k in range(2):
        centred = (p[:, k] - p[:, k].mean()).double()
        expected = torch.einsum("n,nyx->yx", centred, masks.double()) / (40 * SEEN)
        torch.testing.assert_close(
            found.maps[0][k].double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4
        )
    assert found.maps[0][0].shape == (SIZE, SIZE)


def test_rise_finds_the_pixels_and_is_flat_without_any() -> None:
    def corner(x: Tensor) -> Tensor:
        seen = (x[:, 0, :16, 48:] * 0.02).sum(dim=(1, 2))
        return torch.stack([seen, -seen, torch.zeros_like(seen)], dim=1)

    classifier = make(function=corner)
    found = run(Rise(), classifier, torch.ones((1, 3, SIZE, SIZE)), [(0, 1)], masks=200)
    assert classifier.net.images == 201
    for values, best in zip(found.maps[0], (True, False), strict=True):
        inside, outside = values[:16, 48:].mean(), values[32:, :32].mean()
        assert bool(inside > outside + 0.02) is best
    flat = run(Rise(), make(function=lambda x: torch.zeros((len(x), 3)) + 0.7), some_inputs(), [(0,), (1,)], masks=33)
    assert not torch.stack([maps[0] for maps in flat.maps]).any()


def test_region_shapley_of_a_linear_network() -> None:
    """Regions apart from each other: a Shapley value is what its pixels add, painted evenly on them."""
    classifier, inputs = make(function=linear), some_inputs()
    regions = [some_regions(3), some_regions(5)]
    found = run(RegionShapley(), classifier, inputs, [(0, 1), (2,)], regions=regions)
    assert classifier.net.images == 2**3 + 2**5
    torch.testing.assert_close(found.logits, linear(inputs))
    for image, chosen in enumerate([(0, 1), (2,)]):
        for k, target in enumerate(chosen):
            added = shares_of(inputs[image])[target]
            expected = sum(torch.where(region, added[region].mean(), 0.0) for region in regions[image])
            torch.testing.assert_close(found.maps[image][k], expected, atol=1e-5, rtol=1e-4)
            assert found.gaps is not None
            assert found.gaps[image][k] < 1e-5


def test_region_shapley_of_overlapping_regions() -> None:
    """A pixel of two regions is seen while either is: its worth is halved between them. A region counts only once
    where it is alone, and one without pixels gets nothing."""
    regions = torch.zeros((3, SIZE, SIZE), dtype=torch.bool)
    regions[0, :4, :6], regions[1, :4, 4:8] = True, True  # they share 4 x 2 pixels
    values = torch.zeros((1, 3, SIZE, SIZE))
    values[0, 0, :4, :8] = 1
    classifier = make(function=lambda x: x[:, 0].sum(dim=(1, 2))[:, None] * torch.tensor([1.0, 2.0, 0.0]))
    found = run(RegionShapley(), classifier, values, [(0, 1)], regions=[regions])
    phi = (4 * 4 + 8 / 2, 4 * 2 + 8 / 2)
    expected = phi[0] / 24 * regions[0].float() + phi[1] / 16 * regions[1].float()
    torch.testing.assert_close(found.maps[0][0], expected)
    torch.testing.assert_close(found.maps[0][1], 2 * expected)
    assert found.maps[0][0].sum() == pytest.approx(32)


def test_region_shapley_without_regions_is_zero() -> None:
    found = run(RegionShapley(), make(function=linear), some_inputs(1), [(0,)], regions=[some_regions(0)])
    assert not found.maps[0][0].any()
    assert found.gaps == [[0.0]]


def test_region_shapley_is_estimated_above_the_limit() -> None:
    classifier, inputs = make(function=linear), some_inputs(1)
    regions = some_regions(10)
    found = run(RegionShapley(), classifier, inputs, [(0,)], regions=[regions], masks=60)
    assert classifier.net.images == 62
    added = shares_of(inputs[0])[0]
    expected = sum(torch.where(region, added[region].mean(), 0.0) for region in regions)
    torch.testing.assert_close(found.maps[0][0], expected, atol=1e-4, rtol=1e-3)  # exact for a linear network
    assert found.gaps is not None
    assert found.gaps[0][0] < 1e-4


METHODS: tuple[Method, ...] = (Occlusion(), Rise(), RegionShapley())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_batch_equals_one_by_one(method: Method) -> None:
    classifier, inputs = make("test_vit"), some_inputs(3)
    targets: list[tuple[int, ...]] = [(1,), (0, 2), (2, 2)]
    regions = [some_regions(2, overlap=8), some_regions(9, overlap=8), some_regions(4)]
    options = {"masks": 40, "seed": 5}
    together = run(method, classifier, inputs, targets, regions=regions, **options)
    torch.testing.assert_close(together.logits, classifier(inputs).detach(), atol=1e-5, rtol=1e-4)
    for i in range(3):
        alone = run(method, classifier, inputs[i : i + 1], [targets[i]], regions=regions[i : i + 1], **options)
        for one, batched in zip(alone.maps[0], together.maps[i], strict=True):
            assert one.dtype == torch.float32
            largest = float(one.abs().max())
            assert largest > 0
            np.testing.assert_allclose(batched, one, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_only_the_seed_matters(method: Method) -> None:
    classifier, inputs = make("test_vit"), some_inputs(1)
    regions = [some_regions(9, overlap=8)]
    first, again, other = (
        run(method, classifier, inputs, [(0,)], regions=regions, masks=20, seed=seed).maps[0][0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) is (method.name == "occlusion")
