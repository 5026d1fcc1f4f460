"""Which scales and margin an archive allows, by runtimes and images made up for it; and what a model sees then."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saaa import archive as archives
from saaa.archive import Archive
from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.classifier import Classifier
from saaa.models.preprocessing import Preprocessing, described
from saaa.runtime.base import Explanations
from saaa.runtime.parity import MIN_AGREEMENT, MIN_MEDIAN
from saaa.runtime.reduction import CARD_KEY, MARGINS, Pairs, allow_scales
from saaa.work import AttributionMap, ExplainOptions, ModelKind, WorkItem
from tests.tiny_models import make_classifier

METHOD = "shown"
PART = {"input_size": 16, "resize": "squash", "crop_fraction": 1.0}
METHODS = [{"name": METHOD, "cost_forwards": 1.0, "reference": "here"}]


class Looking:
    """Its map is the image, and its class the brightest half of it."""

    name, precision = "looking", "fp32"

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        light = pixels.mean(axis=3).astype(np.float32)
        return np.stack([light[:, :, :8].mean(axis=(1, 2)), light[:, :, 8:].mean(axis=(1, 2))], 1)

    def explains(self, options: ExplainOptions) -> bool:
        return options.method == METHOD

    def explain(self, pixels: NDArray[np.uint8], items: Sequence[WorkItem], options: ExplainOptions) -> Explanations:
        values = pixels.mean(axis=3).astype(np.float32) - 128
        maps = [
            (AttributionMap(target=item.targets[0], method=METHOD, values=own),)
            for item, own in zip(items, values, strict=True)
        ]
        return Explanations(logits=self.predict(pixels), maps=maps)


def pairs(*, change: float = 0.0, swapped: int = 0, images: int = 40) -> Pairs:
    """Noise, with as much of other noise; of so many images the halves change places."""
    drawn = np.random.default_rng(0)
    whole = drawn.integers(40, 216, (images, 16, 16, 3))
    whole[:, :, 8:] += 20
    reduced = np.clip(whole + change * drawn.normal(size=whole.shape), 0, 255)
    reduced[:swapped] = np.roll(reduced[:swapped], 8, axis=2)
    return Pairs(whole=whole.astype(np.uint8), reduced=reduced.astype(np.uint8))


def allowed(by_margin: Mapping[float, Mapping[int, Pairs]]) -> tuple[Archive, list[float]]:
    """The archive, and the margins that were asked for."""
    asked: list[float] = []

    def sample(margin: float) -> Mapping[int, Pairs]:
        asked.append(margin)
        return by_margin.get(margin, {})

    config = {"preprocessing": PART, "classes": ["left", "right"], "methods": METHODS}
    archive = Archive(kind=ModelKind.EGDD, name="a", version="1", config=config, card={"about": "halves"})
    return allow_scales(archive, Looking(), sample, (METHOD,)), asked


def test_the_smallest_margin_that_passes_is_allowed(tmp_path: Path) -> None:
    made, asked = allowed(
        {1.0: {2: pairs(change=60)}, 2.0: {4: pairs(change=2), 2: pairs(change=2)}, 4.0: {2: pairs()}}
    )
    assert asked == [1.0, 2.0]
    told = made.card[CARD_KEY]
    assert [(row["margin"], row["scale"], row["images"]) for row in told["measured"]] == [
        (1.0, 2, 40),
        (2.0, 2, 40),
        (2.0, 4, 40),
    ]
    assert "maps' cosine" in told["measured"][0]["refused"]
    assert [row["refused"] for row in told["measured"][1:]] == [None, None]
    assert told["refused"] is None
    assert made.card["about"] == "halves"
    archives.write(tmp_path / "a.mar", made)
    info = archives.info(tmp_path / "a.mar")
    assert (info.decode_scales, info.decode_margin) == ((2, 4), 2.0)
    assert (info.input_size, info.resize) == (16, "squash")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pairs(change=60), f"median of the maps' cosine .* < {MIN_MEDIAN}"),
        (pairs(swapped=1), f"top-1 agreement 0.9750 < {MIN_AGREEMENT}"),
    ],
)
def test_one_scale_that_fails_is_enough_for_a_refusal_by_name(bad: Pairs, reason: str) -> None:
    made, asked = allowed({margin: {2: pairs(), 4: bad, 8: pairs()} for margin in MARGINS})
    assert asked == list(MARGINS)
    told = made.card[CARD_KEY]
    assert [row["scale"] for row in told["measured"]] == [2, 4] * len(MARGINS), "what failed ends its margin"
    assert made.config["preprocessing"] == PART, "full size, as before"
    assert made.info().decode_scales == ()
    assert re.match(f"1/4 with 4 pixels for each of the input's: {reason}", told["refused"])


def test_without_large_images_nothing_is_allowed() -> None:
    made, _ = allowed({})
    assert made.card[CARD_KEY] == {"measured": [], "refused": "too few validation images are large enough"}
    assert made.config["preprocessing"] == PART


def test_a_classifier_keeps_what_its_archive_allows(tmp_path: Path) -> None:
    made = make_classifier().to_archive("tiny", "1", {})
    assert "decode_scales" not in made.config["preprocessing"]
    part = {**made.config["preprocessing"], "decode_scales": [2, 8], "decode_margin": 2.0}
    changed = Archive(**{**vars(made), "config": {**made.config, "preprocessing": part}})
    archives.write(tmp_path / "a.mar", changed)
    read = archives.read(tmp_path / "a.mar")
    config = Classifier.from_archive(read).config
    assert (config.decode_scales, config.decode_margin) == ((2, 8), 2.0)
    assert config.describe() == part == read.config["preprocessing"]
    assert Preprocessing(**described(part)).describe() == part


@pytest.mark.parametrize("part", [{"decode_scales": [3]}, {"decode_scales": [2], "decode_margin": 0.5}])
def test_other_scales_and_margins_are_refused(part: dict[str, Any], tmp_path: Path) -> None:
    config = {"preprocessing": PART | part, "classes": ["a", "b"], "methods": METHODS}
    archive = Archive(kind=ModelKind.EGDD, name="a", version="1", config=config)
    with pytest.raises(ArchiveError, match=r"decode_scales are of \(2, 4, 8\), and decode_margin is at least 1"):
        archives.write(tmp_path / "a.mar", archive)
    with pytest.raises(OptionInvalid, match="a margin of at least 1"):
        Preprocessing(**described(PART | {"mean": (0, 0, 0), "std": (1, 1, 1)} | part))
