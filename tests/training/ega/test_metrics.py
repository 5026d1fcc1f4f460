import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ega.metrics import ObjectWords, cider, count_mentions, derangement, ratio_interval


def test_longer_names_win_over_names_inside_them():
    words = ObjectWords(["table", "coffee table", "coffee", "Lamp"])
    assert words.mentioned(["a", "coffee", "table", "near", "a", "lamp"]) == {("coffee", "table"), ("lamp",)}
    assert words.mentioned(["a", "table", "with", "coffee"]) == {("table",), ("coffee",)}
    assert words.mentioned([]) == set()


def test_mentions_are_counted_over_names():
    """Hand-solved: 4 different names wanted (two sofas are one), 4 mentioned, 3 of them right."""
    words = ObjectWords(["sofa", "lamp", "bed", "rug", "cat"])
    found = count_mentions(
        words,
        [["a", "sofa", "and", "a", "lamp"], ["a", "bed", "and", "a", "cat", "bed"]],
        [["sofa", "sofa", "lamp"], ["bed", "rug"]],
    )
    assert (found.wanted, found.mentioned, found.both) == (4, 4, 3)
    assert (found.recall, found.precision) == (0.75, 0.75)


def test_no_objects_are_no_failure():
    found = count_mentions(ObjectWords([]), [["hello"]], [[]])
    assert (found.recall, found.precision) == (1.0, 1.0)


def test_cider_is_highest_for_the_reference_itself():
    references = [["a red sofa near a lamp", "a sofa by a lamp"], ["a blue bed on a rug"], ["two cats sleep here"]]
    own = cider([r[0].split() for r in references], references)
    other = cider([references[k - 1][0].split() for k in range(3)], references)
    assert own.shape == (3,)
    assert own[1] == pytest.approx(1000)  # one reference, given word for word, every length of n-gram present
    assert (own > 4 * other).all()


def test_the_interval_holds_the_ratio_and_shrinks_to_it():
    rng = np.random.default_rng(0)
    below = rng.uniform(50, 150, 400)
    above = 2 * below + rng.normal(0, 20, 400)
    low, high = ratio_interval(above, below, seed=1, resamples=500)
    assert low < above.mean() / below.mean() < high
    assert high - low < 0.1
    assert ratio_interval(3 * below, below, seed=1, resamples=50) == pytest.approx((3.0, 3.0))


def test_the_interval_has_no_upper_end_when_nothing_is_below():
    low, high = ratio_interval(np.ones(5), np.zeros(5), seed=0, resamples=20)
    assert low == high == np.inf


@given(count=st.integers(2, 60), seed=st.integers(0, 1000))
def test_a_derangement_moves_everything(count, seed):
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert all(order[k] != k for k in range(count))
