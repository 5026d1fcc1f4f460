"""Perturbation curves and sanity tests on networks whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from saaa.attribution.faithfulness import Fill, deletion, insertion, mprt, random_logit
from saaa.attribution.metrics import rank_correlation
from saaa.attribution.removal import ROWS_AT_ONCE, blurred
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig

IMAGE = torch.ones((3, 8, 8))
WORTH = torch.tensor([[8.0, 4.0], [2.0, 1.0]]) / 15
"""What each quarter of the image is worth."""


def score(x: Tensor) -> Tensor:
    return (x[:, 0].view(-1, 2, 4, 2, 4).mean(dim=(2, 4)) * WORTH).sum(dim=(1, 2))


def test_curves_by_hand() -> None:
    values = np.array([[4.0, 3.0], [2.0, 1.0]])
    found = deletion(score, IMAGE, values, step=0.25)
    np.testing.assert_allclose(found.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.scores * 15, [15, 7, 3, 1, 0], atol=1e-5)
    assert found.area == pytest.approx((7.5 + 7 + 3 + 1) / 4 / 15)
    back = insertion(score, IMAGE, values, step=0.25)
    np.testing.assert_allclose(back.scores * 15, [0, 8, 12, 14, 15], atol=1e-5)
    assert back.area == pytest.approx(1 - found.area)
    worst = deletion(score, IMAGE, -values, step=0.25)
    np.testing.assert_allclose(worst.scores * 15, [15, 14, 12, 8, 0], atol=1e-5)


@given(seed=st.integers(0, 50), rows=st.integers(1, 8), columns=st.integers(1, 8), step=st.floats(0.03, 1))
def test_curves_have_the_right_ends(seed: int, rows: int, columns: int, step: float) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(float)
    given_rows: list[int] = []

    def counting(x: Tensor) -> Tensor:
        given_rows.append(len(x))
        return x[:, 0].mean(dim=(1, 2))

    found = deletion(counting, IMAGE, values, step=step)
    assert max(given_rows) <= ROWS_AT_ONCE
    assert found.shares[0] == 0
    assert found.shares[-1] == 1
    assert (np.diff(found.shares) > 0).all()
    assert found.scores[0] == 1
    assert found.scores[-1] == 0
    assert len(found.shares) <= 1 / step + 2
    assert 0 <= found.area <= 1
    again = deletion(counting, IMAGE, values, step=step)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_default_steps_are_of_five_percent() -> None:
    found = insertion(score, IMAGE, np.random.default_rng(0).normal(size=(8, 8)))
    np.testing.assert_array_equal(found.shares, np.round(np.arange(21) * 0.05 * 64) / 64)


def test_ties_favour_no_side() -> None:
    """On a flat map, half of the cells leave the left half about half empty."""
    seen: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, 0].mean(dim=(1, 2))

    deletion(keep, torch.ones((3, 32, 32)), np.zeros((32, 32)), step=0.5)
    half = seen[0][1, 0]
    for side in (half[:, :16], half[:16], half[:, 16:], half[16:]):
        assert 0.4 < side.mean() < 0.6


def test_blur_fill() -> None:
    image = torch.rand((3, 24, 24), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, 0].mean(dim=(1, 2))

    values = np.zeros((3, 3))
    values[1, 2] = 1
    deletion(keep, image, values, fill=Fill.BLUR, step=0.1)
    hazy = blurred(image[None])[0]
    assert hazy.std() < 0.2 * image.std()
    torch.testing.assert_close(seen[0][-1], hazy)
    torch.testing.assert_close(seen[0][1][:, 8:16, 16:], hazy[:, 8:16, 16:])
    torch.testing.assert_close(seen[0][1][:, :8], image[:, :8])


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_refused(curve: Callable[..., object]) -> None:
    for step in (0, -0.1, 1.1):
        with pytest.raises(OptionInvalid, match="step"):
            curve(score, IMAGE, np.ones((2, 2)), step=step)
    with pytest.raises(OptionInvalid, match="at most 8 cells"):
        curve(score, IMAGE, np.ones((2, 9)))
    with pytest.raises(OptionInvalid, match="finite"):
        curve(score, IMAGE, np.array([[np.inf, 0]]))


def make() -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture="test_vit", classes=("a", "b", "c"), input_size=32)
    return Classifier(config).eval()


def gradients(classifier: nn.Module, inputs: Tensor) -> NDArray[np.float32]:
    x = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(x)[:, 1].sum(), x)
    return (gradient * x).sum(dim=1).detach().numpy()


def test_mprt_of_a_gradient_and_of_an_edge_detector() -> None:
    """The gradient forgets the network with its weights; what looks only at the image passes for the trained one."""
    classifier = make()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    inputs = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    state = torch.random.get_rng_state()
    found = mprt(classifier, lambda net: gradients(net, inputs))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    names = list(found)
    assert names[0] == "net.head"
    assert names[-1] == "net", "the class token and the positions belong to the network itself"
    assert all(len(correlations) == 3 for correlations in found.values())
    assert np.abs(found["net"]).max() < 0.2
    again = mprt(classifier, lambda net: gradients(net, inputs), layers=("net.head", ""))
    assert list(again) == ["net.head", ""]
    np.testing.assert_allclose(again["net.head"], found["net.head"])
    assert np.abs(again[""]).max() < 0.2
    edges = mprt(classifier, lambda _: inputs.diff(dim=-1).abs().sum(dim=1).numpy(), layers=("",))
    np.testing.assert_allclose(edges[""], 1)


def test_mprt_changes_every_parameter() -> None:
    """Beside those that start as a constant, which the trained network would not have kept."""
    classifier = make()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.rand_like(parameter) / 10)
    kept: list[str] = []

    def look(net: nn.Module) -> NDArray[np.float64]:
        pairs = zip(classifier.named_parameters(), net.parameters(), strict=True)
        kept[:] = [name for (name, before), after in pairs if torch.equal(before, after)]
        return np.zeros((1, 2, 2))

    mprt(classifier, look)
    assert kept == []
    mprt(classifier, look, layers=("net.blocks",))
    assert kept
    assert not any(name.startswith("net.blocks") for name in kept)
    with pytest.raises(OptionInvalid, match="no module 'stem'"):
        mprt(classifier, look, layers=("stem",))


def test_random_logit() -> None:
    asked: list[Sequence[int]] = []
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 3, 3))  # one a class, whatever the image

    def explain(classes: Sequence[int]) -> NDArray[np.float64]:
        asked.append(classes)
        return maps[list(classes)]

    targets = [0, 3, 1, 2, 2, 0]
    found = random_logit(explain, targets, 4, seed=7)
    assert asked[0] == targets
    assert all(a != b for a, b in zip(*asked, strict=True))
    assert all(0 <= other < 4 for other in asked[1])
    expected = [rank_correlation(maps[a], maps[b]) for a, b in zip(*asked, strict=True)]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(random_logit(lambda classes: maps[[0] * len(classes)], targets, 4), 1)
    drawn = {other for seed in range(40) for other in [_other(seed)]}
    assert drawn == {0, 2, 3}


def _other(seed: int) -> int:
    asked: list[int] = []

    def explain(classes: Sequence[int]) -> NDArray[np.float64]:
        asked.extend(classes)
        return np.eye(3)[None]

    random_logit(explain, [1], 4, seed=seed)
    return asked[1]
