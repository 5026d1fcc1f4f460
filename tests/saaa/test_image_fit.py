"""Fitting to a model's input, and the geometry there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from saaa.errors import OptionInvalid
from saaa.images import Geometry, decode, decode_pillow, fit
from tests.saaa.pictures import orientation, photo, png, save


def naive_bicubic(line: NDArray[np.float64], low: float, high: float, size: int) -> NDArray[np.float64]:
    """Keys' kernel (a = -0.5), widened by the scale when shrinking, over the samples of one line."""
    step = (high - low) / size
    reach = max(step, 1.0)
    out = np.zeros((size, *line.shape[1:]))
    for i in range(size):
        centre = low + (i + 0.5) * step
        total = 0.0
        for j in range(len(line)):
            t = abs(j + 0.5 - centre) / reach
            if t < 1:
                weight = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weight = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            else:
                continue
            out[i] += weight * line[j]
            total += weight
        out[i] /= total
    return out


@pytest.mark.parametrize(("mode", "fraction"), [("squash", 1.0), ("crop", 1.0), ("crop", 0.875)])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (9, 9)])
def test_fit_is_antialiased_bicubic(mode: str, fraction: float, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    fitted, g = fit(image, 16, mode=mode, crop_fraction=fraction)
    assert fitted.shape == (16, 16, 3)
    across = naive_bicubic(image.astype(float).swapaxes(0, 1), g.x, g.x + g.width, 16)
    across = np.clip(np.rint(across), 0, 255)  # as Pillow rounds between its passes
    expected = naive_bicubic(across.swapaxes(0, 1), g.y, g.y + g.height, 16)
    assert np.abs(np.clip(expected, 0, 255) - fitted).max() <= 1.5


@pytest.mark.parametrize("mode", ["squash", "crop"])
@pytest.mark.parametrize(
    "data",
    [
        save(photo(), "JPEG", exif=orientation(6)),
        save(photo(), "PNG"),
        save(photo(), "PNG", transparency=(10, 20, 30)),
        save(photo().convert("RGBA"), "WEBP"),
        save(photo().convert("P"), "GIF"),
        save(photo().convert("CMYK"), "TIFF"),
        png(4, 1, 16, 0, b"\0" + bytes(range(8))),
    ],
)
def test_a_picture_is_what_decode_gives(data: bytes, mode: str) -> None:
    array, pillow = decode(data), decode_pillow(data)
    assert pillow.mode == "RGB"
    assert (np.asarray(pillow) == array).all()
    fitted, geometry = fit(pillow, 24, mode=mode)
    expected, same = fit(array, 24, mode=mode)
    assert (fitted == expected).all()
    assert geometry == same


def test_crop_takes_the_centre_of_the_scaled_picture() -> None:
    image = np.asarray(photo(300, 200))
    fitted, geometry = fit(image, 112, mode="crop", crop_fraction=0.875)
    # 112 / 0.875 = 128: the picture becomes 192 x 128, the cut starts at (40, 8).
    whole = np.asarray(Image.fromarray(image).resize((192, 128), Image.Resampling.BICUBIC))
    assert np.abs(whole[8:120, 40:152].astype(int) - fitted).max() <= 1
    assert (geometry.x, geometry.y) == (62.5, 12.5)
    assert (geometry.width, geometry.height) == (175, 175)


def test_fit_of_extreme_shapes_stays_small() -> None:
    for shape in ((1, 50_000, 3), (50_000, 1, 3), (1, 1, 3)):
        fitted, _ = fit(np.full(shape, 77, np.uint8), 224, mode="crop")
        assert (fitted == 77).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "stretch"}, "mode"),
        ({"mode": "crop", "crop_fraction": 0.0}, "crop_fraction"),
        ({"mode": "crop", "crop_fraction": 1.1}, "crop_fraction"),
        ({"size": 0}, "size"),
    ],
)
def test_fit_refuses(options: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        fit(np.zeros((4, 4, 3), np.uint8), **({"size": 8} | options))
    assert caught.value.field == field


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 99),
    st.sampled_from(["squash", "crop"]),
    st.floats(0.1, 1),
    st.data(),
)
def test_geometry_maps_both_ways(
    width: int, height: int, size: int, mode: str, fraction: float, data: st.DataObject
) -> None:
    _, g = fit(np.zeros((height, width, 3), np.uint8), size, mode=mode, crop_fraction=fraction)
    assert -1e-6 <= g.x <= g.x + g.width <= width + 1e-6
    assert -1e-6 <= g.y <= g.y + g.height <= height + 1e-6
    unit = st.floats(0, 1)
    box = np.sort(np.array([[data.draw(unit) for _ in range(2)] for _ in range(2)]), 0).reshape(1, 4)
    inside = box * size
    np.testing.assert_allclose(g.to_input(g.to_image(inside)), inside, atol=1e-6 * size)
    seen = g.to_input(box * [width, height, width, height])
    assert (seen >= 0).all()
    assert (seen <= size).all()
    assert (seen[:, 2:] >= seen[:, :2]).all()


def test_geometry_by_hand() -> None:
    g = Geometry(100, 50, 400, 200, 100)
    boxes = [[100, 50, 500, 250], [200, 100, 300, 150], [0, 0, 50, 40], [0, 0, 1000, 1000]]
    assert g.to_input(boxes).tolist() == [[0, 0, 100, 100], [25, 25, 50, 50], [0, 0, 0, 0], [0, 0, 100, 100]]
    assert g.to_image([[0, 0, 100, 100], [25, 25, 50, 50]]).tolist() == boxes[:2]
    assert g.to_input(np.zeros((0, 4))).shape == (0, 4)
