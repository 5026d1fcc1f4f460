"""Relationships from places."""

from __future__ import annotations

import pytest

from training.scenes.scene import Thing, relate, relations_of


def thing(identity: int, place: str, box: tuple[float, float, float, float], support: int | None = None) -> Thing:
    x, y, width, height = box
    return Thing(
        id=identity, kind="table", attributes=(), place=place, x=x, y=y, width=width, height=height, depth=y + height,
        support=support, flip=False, shear=0.0, taper=0.0, seed=identity,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "forth", "back"),
    [
        (("floor", (0.1, 0.5, 0.2, 0.3)), ("floor", (0.33, 0.5, 0.2, 0.3)), "next to", "next to"),
        (("floor", (0.1, 0.5, 0.2, 0.3)), ("floor", (0.6, 0.5, 0.2, 0.3)), "left of", "right of"),
        (("floor", (0.1, 0.6, 0.2, 0.3)), ("back", (0.15, 0.4, 0.2, 0.3)), "in front of", "behind"),
        (("wall", (0.1, 0.1, 0.2, 0.2)), ("floor", (0.1, 0.5, 0.3, 0.3)), "above", "under"),
        (("wall", (0.1, 0.1, 0.2, 0.2)), ("floor", (0.6, 0.5, 0.3, 0.3)), None, None),
        (("floor", (0.2, 0.55, 0.2, 0.3)), ("rug", (0.1, 0.8, 0.5, 0.15)), "on", None),
    ],
)
def test_pairs(a: tuple, b: tuple, forth: str | None, back: str | None) -> None:
    first, second = thing(1, *a), thing(2, *b)
    assert relate(first, second) == forth
    assert relate(second, first) == back


def test_support_is_on_and_told_once() -> None:
    table = thing(1, "floor", (0.1, 0.5, 0.5, 0.3))
    bowl = thing(2, "top", (0.2, 0.4, 0.2, 0.15), support=1)
    relations = relations_of((table, bowl))
    assert [(r.subject, r.name, r.object) for r in relations] == [(2, "on", 1)]
