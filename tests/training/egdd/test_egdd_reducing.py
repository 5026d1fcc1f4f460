"""`saaa-train archive egdd --reduced_decoding auto`: which images are measured, what is allowed, what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saaa import archive
from saaa.errors import DataError, OptionInvalid
from saaa.fitting import Picture
from saaa.images import decode, fit
from saaa.models.classifier import Classifier
from tests.training.egdd.conftest import CLASSES
from tests.training.egdd.test_egdd_packing import name_classes, network, publish
from training.egdd.config import ArchiveConfig
from training.egdd.data import list_images, load_for_evaluation
from training.egdd.packing import pack
from training.egdd.reducing import FEWEST, Reducible

INPUT = 32


def draw(folder: Path, sizes: list[tuple[int, int]], *, kind: str = "jpg", grain: int = 32) -> Path:
    """Pictures of cells of `grain` pixels, one a size, turn by turn of the classes."""
    drawn = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        place = folder / "val" / CLASSES[number % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        cells = drawn.integers(0, 256, (-(-height // grain), -(-width // grain), 3), dtype=np.uint8)
        picture = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(place / f"{number:02}.{kind}", quality=92)
    return folder


def config(tmp_path: Path, data: Path | None) -> ArchiveConfig:
    return ArchiveConfig(
        checkpoint=publish(network(size=INPUT).net.state_dict(), tmp_path / "checkpoint.pth"),
        classes=name_classes(tmp_path),
        output=tmp_path / "a.mar",
        data_path=data,
        faithfulness_images=0,
        reduced_decoding="auto",
    )


def test_smooth_pictures_may_be_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw(tmp_path / "data", [(100 + n, 90 + n) for n in range(FEWEST)])
    made = config(tmp_path, data)
    pack(made)
    info = archive.info(made.output)
    (row, *_) = archive.read(made.output).card["reduced_decoding"]["measured"]
    assert (info.decode_scales, info.decode_margin) == ((2,), 1.0)
    assert (row["scale"], row["images"], row["agreement"], row["refused"]) == (2, FEWEST, 1.0, None)
    assert (
        "JPEGs at 1/2 with 1 pixels for each of the input's: the same class for 100.0% of 20" in capsys.readouterr().out
    )

    # Evaluation sees what is served: the archive's permission, and a checkpoint's full size.
    listing = list_images(data / "val", CLASSES)
    served = load_for_evaluation(listing, Classifier.from_archive(archive.read(made.output)).config, what="val")
    whole = load_for_evaluation(listing, network(size=INPUT).config, what="val")
    for i in range(len(listing)):
        assert (served[i] == Picture(listing.read(i)).fit(info)[0]).all()
        assert (whole[i] == fit(decode(listing.read(i)), INPUT, mode="crop", crop_fraction=0.875)[0]).all()
    assert any((served[i] != whole[i]).any() for i in range(len(listing)))


def test_fine_grain_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw(tmp_path / "data", [(100, 90)] * FEWEST, grain=1)
    made = config(tmp_path, data)
    pack(made)
    assert archive.info(made.output).decode_scales == ()
    read = archive.read(made.output)
    assert "decode_scales" not in read.config["preprocessing"]
    assert "maps' cosine" in read.card["reduced_decoding"]["refused"]
    assert "reduced decoding is refused: 1/2 with 1" in capsys.readouterr().out


def test_too_few_large_pictures_are_no_measure(tmp_path: Path) -> None:
    made = config(tmp_path, draw(tmp_path / "data", [(100, 90)] * (FEWEST - 1) + [(50, 50)] * 30))
    pack(made)
    told = archive.read(made.output).card["reduced_decoding"]
    assert told == {"measured": [], "refused": "too few validation images are large enough"}


def test_it_needs_validation_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="measured on validation images; name the data by --data_path"):
        pack(config(tmp_path, None))
    with pytest.raises(OptionInvalid, match="reduced_decoding is 'on'; choose off or auto"):
        replace(config(tmp_path, None), reduced_decoding="on")  # type: ignore[arg-type]


def test_samples_are_grouped_by_the_scale_that_would_be_chosen(tmp_path: Path) -> None:
    """Of 32 / 0.875, 37 pixels, the shorter sides are 1, 2, 3 and 5 times."""
    sizes = [(60, 37)] * 3 + [(90, 74)] * 3 + [(120, 111)] * 3 + [(185, 200)] * 3
    model = network(size=INPUT).config
    images = load_for_evaluation(list_images(draw(tmp_path / "data", sizes) / "val", CLASSES), model, what="val")
    large = Reducible(images, model, most=3)
    counts = {
        margin: {scale: len(pairs.whole) for scale, pairs in large.sample(margin).items()} for margin in (1, 2, 4)
    }
    assert counts == {1: {2: 3, 4: 3}, 2: {2: 3}, 4: {}}
    (pairs,) = large.sample(2).values()
    assert (pairs.whole != pairs.reduced).any()
    assert len(Reducible(images, model, most=1).sample(1)[2].whole) == 1


def test_what_is_no_jpeg_is_measured_as_one(tmp_path: Path) -> None:
    model = network(size=INPUT).config
    listing = list_images(draw(tmp_path / "data", [(100, 90)] * 3, kind="png") / "val", CLASSES)
    images = load_for_evaluation(listing, model, what="val")
    pairs = Reducible(images, model, most=3).sample(1)[2]
    for number in range(3):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(listing.read(number))).save(buffer, "JPEG", quality=90)
        picture = Picture(buffer.getvalue())
        assert (pairs.whole[number] == picture.fit(model)[0]).all()
        assert (pairs.reduced[number] == picture.fit(replace(model, decode_scales=(2,)))[0]).all()
