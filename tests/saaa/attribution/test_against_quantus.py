"""Our metrics against those of Quantus (Hedstroem et al. 2023, arXiv:2202.06861), an independent implementation."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saaa.attribution.faithfulness import deletion, mprt, random_logit
from saaa.attribution.metrics import completeness_gap, pointing, rank_accuracy, relevance_mass
from saaa.models.classifier import Classifier, ClassifierConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

COUNT, SIZE, CLASSES = 6, 48, 5
PLAIN = {"disable_warnings": True, "normalise": False, "abs": False}
"""Quantus takes absolute values and scales maps by itself unless told otherwise; neither is part of the definitions."""


@pytest.fixture(autouse=True)
def _keep_numpy_state() -> Iterator[None]:
    """Quantus seeds NumPy's and torch's global random state."""
    numpy_state, torch_state = np.random.get_state(), torch.random.get_rng_state()
    yield
    np.random.set_state(numpy_state)
    torch.random.set_rng_state(torch_state)


@functools.cache
def classifier() -> Classifier:
    torch.manual_seed(0)
    names = tuple(str(i) for i in range(CLASSES))
    made = Classifier(ClassifierConfig(architecture="test_vit", classes=names, input_size=SIZE)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    return made


def data() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Images, classes, maps of the images' pixels, and masks of random boxes."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(COUNT, 3, SIZE, SIZE)).astype(np.float32)
    maps = rng.gamma(0.5, size=(COUNT, SIZE, SIZE)).astype(np.float32)
    masks = np.zeros((COUNT, SIZE, SIZE), bool)
    for mask, (y, x) in zip(masks, rng.integers(0, SIZE // 2, (COUNT, 2)), strict=True):
        mask[y : y + 5 + x // 2, x : x + 16] = True
    for values, mask in list(zip(maps, masks, strict=True))[::2]:
        values[mask] += 1.5  # maps that point at their mask, beside some that do not
    return images, rng.integers(0, CLASSES, COUNT), maps, masks


def explain(model: nn.Module, inputs: NDArray[np.float32], targets: NDArray[np.int64], **_: Any) -> NDArray[np.float32]:
    """Gradient x input, as Quantus calls an explainer: (n, 1, S, S)."""
    x = torch.tensor(inputs).requires_grad_()
    total = model(x)[range(len(x)), targets.tolist()].sum()
    (gradient,) = torch.autograd.grad(total, x)
    return (gradient * x).sum(dim=1, keepdim=True).detach().numpy()


LOCALISATION = (
    (pointing, quantus.PointingGame(**PLAIN)),
    (relevance_mass, quantus.RelevanceMassAccuracy(**PLAIN)),
    (rank_accuracy, quantus.RelevanceRankAccuracy(**PLAIN)),
    (relevance_mass, quantus.AttributionLocalisation(positive_attributions=True, **PLAIN)),
)


@pytest.mark.parametrize(("own", "theirs"), LOCALISATION, ids=lambda metric: type(metric).__name__)
def test_localisation(own: Any, theirs: Any) -> None:
    images, targets, maps, masks = data()
    expected = theirs(
        model=classifier(),
        x_batch=images,
        y_batch=targets,
        a_batch=maps[:, None],
        s_batch=masks[:, None].astype(int),
        channel_first=True,
    )
    found = [own(values, mask) for values, mask in zip(maps, masks, strict=True)]
    assert len(set(np.round(found, 6))) > 1, "the comparison would say little"
    np.testing.assert_allclose(found, np.array(expected, float), rtol=1e-5)


def test_deletion() -> None:
    """Quantus' pixel flipping begins after the first step, and takes each colour channel of a pixel for itself."""
    images, targets, maps, _ = data()
    steps = 12
    metric = quantus.PixelFlipping(
        features_in_step=3 * SIZE * SIZE // steps,
        perturb_baseline=0.0,
        **PLAIN,
    )
    # The channels of a pixel, given values that follow on each other, are removed in the same step.
    channels = np.stack([maps, np.nextafter(maps, np.inf), np.nextafter(np.nextafter(maps, np.inf), np.inf)], axis=1)
    expected = np.array(
        metric(
            model=classifier(),
            x_batch=images,
            y_batch=targets,
            a_batch=channels,
            channel_first=True,
            softmax=True,
        )
    )
    assert expected.shape == (COUNT, steps)
    for image, target, values, theirs in zip(images, targets, maps, expected, strict=True):

        def score(x: Tensor, target: int = int(target)) -> Tensor:
            return classifier()(x).softmax(dim=1)[:, target]

        found = deletion(score, torch.tensor(image), values, step=1 / steps)
        np.testing.assert_allclose(found.scores[1:], theirs, atol=1e-5)
        whole = np.concatenate([found.scores[:1], theirs])
        assert found.area == pytest.approx(float((whole[1:] + whole[:-1]).mean() / 2), abs=1e-5)
        assert np.ptp(theirs) > 0.01


