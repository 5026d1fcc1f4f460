"""What models see of a large JPEG over real gRPC: each at the scale that its own archive allows, told in the original's
pixels."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from saaa.fitting import Picture
from saaa.images import decode, fit
from saaa.v1 import analysis_pb2 as pb
from saaa.work import Work
from serving.analysis import analysis
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, SIZE, PixelBackend, calling, refusal, thing

REDUCED = replace(CLASSIFIER, resize="crop", crop_fraction=0.8, decode_scales=(2, 4), decode_margin=1.5)
GRAPH = pb.SceneGraph(objects=[thing(1, (10, 20, 60, 90))])


def jpeg(orientation: int = 1) -> bytes:
    cells = np.random.default_rng(0).integers(0, 200, (12, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((163, 125), Image.Resampling.BICUBIC).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


async def test_each_model_sees_the_scale_that_its_archive_allows() -> None:
    backend = PixelBackend(REDUCED, CAPTIONER)
    data = jpeg(orientation=6)
    async with calling(backend) as caller:
        answer = await caller.analyze(data, graph=GRAPH)
        both = {batch.work: batch.pixels[0] for batch in backend.batches}
        alone = await caller.analyze(data, outputs=[pb.OUTPUT_PREDICTIONS, pb.OUTPUT_ATTRIBUTIONS])
        model = (await caller.stub.GetModel(pb.GetModelRequest(name="colours"))).model
        other = (await caller.stub.GetModel(pb.GetModelRequest(name="words"))).model
    whole, geometry = fit(decode(data), SIZE, mode="crop", crop_fraction=0.8)
    expected, _ = Picture(data).fit(REDUCED)
    assert (both[Work.EXPLAIN] == expected).all()
    assert (both[Work.EXPLAIN] != whole).any()
    assert (both[Work.CAPTION] == fit(decode(data), SIZE)[0]).all()
    # Who else takes part changes nothing, and the caller is told pixels of what was sent.
    assert (backend.batches[-1].pixels[0] == expected).all()
    assert answer.predictions == alone.predictions
    region = answer.attributions[0].region
    assert np.allclose(
        [region.x, region.y, region.width, region.height], [geometry.x, geometry.y, geometry.width, geometry.height]
    )
    assert (answer.image_width, answer.image_height) == (125, 163)
    assert (list(model.decode_scales), model.decode_margin) == ([2, 4], 1.5)
    assert (list(other.decode_scales), other.decode_margin) == ([], 0)


async def test_a_cut_off_jpeg_is_refused_alike() -> None:
    data = jpeg()
    refusals = []
    for info in (CLASSIFIER, REDUCED):
        async with calling(PixelBackend(info, CAPTIONER)) as caller:
            refusals.append(await refusal(caller.analyze(data[: len(data) // 2])))
    assert refusals[0].fields == refusals[1].fields == {"image": "the JPEG data is cut off; send the complete file"}


async def test_memory_of_images_is_kept_for_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Image.core  # type: ignore[attr-defined]
    before = core.get_blocks_max()
    try:
        monkeypatch.delenv("PILLOW_BLOCKS_MAX", raising=False)
        core.set_blocks_max(0)
        async with calling(PixelBackend(REDUCED, CAPTIONER)) as caller:
            assert core.get_blocks_max() == analysis.KEPT_BLOCKS
            await caller.analyze(jpeg())
            assert 0 < core.get_stats()["blocks_cached"] <= analysis.KEPT_BLOCKS
        # The operator's word counts more.
        monkeypatch.setenv("PILLOW_BLOCKS_MAX", "1")
        core.set_blocks_max(1)
        async with calling(PixelBackend(REDUCED, CAPTIONER)):
            assert core.get_blocks_max() == 1
    finally:
        core.set_blocks_max(before)
