"""Pictures decoded at a reduced scale: against a plain decode reduced by means, at every size and orientation."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from saaa import fitting
from saaa.errors import ImageRejected
from saaa.fitting import Picture, allowed_scale
from saaa.geometry import Geometry
from saaa.images import ImageHeader, decode, decode_pillow, fit, read_header
from saaa.work import DECODE_SCALES as SCALES


@dataclass(frozen=True)
class Model:
    """How a model takes an image."""

    input_size: int = 16
    resize: str = "squash"
    crop_fraction: float = 1.0
    decode_scales: tuple[int, ...] = SCALES
    decode_margin: float = 1.0


def jpeg(width: int, height: int, *, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    """A smooth picture without symmetry, `width` x `height` as it is stored."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = np.stack([x * 250, y * 250, 120 + 90 * np.sin(5 * x + 3 * y)], 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(waves).convert(mode).save(buffer, "JPEG", quality=95, subsampling=0, exif=exif, **options)
    return buffer.getvalue()


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What a viewer does for each orientation, by hand."""
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    return turns[orientation](stored)


def reduced_naively(whole: NDArray[np.uint8], scale: int) -> NDArray[np.float64]:
    """Each block's mean; what is missing of the last blocks repeats the edge."""
    height, width = whole.shape[:2]
    padded = np.pad(whole, ((0, -height % scale), (0, -width % scale), (0, 0)), mode="edge").astype(float)
    rows, columns = padded.shape[0] // scale, padded.shape[1] // scale
    return padded.reshape(rows, scale, columns, scale, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_pixels_are_means_of_the_stored_ones(orientation: int, scale: int, progressive: bool) -> None:
    stored = decode(jpeg(83, 61, progressive=progressive))
    data = jpeg(83, 61, orientation=orientation, progressive=progressive)
    expected = turned(reduced_naively(stored, scale), orientation)
    made = np.asarray(decode_pillow(data, scale=scale))
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 6, "the last blocks hold what the encoder put beyond the edge"
    assert np.abs(made - expected).mean() < 1


@settings(max_examples=150, deadline=None)
@given(
    st.integers(16, 300),
    st.integers(16, 300),
    st.integers(1, 8),
    st.sampled_from(SCALES),
    st.sampled_from([("squash", 1.0), ("crop", 1.0), ("crop", 0.875)]),
    st.sampled_from([1.0, 1.5, 2.0]),
)
def test_a_model_sees_what_it_would_see_of_the_whole(
    width: int, height: int, orientation: int, scale: int, resize: tuple[str, float], margin: float
) -> None:
    data = jpeg(width, height, orientation=orientation)
    model = Model(8, *resize, decode_scales=(scale,), decode_margin=margin)
    made, geometry = Picture(data).fit(model)
    expected, whole = fit(decode(data), 8, mode=resize[0], crop_fraction=resize[1])
    assert geometry == whole, "in pixels of the original, to the bit"
    assert (made.shape, made.dtype) == ((8, 8, 3), np.uint8)
    # A reduced pixel off by one would shift the ramps by far more than that.
    error = made.astype(float) - expected
    assert np.abs(error).max() <= 14
    assert np.abs(error.mean(axis=(0, 1))).max() <= 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_come_back_to_the_original(orientation: int) -> None:
    """A bright square of known place, found again by the map of where the reduced input is bright."""
    stored = np.zeros((403, 613, 3), np.uint8)
    stored[120:200, 330:450] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    rows, columns = np.nonzero(turned(stored, orientation)[..., 0])
    truth = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    for scale in (2, 4):
        pixels, geometry = Picture(buffer.getvalue()).fit(Model(96, "crop", 0.9, decode_scales=(scale,)))
        light = pixels[..., 0] / 255
        across, down = light.max(axis=0), light.max(axis=1)
        # The sums tell the extent below a pixel of the input.
        sums = light.sum(axis=0), light.sum(axis=1)
        centre = [(weights @ (np.arange(96) + 0.5)) / weights.sum() for weights in sums]
        extent = [float(weights.sum()) / 2 for weights in (across, down)]
        box = [centre[0] - extent[0], centre[1] - extent[1], centre[0] + extent[0], centre[1] + extent[1]]
        assert np.abs(geometry.to_image([box])[0] - truth).max() < 2, (scale, "of 613 x 403 pixels")


@pytest.mark.parametrize("data", [jpeg(160, 120), jpeg(160, 120, orientation=6), jpeg(160, 120, progressive=True)])
@pytest.mark.parametrize("resize", [("squash", 1.0), ("crop", 0.875)])
def test_without_permission_nothing_changes(data: bytes, resize: tuple[str, float]) -> None:
    made, geometry = Picture(data).fit(Model(16, *resize, decode_scales=()))
    expected, same = fit(decode(data), 16, mode=resize[0], crop_fraction=resize[1])
    assert (made == expected).all()
    assert geometry == same


def saved(name: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 60).convert(mode).save(buffer, name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [*(saved(name) for name in ("PNG", "WEBP", "GIF", "BMP", "TIFF")), saved("JPEG", "CMYK")],
    ids=["PNG", "WEBP", "GIF", "BMP", "TIFF", "CMYK"],
)
def test_only_plain_jpegs_are_reduced(data: bytes) -> None:
    assert not read_header(data).plain_jpeg
    made, _ = Picture(data).fit(Model())
    assert (made == fit(decode(data), 16)[0]).all()


def test_an_uncommon_process_is_decoded_whole() -> None:
    """The frame's marker alone tells; lossless and arithmetic files have others than these."""
    data = jpeg(160, 120)
    assert read_header(data).plain_jpeg
    assert not read_header(data.replace(b"\xff\xc0", b"\xff\xc9", 1)).plain_jpeg


def test_the_first_picture_of_several() -> None:
    """A telephone's portrait or high-dynamic-range photo is a JPEG with others behind it."""
    first, other = Image.effect_noise((200, 160), 60).convert("RGB"), Image.new("RGB", (200, 160))
    several, alone = io.BytesIO(), io.BytesIO()
    first.save(several, "MPO", save_all=True, append_images=[other], quality=90)
    first.save(alone, "JPEG", quality=90)
    assert Image.open(several).format == "MPO"
    made, _ = Picture(several.getvalue()).fit(Model())
    assert (made == Picture(alone.getvalue()).fit(Model())[0]).all()
    assert (made != fit(decode(alone.getvalue()), 16)[0]).any()


def test_grey_is_reduced_too() -> None:
    data = jpeg(160, 120, mode="L")
    whole, _ = fit(decode(data), 16)
    made, _ = Picture(data).fit(Model())
    assert (made == made[..., :1]).all()
    assert 0 < np.abs(made.astype(int) - whole).max() <= 8


@pytest.mark.parametrize(
    ("width", "height", "resize", "scales", "margin", "scale"),
    [
        (1024, 768, ("crop", 0.875), SCALES, 1.0, 2),  # 768 / 256 is 3
        (1024, 768, ("crop", 0.875), SCALES, 1.5, 2),
        (1024, 768, ("crop", 0.875), SCALES, 1.51, 1),
        (4000, 3000, ("crop", 0.875), SCALES, 1.0, 8),
        (4000, 3000, ("crop", 0.875), (2, 4), 1.0, 4),
        (4000, 3000, ("crop", 0.875), (2,), 1.0, 2),
        (4000, 3000, ("crop", 0.875), (), 1.0, 1),
        (4000, 300, ("squash", 1.0), SCALES, 1.0, 1),  # the shorter side decides
        (448, 448, ("squash", 1.0), SCALES, 1.0, 2),  # just enough
        (447, 448, ("squash", 1.0), SCALES, 1.0, 1),
    ],
)
def test_scale(
    width: int, height: int, resize: tuple[str, float], scales: tuple[int, ...], margin: float, scale: int
) -> None:
    header = ImageHeader(format="JPEG", width=width, height=height, plain_jpeg=True)
    geometry = fitting.covered(width, height, 224, mode=resize[0], crop_fraction=resize[1])
    assert allowed_scale(header, geometry, scales, margin) == scale


def test_each_scale_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counting(data: bytes, *, scale: int, **limits: int) -> Image.Image:
        decoded.append(scale)
        return decode_pillow(data, scale=scale, **limits)

    monkeypatch.setattr(fitting, "decode_pillow", counting)
    picture = Picture(jpeg(160, 120))
    assert decoded == []
    for size in (30, 28, 60, 10, 60):
        picture.fit(Model(size))
    assert decoded == [4, 2, 8]


def test_a_header_that_is_known_is_not_read_again() -> None:
    data = jpeg(160, 120)
    assert Picture(data).header == read_header(data)
    assert Picture(data, read_header(data)).fit(Model())[1] == Geometry(0, 0, 160, 120, 16)


def test_limits_are_those_of_the_whole_image() -> None:
    data = jpeg(160, 120)
    for limits in ({"max_pixels": 160 * 120 - 1}, {"max_bytes": len(data) - 1}):
        with pytest.raises(ImageRejected):
            Picture(data, **limits)
        with pytest.raises(ImageRejected):
            Picture(data, read_header(data), **limits).fit(Model())


def test_bad_images_stay_bad(shared_data: Path) -> None:
    """The yardstick: a reduced scale takes what full size takes, and nothing else."""
    folder = shared_data / "bad-images"
    with (folder / "index.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    reduced = 0
    for name in names:
        data = (folder / name).read_bytes()
        refused = refusal(decode, data)
        assert refusal(lambda content: Picture(content).fit(Model(4)), data) == refused, name
        if not refused:
            picture = Picture(data)
            pixels, geometry = picture.fit(Model(4))
            reduced += allowed_scale(picture.header, geometry, SCALES, 1.0) > 1
            assert pixels.shape == (4, 4, 3), name
    assert reduced > 5


def refusal(read: Callable[[bytes], object], data: bytes) -> str:
    try:
        read(data)
    except ImageRejected as error:
        return error.message
    return ""


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_off_files_are_refused(cut: float, progressive: bool) -> None:
    data = jpeg(320, 240, progressive=progressive)
    with pytest.raises(ImageRejected, match=r"cut off|damaged"):
        Picture(data[: int(len(data) * cut)]).fit(Model())
