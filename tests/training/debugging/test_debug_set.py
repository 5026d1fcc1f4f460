"""A debug set on disk: whatever stops the work, nothing is done twice and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from saaa.images import decode
from tests.training.debugging.tiny_set import CLASSES, Painter, draw_folders, paint
from training.debugging.debug_set import (
    DRAWN_AT_ONCE,
    HEAD,
    MANIFEST,
    Item,
    Store,
    copy,
    draw,
    planned_choice,
    planned_prompts,
    read_manifest,
)
from training.debugging.prompts import Prompt, concept_prompts
from training.egdd.data import list_images

PROMPTS = concept_prompts({"attic": ["lamp", "rug", "cat"], "den": ["sofa"]})
WHO = {"strategy": "s"}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made(folder: Path, painter: Painter) -> dict[str, bytes]:
    """Draw 7 images a class without any trouble."""
    store = Store(folder, WHO)
    store.plan(planned_prompts(PROMPTS, 7, seed=0))
    draw(store, painter)
    store.finish()
    return files(folder)


def test_prompts_take_turns_and_every_image_has_a_seed_of_its_own() -> None:
    items = planned_prompts(PROMPTS, 7, seed=0)
    assert [item.concept for item in items] == ["lamp", "rug", "cat", "lamp", "rug", "cat", "lamp", *["sofa"] * 7]
    assert [item.file for item in items[6:9]] == ["attic/0006.jpg", "den/0000.jpg", "den/0001.jpg"]
    seeds = {item.seed for s in range(20) for item in planned_prompts(PROMPTS, 7, seed=s)}
    assert len(seeds) == 280
    assert items == planned_prompts(PROMPTS, 7, seed=0)


def test_the_set_says_what_every_image_is(tmp_path: Path) -> None:
    made(tmp_path / "set", Painter())
    store = Store(tmp_path / "set", WHO)
    assert store.complete
    found = store.finish()
    assert found.counts == {"attic": 7, "den": 7}
    assert list(found.items) == read_manifest(tmp_path / "set")
    for item in found.items:
        pixels = decode((found.images / item.file).read_bytes())
        assert abs(pixels.astype(int) - paint(item.asked(), item.seed or 0).astype(int)).max() <= 3  # JPEG
    assert list_images(found.images).classes == ("attic", "den")


@given(fails_at=st.integers(0, 13))
def test_goes_on_after_a_failure_as_if_there_had_been_none(
    fails_at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("set")
    whole = made(tmp_path / "whole", Painter())
    painter = Painter(fails_at=fails_at)
    store = Store(tmp_path / "set", WHO)
    store.plan(planned_prompts(PROMPTS, 7, seed=0))
    with pytest.raises(GeneratorFailed, match="out of paint"):
        draw(store, painter, show=False)
    kept = len(store.items) - len(store.missing())
    assert kept == fails_at // DRAWN_AT_ONCE * DRAWN_AT_ONCE
    assert not json.loads((tmp_path / "set" / HEAD).read_text())["complete"]

    again = Store(tmp_path / "set", WHO)
    assert again.items == store.items
    late = Painter()
    draw(again, late, show=False)
    again.finish()
    assert len(late.painted) == 14 - kept
    assert files(tmp_path / "set") == whole


def test_goes_on_after_a_kill(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", Painter())
    script = tmp_path / "slow.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from pathlib import Path
            from tests.training.debugging.test_debug_set import PROMPTS, WHO
            from tests.training.debugging.tiny_set import Painter
            from training.debugging.debug_set import Store, draw, planned_prompts
            import training.debugging.debug_set as place

            class Slow(Painter):
                def draw(self, prompts, seeds):
                    time.sleep(0.15)
                    return super().draw(prompts, seeds)

            place.DRAWN_AT_ONCE = 2
            store = Store(Path({str(tmp_path / "set")!r}), WHO)
            if not store.items:
                store.plan(planned_prompts(PROMPTS, 7, seed=0))
            draw(store, Slow(book=Path({str(tmp_path / "book")!r})))
            store.finish()
            """
        )
    )
    root = Path(__file__).parents[3]
    for count in (3, 8, None):
        process = subprocess.Popen(
            [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE
        )
        if count is None:
            assert process.wait(60) == 0, process.stderr.read() if process.stderr else ""
            break
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "set" / "images").rglob("*.jpg"))) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files(tmp_path / "set") == whole
    # At most the two pictures that were being made at each kill were made again.
    assert len((tmp_path / "book").read_text().splitlines()) <= 14 + 2 * 2


def test_a_refused_prompt_gives_its_images_to_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "set", WHO)
    store.plan(planned_prompts(PROMPTS, 7, seed=0))
    painter = Painter(refuses=["an attic with a rug"])
    draw(store, painter)
    found = store.finish()
    assert [item.concept for item in found.items] == [
        "lamp",
        "lamp",
        "cat",
        "lamp",
        "cat",
        "cat",
        "lamp",
        *["sofa"] * 7,
    ]
    assert found.told == ("attic: 'an attic with a rug' is not drawn: that is nonsense",)
    assert len(painter.painted) == len({seed for _, seed in painter.painted}) == 14
    for item in found.items:
        assert (item.prompt, item.seed) in painter.painted
    assert Store(tmp_path / "set", WHO).finish() == found


