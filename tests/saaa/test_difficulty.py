"""Difficulty and concepts, solved by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.annotations import Content, Rating, Unit
from saaa.difficulty import DifficultyOptions, concepts, estimate, mean_relevance, threshold, unit_difficulty, wilson
from saaa.errors import OptionInvalid
from saaa.role_graph import NodeKind

O, A, R = NodeKind.OBJECT, NodeKind.ATTRIBUTE, NodeKind.RELATIONSHIP  # noqa: E741


def rated(rating: float, kind: NodeKind, *names: str | None, image: str = "i", word: str | None = None) -> Rating:
    subject, predicate, target = (*names, None, None)[:3]
    return Rating(
        id="x",
        unit=Unit(image=image, target="class" if word else "word", word=word),
        stated=kind,
        content=Content(kind=kind, subject=subject, predicate=predicate, target=target),
        typed="",
        rating=rating,
    )


MAN_ON_HORSE = [
    rated(5, O, "man"),  # d = 0
    rated(1, O, "horse"),  # d = 1
    rated(3, A, "horse", "brown"),  # d = .5
    rated(2, R, "man", "riding", "horse"),  # d = .75
    rated(4, R, None, "on", "grass"),  # d = .25
]


@pytest.mark.parametrize(
    ("alpha", "man", "horse"), [(0, 0, 1), (1, 0.75, 0.625), (0.5, 0.375, 0.8125), (0.2, 0.15, 0.925)]
)
def test_objects_by_hand(alpha: float, man: float, horse: float) -> None:
    (instance,) = estimate(MAN_ON_HORSE, DifficultyOptions(alpha=alpha)).instances
    found = {thing.name: thing.difficulty for thing in instance.objects}
    assert found == pytest.approx({"man": man, "horse": horse, "grass": 0.25})  # grass has a relationship only
    assert instance.difficulty == pytest.approx(max(man, horse, 0.25))
    assert instance.mean_relevance == pytest.approx(15 / 25)
    assert instance.weight == 1 - instance.difficulty
    assert {t.name: (t.units, t.incident) for t in instance.objects} == {
        "man": (1, 1),
        "horse": (1, 2),
        "grass": (0, 1),
    }


def test_aggregates_and_hard() -> None:
    for aggregate, value in (("mean", (0.375 + 0.8125 + 0.25) / 3), ("max", 0.8125), ("share", 1 / 3)):
        (instance,) = estimate(MAN_ON_HORSE, DifficultyOptions(aggregate=aggregate)).instances
        assert instance.difficulty == pytest.approx(value)
        assert [thing.name for thing in instance.objects if thing.hard] == ["horse"]
        assert instance.hard == (aggregate == "max")


def test_relations_tell_what_the_mean_does_not() -> None:
    """Two images of equal mean rating: in one the ratings that are low are all about one object."""
    split = [rated(1, O, "cup", image="a"), rated(1, R, "cup", "on", "mat", image="a"), rated(5, O, "mat", image="a")]
    apart = [rated(1, O, "cup", image="b"), rated(1, O, "mat", image="b"), rated(5, R, "cup", "on", "mat", image="b")]
    hard, easy = estimate([*split, *apart], DifficultyOptions(aggregate="max", tau=0.9)).instances
    assert (hard.image, hard.difficulty, hard.hard) == ("a", 1, True)
    assert (easy.image, easy.difficulty, easy.hard) == ("b", 0.5, False)
    assert hard.mean_relevance == easy.mean_relevance


def test_an_instance_without_objects_does_not_vanish() -> None:
    found = estimate([rated(2, R, None, "in front of"), rated(3, A, None, "red")])
    assert [(i.difficulty, i.objects) for i in found.instances] == [(0.625, ())]
    assert estimate([]).instances == ()


def test_largest_gap() -> None:
    gap = DifficultyOptions(rule="gap", tau=0.9)
    assert threshold([0.1, 0.2, 0.8, 0.85, 0.2], gap) == pytest.approx(0.5)
    assert threshold([0, 0.5, 1], gap) == pytest.approx(0.75)  # of equal gaps the highest
    assert threshold([0.3, 0.3], gap) == 0.9
    assert threshold([], gap) == 0.9
    ratings = [rated(r, O, "cup", image=str(r)) for r in (1, 1.4, 4.6, 5)]
    assert [(i.image, i.hard) for i in estimate(ratings, gap).instances] == [
        ("1", True), ("1.4", True), ("4.6", False), ("5", False),
    ]  # fmt: skip


@pytest.mark.parametrize("option", [{"alpha": -0.1}, {"tau": 1.1}, {"alpha": math.nan}])
def test_options_out_of_range(option: dict[str, float]) -> None:
    with pytest.raises(OptionInvalid, match="from 0 to 1"):
        DifficultyOptions(**option)


@given(st.lists(st.tuples(st.floats(1, 5), st.sampled_from("abc"), st.sampled_from("ij")), min_size=1), st.floats(0, 1))
def test_difficulty_stays_in_range_and_falls_with_the_rating(answers, alpha: float) -> None:
    options = DifficultyOptions(alpha=alpha)
    ratings = [rated(r, O, name, image=image) for r, name, image in answers]
    before = {i.image: i.difficulty for i in estimate(ratings, options).instances}
    assert all(0 <= value <= 1 for value in before.values())
    better = [rated(min(5, r + 0.5), O, name, image=image) for r, name, image in answers]
    after = {i.image: i.difficulty for i in estimate(better, options).instances}
    assert all(after[image] <= before[image] + 1e-12 for image in before)


def test_published_score() -> None:
    assert mean_relevance([4.4, 4, 4.2]) == pytest.approx((4.4 + 4 + 4.2) / 3 / 5)
    assert (mean_relevance([1]), mean_relevance([5])) == (0.2, 1)
    assert [unit_difficulty(r) for r in (1, 3, 5)] == [1, 0.5, 0]


def test_wilson() -> None:
    low, high = wilson(0.8, 10)  # a known value: 8 of 10 gives (.4902, .9433)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(1, 4)[0] > 0.5 > wilson(1, 3)[0]


@given(st.integers(1, 200), st.data())
def test_wilson_solves_its_equation(count: int, data) -> None:
    """Its bounds are the shares p from which the observed one is z standard errors of p away."""
    share = data.draw(st.integers(0, count)) / count
    for bound in wilson(share, count, z=1.5):
        assert (share - bound) ** 2 == pytest.approx(1.5**2 * bound * (1 - bound) / count, abs=1e-9)


def test_concepts() -> None:
    ratings = [
        *(rated(r, O, "rug", word="kitchen") for r in (1, 1.5, 2, 1, 2.9)),
        *(rated(r, O, "stove", word="kitchen") for r in (5, 4, 3.5, 4.5)),
        *(rated(r, A, "wall", "red", word="kitchen") for r in (1, 5, 3)),
        rated(1, R, "cup", "on", "mat", word="den"),
        rated(1, O, "rug"),  # of a caption's word
        rated(1, R, None, None, word="den"),
    ]
    found = concepts(ratings)
    assert {c.name: c.verdict for c in found["kitchen"]} == {
        "rug": "confounded", "stove": "valid", "(wall, red)": "undecided",
    }  # fmt: skip
    assert [c.verdict for c in found["kitchen"]] == ["confounded", "valid", "undecided"]
    rug, stove, wall = found["kitchen"]
    assert (rug.support, rug.irrelevant, rug.mean) == (5, 1, statistics.fmean([1, 1.5, 2, 1, 2.9]))
    assert (stove.irrelevant, wall.irrelevant) == (0, 0.5)
    assert [c.name for c in found["den"]] == ["(cup, on, mat)"]
    assert found["den"][0].to_json()["interval"] == [round(bound, 6) for bound in wilson(1, 1)]
