"""Integrated Gradients: a case that two Gauss points solve exactly, and what the completeness gap says."""

from __future__ import annotations

import numpy as np
import pytest

from saaa.attribution import attribute
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import CELLS, some_input, tiny


def test_by_hand() -> None:
    """For logits that are sums of cubes a pixel's share is w x^3 / cells, exact with two Gauss points."""
    options = ExplainOptions(method="integrated_gradients", steps=2)
    found = attribute(tiny(lambda x: x**3), some_input(), [[0]], options).maps[0][0]
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3], expected[5, 6] = 64.0 / CELLS, -8.0 / CELLS
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    assert found.completeness_gap == pytest.approx(0, abs=1e-5)


def test_completeness_gap_shows_too_few_steps() -> None:
    """One Gauss point takes the gradient half way: 3 (x/2)^2 x = 0.75 x^3, so a quarter is missing."""
    options = ExplainOptions(method="integrated_gradients", steps=1)
    found = attribute(tiny(lambda x: x**3), some_input(), [[1]], options).maps[0][0]
    assert found.completeness_gap == pytest.approx(0.25, abs=1e-5)
