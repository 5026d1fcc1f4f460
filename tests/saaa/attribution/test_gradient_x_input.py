"""Gradient x input: by hand, and different for different classes."""

from __future__ import annotations

import numpy as np
import pytest

from saaa.attribution import attribute
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import CELLS, make_inputs, network, some_input, tiny

GRADIENT_X_INPUT = ExplainOptions(method="gradient_x_input")


def test_by_hand() -> None:
    values = attribute(tiny(), some_input(), [[0]], GRADIENT_X_INPUT).maps[0][0].values
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3], expected[5, 6] = 4.0 / CELLS, -2.0 / CELLS
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet", "mambaout", "vit_token"])
def test_maps_of_classes_differ(name: str) -> None:
    classifier = network(name)
    maps = attribute(classifier, make_inputs(classifier, 1), [[0, 1, 2, 3]], GRADIENT_X_INPUT).maps[0]
    for a in range(4):
        for b in range(a):
            assert not np.allclose(maps[a].values, maps[b].values)
