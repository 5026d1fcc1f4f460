"""A style: what scenes have in common, drawn from again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from saaa.errors import DataError
from training.scenes import CLASSES, label_of, render_prompt, sample_scene
from training.scenes.room import WALLS
from training.scenes.sampler import NO_BIAS, Bias
from training.scenes.style import Style, learn_style

SHARES = {"clock": 1.0, "mirror": 0.5, "bed": 1.0, "chair": 0.0, "vase": 0.3}


def test_furnishing_follows_the_shares_and_keeps_the_class() -> None:
    style = Style(things=SHARES)
    counts: Counter[str] = Counter()
    for seed in range(60):
        _, scene = render_prompt("a kitchen", seed, size=64, style=style)
        assert label_of(scene) == "kitchen"
        counts.update({thing.kind for thing in scene.things})
    assert set(counts) <= {"pot", "stove", "clock", "mirror"}  # a bed is another class; nothing carries a vase
    assert counts["clock"] == 60
    assert 0.3 < counts["mirror"] / 60 < 0.7


def test_walls_come_from_the_pictures() -> None:
    style = Style(walls=(WALLS[9], WALLS[14]))
    assert {style.choose_wall(NO_BIAS, Random(k)).wall for k in range(20)} == {WALLS[9], WALLS[14]}
    some = Bias(avoid_walls=frozenset({WALLS[9]}))
    assert {style.choose_wall(some, Random(k)).wall for k in range(20)} == {WALLS[14]}
    none = Bias(avoid_walls=frozenset({WALLS[9], WALLS[14]}))
    assert style.choose_wall(none, Random(0)) == none
    assert Style().choose_wall(NO_BIAS, Random(0)) == NO_BIAS


def test_the_wall_s_colour_is_seen_in_the_picture(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    off = []
    for k in range(30):
        scene, rendered = sample_scene(CLASSES[k % 12], f"wall/{k}", size=96)
        Image.fromarray(rendered.image).save(tmp_path / f"{k}.jpg", quality=92)
        Image.fromarray(rendered.labels).save(tmp_path / "masks" / f"{k}.png")
        found = learn_style([(tmp_path, {"id": str(k), "file": f"{k}.jpg", "objects": []})])
        off.append(np.abs(np.array(found.walls[0]) - scene.room.wall).mean())
    assert np.median(off) < 14  # the light changes a wall by up to a third
    assert max(off) < 45


def test_kept_and_read_again() -> None:
    style = Style(things=SHARES, walls=(WALLS[0],))
    assert Style.from_json(style.to_json()) == style


@pytest.mark.parametrize("things", [[], {"moon": 0.5}, {"cat": 2}, {"cat": float("nan")}, {"cat": "x"}])
def test_odd_shares(things: object) -> None:
    with pytest.raises(DataError, match="no style"):
        Style.from_json({"things": things, "walls": []})


@pytest.mark.parametrize("data", [None, [], {}, {"things": {}}])
def test_what_is_no_style(data: object) -> None:
    with pytest.raises(DataError, match="no style"):
        Style.from_json(data)


@pytest.mark.parametrize("wall", [None, [1, 2], ["a", 1, 2], [float("inf"), 0, 0]])
def test_odd_walls(wall: object) -> None:
    with pytest.raises(DataError, match="no style"):
        Style.from_json({"things": {}, "walls": [wall]})


def test_a_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="000001"):
        learn_style([(tmp_path, {"id": "000001", "file": "train/kitchen/000001.jpg", "objects": []})])
