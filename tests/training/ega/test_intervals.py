import numpy as np
import pytest

from training.ega.intervals import difference_interval, ratio_interval

RNG = np.random.default_rng(0)
BELOW = RNG.uniform(50, 150, 400)
ABOVE = 2 * BELOW + RNG.normal(0, 20, 400)


def test_the_interval_holds_the_ratio_and_shrinks_to_it():
    low, high = ratio_interval(ABOVE, BELOW, seed=1, resamples=500)
    assert low < ABOVE.mean() / BELOW.mean() < high
    assert high - low < 0.1
    assert ratio_interval(3 * BELOW, BELOW, seed=1, resamples=50) == pytest.approx((3.0, 3.0))


def test_the_interval_has_no_upper_end_when_nothing_is_below():
    low, high = ratio_interval(np.ones(5), np.zeros(5), seed=0, resamples=20)
    assert low == high == np.inf


def test_differences_are_drawn_in_pairs():
    """What all regions have in common falls out: the interval is that of the differences alone."""
    low, high = difference_interval(BELOW + 3 + RNG.normal(0, 1, 400), BELOW, seed=1, resamples=500)
    assert low < 3 < high
    assert high - low == pytest.approx(2 * 1.96 * 1 / 20, rel=0.3)  # standard error 1 / sqrt(400)
    assert difference_interval(BELOW + 3, BELOW, seed=1, resamples=50) == pytest.approx((3.0, 3.0))


def test_regions_of_one_image_are_drawn_together():
    """Four copies of each value tell no more than one: the interval is as wide as without them."""
    noise = RNG.normal(0, 10, 100)
    alone = difference_interval(noise, np.zeros(100), seed=1, resamples=400)
    images = np.repeat(np.arange(100), 4).tolist()
    assert difference_interval(noise.repeat(4), np.zeros(400), images=images, seed=1, resamples=400) == pytest.approx(
        alone
    )
    low, high = difference_interval(noise.repeat(4), np.zeros(400), seed=1, resamples=400)
    assert high - low < 0.65 * (alone[1] - alone[0])


def test_images_of_several_sizes_weigh_by_their_regions():
    """Every resample draws the one image alone, so the interval is the mean over its regions."""
    assert difference_interval([1, 2, 6], [0, 0, 0], images=["a"] * 3, seed=0, resamples=9) == (3.0, 3.0)
