"""What the pictures of maps show, checked on pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from saaa.client import Region
from saaa.report import colors, draw_attribution
from saaa.report.heatmap import PANEL, Scale, spread
from tests.saaa.report.example import GREY, attribution, photo


def naive_bilinear(grid, region, x, y):
    """One value at image point (x, y), by the book."""
    rows, columns = grid.shape
    v = min(max((y - region.y) / region.height * rows - 0.5, 0), rows - 1)
    u = min(max((x - region.x) / region.width * columns - 0.5, 0), columns - 1)
    i, j = min(int(v), rows - 2), min(int(u), columns - 2)
    a, b = v - i, u - j
    return (1 - a) * ((1 - b) * grid[i, j] + b * grid[i, j + 1]) + a * (
        (1 - b) * grid[i + 1, j] + b * grid[i + 1, j + 1]
    )


def test_spread_is_bilinear_in_the_region_and_empty_outside():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(3, 5)).astype(np.float32)
    region = Region(x=2.5, y=1, width=30, height=17.25)
    scale = 1.5
    values = spread(grid, region, (60, 33), scale)
    for row in range(33):
        for column in range(60):
            x, y = (column + 0.5) / scale, (row + 0.5) / scale
            inside = 2.5 <= x <= 32.5 and 1 <= y <= 18.25
            assert np.isnan(values[row, column]) != inside
            if inside:
                assert values[row, column] == pytest.approx(naive_bilinear(grid, region, x, y), abs=1e-6)


@pytest.mark.parametrize(("width_px", "height_px"), [(160, 160), (640, 480), (90, 300), (2000, 500)])
def test_overlay_has_three_panels_of_one_size(width_px, height_px):
    region = Region(x=0, y=0, width=width_px, height=height_px)
    picture = draw_attribution(photo(width_px, height_px), attribution([[0, 0], [0, 1]], region))
    scale = PANEL / max(width_px, height_px)
    panel = round(width_px * scale)
    assert picture.mode == "RGB"
    assert picture.width > 3 * panel
    assert picture.height >= round(height_px * scale)
    # The first panel is the untouched photo.
    top = 84
    assert picture.getpixel((24 + panel // 2, top + round(height_px * scale) // 2)) == (GREY, GREY, GREY)


def panels(picture: Image.Image, width_px: int, height_px: int) -> list[np.ndarray]:
    scale = PANEL / max(width_px, height_px)
    w, h = round(width_px * scale), round(height_px * scale)
    pixels = np.asarray(picture).astype(float)
    return [pixels[84 : 84 + h, 24 + i * (w + 16) : 24 + i * (w + 16) + w] for i in range(3)]


@pytest.mark.parametrize("place", [(0, 0), (2, 4), (1, 3)])
def test_map_and_blend_are_hottest_where_the_map_is_largest(place):
    grid = np.zeros((3, 5), np.float32)
    grid[place] = 2
    region = Region(x=0, y=0, width=300, height=180)
    picture = draw_attribution(photo(300, 180), attribution(grid.tolist(), region))
    for panel in panels(picture, 300, 180)[1:]:
        # Over an even grey, inferno's hot end is the one with most red and green.
        heat = panel[..., 0] + panel[..., 1]
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (row * 3 // panel.shape[0], column * 5 // panel.shape[1]) == place


def test_a_signed_map_is_red_for_and_blue_against_around_a_neutral_zero():
    region = Region(x=0, y=0, width=300, height=100)
    grid = [[-1.0, 0.0, 0.5]]
    _, heat, _ = panels(draw_attribution(photo(300, 100), attribution(grid, region)), 300, 100)
    against, zero, speaks_for = (heat[heat.shape[0] // 2, round(x * heat.shape[1])] for x in (0.02, 0.5, 0.98))
    assert against[2] > against[0] + 30
    assert speaks_for[0] > speaks_for[2] + 30
    assert np.ptp(zero) < 12
    levels = Scale.of(np.array(grid, np.float32))
    assert (levels.low, levels.high, levels.signed) == (-1, 1, True)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_map_is_drawn_flat(value):
    region = Region(x=0, y=0, width=100, height=100)
    picture = draw_attribution(photo(100, 100), attribution([[value] * 3] * 3, region))
    heat = panels(picture, 100, 100)[1]
    assert np.ptp(heat, axis=(0, 1)).max() == 0


def test_a_map_that_is_not_finite_is_drawn():
    region = Region(x=0, y=0, width=100, height=100)
    drawn = draw_attribution(photo(100, 100), attribution([[float("nan"), 1], [0, 2]], region))
    as_zero = draw_attribution(photo(100, 100), attribution([[0, 1], [0, 2]], region))
    for mine, expected in zip(panels(drawn, 100, 100), panels(as_zero, 100, 100), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_pixel_fine_map_is_not_dimmed_by_one_spike():
    grid = np.full((100, 100), 0.5, np.float32)
    grid[0] = 0
    grid[50, 50] = 100
    levels = Scale.of(grid)
    assert levels.high == pytest.approx(0.5)
    assert levels.clipped


def test_what_the_model_did_not_see_stays_without_colour():
    region = Region(x=100, y=0, width=100, height=100)
    picture = draw_attribution(photo(300, 100), attribution([[0, 1], [1, 1]], region))
    _, heat, blend = panels(picture, 300, 100)
    third = heat.shape[1] // 3
    for part in (slice(0, third - 2), slice(2 * third + 3, None)):
        assert np.ptp(heat[:, part], axis=2).max() < 15
        assert np.ptp(blend[:, part], axis=2).max() < 15
    assert np.ptp(heat[:, third + 5 : 2 * third - 5], axis=2).max() > 100


def test_sequential_colours_rise_in_lightness_and_diverging_ones_mirror():
    lightness = colors.SEQUENTIAL @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    light = colors.DIVERGING @ np.array([0.2126, 0.7152, 0.0722])
    assert light.argmax() in (127, 128)