def test_mprt() -> None:
    """The same layers in the same order; the maps of the randomised networks are only alike in distribution, so each
    network is randomised as Quantus does it and its maps are compared by both."""
    images, targets, _, _ = data()
    before = explain(classifier(), images, targets)
    metric = quantus.MPRT(layer_order="top_down", seed=0, **PLAIN)
    expected = metric(
        model=classifier(),
        x_batch=images,
        y_batch=targets,
        a_batch=before,
        channel_first=True,
        explain_func=explain,
    )
    expected.pop("original")
    found = mprt(classifier(), lambda net: explain(net, images, targets), seed=1)
    theirs = [name for name in found if hasattr(classifier().get_submodule(name), "reset_parameters")]
    assert set(found) - set(theirs) == {"net"}  # which Quantus leaves as it is
    assert [name for name in expected if name in found] == theirs
    # Their seed starts anew at each layer, ours does not: only the head is drawn alike.
    np.testing.assert_allclose(found["net.head"], expected["net.head"], atol=1e-5)
    assert np.std(found["net.head"]) > 0.01
    # Nothing is left of the first maps in either.
    assert np.abs(np.mean(found["net"])) < 0.1
    assert np.abs(np.mean(expected[theirs[-1]])) < 0.1


def test_random_logit() -> None:
    images, targets, _, _ = data()

    def similarity(a: NDArray[np.floating], b: NDArray[np.floating], **_: Any) -> NDArray[np.floating]:
        asked.append((a.copy(), b.copy()))
        return np.asarray(quantus.correlation_spearman(a, b, batched=True))

    asked: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = []
    metric = quantus.RandomLogit(num_classes=CLASSES, similarity_func=similarity, **PLAIN)
    expected = metric(
        model=classifier(),
        x_batch=images,
        y_batch=targets,
        a_batch=explain(classifier(), images, targets),
        channel_first=True,
        explain_func=explain,
    )
    # Which class is the other one is drawn differently; theirs are handed to ours as the answer.
    ((own, other),) = asked
    answers = iter((own, other))
    found = random_logit(lambda _: next(answers), targets.tolist(), CLASSES)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.std(found) > 0.01


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_completeness(off: float) -> None:
    """Quantus says whether the sums are equal; on a network of whole numbers there is no rounding in the way.

    Its neutral image is neutral only in as many values as the map has, so it is given a value for each channel.
    """

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            total = x.sum(dim=(1, 2, 3)) * self.scale
            return torch.stack([2 * total, total], dim=1)

    net = Whole().eval()
    images = np.random.default_rng(0).integers(-3, 4, (COUNT, 3, 8, 8)).astype(np.float32)
    targets = np.arange(COUNT) % 2
    maps = images * (2 - targets[:, None, None, None]).astype(np.float32)
    maps[::2, 0, 0, 0] += off
    metric = quantus.Completeness(perturb_baseline=0.0, **PLAIN)
    expected = metric(model=net, x_batch=images, y_batch=targets, a_batch=maps, channel_first=True, softmax=False)
    rises = net(torch.tensor(images))[range(COUNT), targets.tolist()].tolist()
    gaps = [completeness_gap(float(values.sum()), rise) for values, rise in zip(maps, rises, strict=True)]
    assert [gap == 0 for gap in gaps] == list(expected)
    assert all(expected) is (off == 0)
    assert any(expected)
