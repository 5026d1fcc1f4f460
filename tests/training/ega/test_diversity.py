import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ega.diversity import diversity, self_cider

REFERENCES = [["a b c d"], ["c d e f"]]


def of(*captions: str):
    return diversity([[caption.split() for caption in captions]], REFERENCES)


def test_equal_captions_have_no_diversity():
    found = of("a b c d", "a b c d", "a b c d")
    assert (found.distinct_1, found.distinct_2) == (4 / 12, 3 / 12)
    assert found.m_bleu4 == pytest.approx(1, abs=1e-6)
    assert found.self_cider == pytest.approx(0, abs=1e-6)


def test_captions_that_share_nothing_have_all_of_it():
    found = of("a b c d", "e f g h", "i j k l")
    assert (found.distinct_1, found.distinct_2) == (1, 9 / 12)
    assert found.m_bleu4 == pytest.approx(0, abs=1e-3)
    assert found.self_cider == pytest.approx(1)


def test_more_variety_is_more_diversity():
    one, two = of("a b c d", "a b c e", "a b c f"), of("a b c d", "a x c e", "y b c f")
    assert one.distinct_1 < two.distinct_1
    assert one.m_bleu4 > two.m_bleu4
    assert 0 < one.self_cider < two.self_cider < 1


def test_images_count_alike_and_single_captions_not_at_all():
    same, other = [["a", "b"], ["a", "b"]], [["a", "b"], ["c", "d"]]
    found = diversity([same, other, [["x"]]], REFERENCES)
    assert found.distinct_1 == pytest.approx((0.5 + 1) / 2)
    assert diversity([[["x"]], []], REFERENCES) is None


def test_captions_without_words_are_no_failure():
    found = of("", "")
    assert (found.distinct_1, found.distinct_2, found.self_cider) == (0, 0, 0)


@given(angle=st.floats(0, np.pi / 2))
def test_self_cider_of_two_captions_by_hand(angle):
    """The kernel [[1, c], [c, 1]] has the eigenvalues 1 + c and 1 - c."""
    c = np.cos(angle)
    roots = np.sqrt([1 + c, max(0.0, 1 - c)])
    wanted = -np.log2(roots.max() / roots.sum())
    assert self_cider(np.array([[1, c], [c, 1]])) == pytest.approx(wanted, abs=1e-6)
