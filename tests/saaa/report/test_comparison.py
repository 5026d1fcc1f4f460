"""Several models on one page: the shared scale, and what the markup says."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from saaa.client.attributions import Attribution, Prediction, Region
from saaa.client.models import Limits, Model
from saaa.report.comparison import Answer, compared, comparison_page, difference, points, titles
from saaa.report.heatmap import PANEL, Scale, draw_attribution, draw_overlay

LIMITS = Limits(
    max_image_bytes=1, max_image_pixels=1, max_graph_nodes=1, max_targets=1, max_beam_width=1, max_cost_forwards=1
)
WHOLE = Region(x=0, y=0, width=80, height=40)
GRIDS = st.lists(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-5, 5, width=16)),
    min_size=1,
    max_size=4,
)


def model(version: str, name: str = "m", classes: tuple[str, ...] = ("cat", "dog")) -> Model:
    return Model(
        name=name, version=version, kind="egdd", archive_sha256="a" * 64, input_size=8, classes=classes, limits=LIMITS,
        ready=True,
    )  # fmt: skip


def predictions(**shares: float) -> tuple[Prediction, ...]:
    ordered = sorted(shares.items(), key=lambda entry: -entry[1])
    return tuple(Prediction(label=label, index=0, probability=share) for label, share in ordered)


def attribution(grid: np.ndarray, label: str = "cat", method: str = "lrp", region: Region = WHOLE) -> Attribution:
    target = Prediction(label=label, index=0, probability=0.5)
    return Attribution(target=target, method=method, grid=grid.astype(np.float32), region=region)


@given(GRIDS)
def test_a_shared_scale_reaches_as_far_as_each(grids: list[np.ndarray]) -> None:
    shared = Scale.shared(grids)
    everything = np.concatenate([grid.ravel() for grid in grids])
    for own in map(Scale.of, grids):
        assert shared.low <= own.low <= own.high <= shared.high
        assert shared.signed or not own.signed
    if shared.signed:
        assert shared.low == -shared.high
    assert shared.clipped == bool((everything > shared.high).any() or (everything < shared.low).any())
    if len(grids) == 1 and not Scale.of(grids[0]).clipped:
        assert shared == Scale.of(grids[0])


def test_equal_values_get_equal_colours_and_larger_ones_brighter() -> None:
    image = np.full((40, 80, 3), 128, np.uint8)
    weak, strong = (attribution(np.full((4, 8), value)) for value in (1.0, 4.0))
    uneven = attribution(np.array([[1.0, 4.0]]))
    levels = Scale.shared([weak.grid * 0, weak.grid, strong.grid, uneven.grid])
    drawn = [np.asarray(draw_overlay(image, map_, levels)).astype(int) for map_ in (weak, strong, uneven)]
    assert drawn[0].shape == (PANEL // 2, PANEL, 3)
    assert (drawn[0][0, 0] == drawn[2][0, 0]).all()
    assert (drawn[1][0, -1] == drawn[2][0, -1]).all()
    assert drawn[1].sum() > drawn[0].sum()


def test_one_map_at_its_own_scale_looks_as_in_the_report() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    map_ = attribution(np.random.default_rng(1).normal(size=(5, 5)), region=Region(x=20, y=0, width=40, height=40))
    panel = np.asarray(draw_overlay(image, map_, Scale.of(map_.grid)))
    whole = np.asarray(draw_attribution(image, map_))
    height, width = panel.shape[:2]
    places = [
        (top, left)
        for top in range(60, 110)
        for left in range(2 * width, whole.shape[1] - width)
        if (whole[top, left] == panel[0, 0]).all()
    ]
    assert any((whole[top : top + height, left : left + width] == panel).all() for top, left in places)


def test_classes_that_any_model_holds_likely_are_compared() -> None:
    first = Answer(model=model("1"), predictions=predictions(cat=0.7, dog=0.2, emu=0.1))
    second = Answer(model=model("2"), predictions=predictions(emu=0.9, cat=0.06, dog=0.04))
    silent = Answer(model=model("3"), failure="UNAVAILABLE: gone")
    assert compared([first, second, silent], 1) == ["emu", "cat"]
    assert compared([silent], 3) == []
    assert difference(second, first, "emu") == pytest.approx(0.8)
    assert difference(silent, first, "emu") is None
    assert difference(second, silent, "emu") is None
    assert titles([first, second]) == ["version 1", "version 2"]
    assert titles([first, Answer(model=model("1", "other"))]) == ["m 1", "other 1"]
    assert [points(0.0149), points(-0.0004), points(-0.5)] == ["+1.5", "0.0", "-50.0"]


def test_what_others_wrote_is_escaped() -> None:
    evil = '<script>alert("x")</script>'
    answers = [
        Answer(
            model=model(evil, evil, (evil,)),
            predictions=(Prediction(label=evil, index=0, probability=1.0),),
            attributions=(attribution(np.eye(3), evil, evil),),
        ),
        Answer(model=model("2"), failure=evil),
    ]
    page = comparison_page(evil, np.zeros((40, 80, 3), np.uint8), answers, targets=[evil], top_k=3)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8


def test_methods_do_not_share_a_scale() -> None:
    signed = attribution(-70 * np.eye(2), "cat", "ig")
    answers = [
        Answer(model=model("1"), predictions=predictions(cat=1.0), attributions=(attribution(np.eye(2)),)),
        Answer(model=model("2"), predictions=predictions(cat=1.0), attributions=(attribution(9 * np.eye(2)),)),
        Answer(model=model("3"), predictions=predictions(cat=1.0), attributions=(signed,)),
        Answer(model=model("4"), predictions=predictions(dog=1.0)),
    ]
    page = comparison_page("photo", np.zeros((40, 80, 3), np.uint8), answers, targets=["cat", "dog"], top_k=3)
    bars = re.findall(r'<div class="scale">([^<]*)<span[^>]*></span>([^<]*)</div>', page)
    assert bars == [("lrp: relevance 0", "9"), ("ig: against / for -70", "70")]
    assert "does not know the class" in page
    assert "What speaks for dog" not in page