class Moody(Painter):
    """Refuses a prompt by its seed, as a scene may fit in one room and not in another."""

    def draw(self, prompts, seeds):  # type: ignore[no-untyped-def]
        for prompt, seed in zip(prompts, seeds, strict=True):
            if prompt.label == "attic" and seed % 3 == 0:
                raise OptionInvalid("not this time")
        return super().draw(prompts, seeds)


def test_prompts_that_are_refused_now_and_then_end_in_an_error_not_in_a_circle(tmp_path: Path) -> None:
    store = Store(tmp_path / "set", WHO)
    store.plan(planned_prompts(PROMPTS, 30, seed=0))
    with pytest.raises(OptionInvalid, match="draws none of the prompts of attic"):
        draw(store, Moody())
    # What was made before is what the manifest says it is.
    for item in store.items:
        path = tmp_path / "set" / "images" / item.file
        if path.is_file():
            pixels = decode(path.read_bytes()).astype(int)
            assert abs(pixels - paint(item.asked(), item.seed or 0).astype(int)).max() <= 3


def test_a_generator_that_gives_something_else_fails(tmp_path: Path) -> None:
    class Odd(Painter):
        def draw(self, prompts, seeds):  # type: ignore[no-untyped-def]
            return [np.zeros((8, 8), np.uint8) for _ in prompts]

    class Few(Painter):
        def draw(self, prompts, seeds):  # type: ignore[no-untyped-def]
            return super().draw(prompts, seeds)[1:]

    store = Store(tmp_path / "set", WHO)
    store.plan(planned_prompts(PROMPTS, 2, seed=0))
    with pytest.raises(GeneratorFailed, match="where an RGB image is due"):
        draw(store, Odd())
    with pytest.raises(GeneratorFailed, match="3 images for 4 prompts"):
        draw(store, Few())
    assert len(store.missing()) == 4


def test_copies_go_on_and_keep_their_bytes(tmp_path: Path) -> None:
    pool = draw_folders(tmp_path / "pool", 4, seed=2)
    (pool / "den" / "03.png").rename(pool / "den" / "03.PNG")
    listing = list_images(pool, CLASSES)
    store = Store(tmp_path / "set", WHO)
    store.plan(planned_choice(listing, [(2, 0), (), (11, 8)]))
    assert [item.file for item in store.items] == [
        "attic/0000.png", "attic/0001.png", "den/0000.png", "den/0001.png",
    ]  # fmt: skip
    store.add(store.items[0], (pool / "attic/02.png").read_bytes())
    (pool / "attic/02.png").write_bytes(b"changed since")
    copy(Store(tmp_path / "set", WHO), listing)
    found = store.finish()
    assert [item.source for item in found.items] == ["attic/02.png", "attic/00.png", "den/03.PNG", "den/00.png"]
    assert (found.images / "den/0000.png").read_bytes() == (pool / "den/03.PNG").read_bytes()
    assert (found.images / "attic/0000.png").read_bytes() != b"changed since"


def test_an_image_that_has_gone_since_is_told(tmp_path: Path) -> None:
    pool = draw_folders(tmp_path / "pool", 2, seed=2)
    store = Store(tmp_path / "set", WHO)
    store.plan(planned_choice(list_images(pool, CLASSES), [(1,)]))
    (pool / "attic" / "01.png").unlink()
    with pytest.raises(DataError, match=r"01\.png is no longer in"):
        copy(store, list_images(pool, CLASSES))


def test_another_set_or_something_else_in_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "set", {"strategy": "s", "budget": 3, "seed": 0})
    Store(tmp_path / "set", {"strategy": "s", "budget": 4, "seed": 0})  # nothing was made yet
    store = Store(tmp_path / "set", {"strategy": "s", "budget": 3, "seed": 0})
    store.plan(planned_prompts(PROMPTS, 1, seed=0))
    with pytest.raises(OptionInvalid, match="another budget, seed"):
        Store(tmp_path / "set", {"strategy": "s", "budget": 4, "seed": 1})
    (tmp_path / "set" / MANIFEST).write_text("{}\n")
    with pytest.raises(DataError, match="no manifest"):
        Store(tmp_path / "set", {"strategy": "s", "budget": 3, "seed": 0})
    (tmp_path / "set" / HEAD).write_text("[]")
    with pytest.raises(DataError, match="does not describe"):
        Store(tmp_path / "set", WHO)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match=r"holds thesis\.txt"):
        Store(tmp_path / "other", WHO)


def test_an_item_asks_for_what_it_was_planned_with() -> None:
    prompt = Prompt(label="den", text="a {token} with a sofa", negative=("cat", "ball"), concept="sofa")
    (item,) = planned_prompts({"den": [prompt]}, 1, seed=0)
    assert item.asked() == prompt
    assert Item(**{**json.loads(json.dumps(item.__dict__)), "negative": tuple(item.negative)}) == item
