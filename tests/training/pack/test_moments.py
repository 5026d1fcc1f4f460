"""Mean and deviation of features that come part by part, against the plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.pack.moments import Moments


@given(st.lists(st.lists(st.tuples(st.integers(-1000, 1000), st.integers(1, 4)), min_size=1), min_size=1, max_size=6))
def test_parts_join_to_the_whole(parts: list[list[tuple[int, int]]]) -> None:
    moments = Moments()
    for part in parts:
        values, counts = zip(*part, strict=True)
        rows = np.array([[value / 7, 3.0, -value] for value in values], np.float32)
        moments.add(rows, np.array(counts))
    every = np.array([value for part in parts for value, count in part for _ in range(count)], np.float64)
    whole = np.stack([(every / 7).astype(np.float32), np.full(len(every), 3.0), -every], axis=1)
    np.testing.assert_allclose(moments.finish(), [whole.mean(0), whole.std(0)], rtol=1e-9, atol=1e-6)


def test_a_large_mean_costs_no_precision() -> None:
    moments = Moments()
    for value in (4096.0, 4097.0, 4098.0):
        moments.add(np.full((1, 1), value, np.float32), np.array([1000]))
    np.testing.assert_allclose(moments.finish()[:, 0], [4097, np.sqrt(2 / 3)], rtol=1e-12)
