"""HiResCAM: by hand, and the grid that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from saaa.attribution import attribute
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import CELLS, make_inputs, network, some_input, tiny

HIRES_CAM = ExplainOptions(method="hires_cam")


def test_by_hand() -> None:
    """With a square above the features the gradient differs from cell to cell: 2 w a / cells, times a."""
    maps = attribute(tiny(lambda x: x**2), some_input(), [[0, 1]], HIRES_CAM).maps[0]
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3] = 2 * 4.0**2 / CELLS
    np.testing.assert_allclose(maps[0].values, expected, rtol=1e-6)
    expected = np.zeros((16, 16), np.float32)
    expected[5, 6] = 3 * 2 * 2.0**2 / CELLS
    np.testing.assert_allclose(maps[1].values, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet", "resnet"])
def test_cells_of_16_pixels(name: str) -> None:
    classifier = network(name)
    found = attribute(classifier, make_inputs(classifier, 1), [[0]], HIRES_CAM)
    assert found.maps[0][0].values.shape == (4, 4)
