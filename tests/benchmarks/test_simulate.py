"""The real facade beside its simulation, for seconds: both are asked the same, and each request has its outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("simpy")
pytest.importorskip("torch")

from benchmarks.simulate import DRAWS, Options, validate
from saaa.work import Work


@pytest.mark.slow
async def test_both_are_asked_the_same(tmp_path: Path) -> None:
    found = await validate(Options(output=tmp_path, parts=(60,), part_s=6, loop_s=0.3))
    assert len(found.real) > 0
    assert len(found.simulated) == len(found.replayed) == DRAWS * len(found.real)
    for work in (Work.PREDICT, Work.EXPLAIN):
        asked = sum(each.work is work for each in found.real)
        assert sum(each.work is work for each in found.simulated) == DRAWS * asked
    costs = found.seen.costs()
    assert 0 < costs.mean(Work.PREDICT, 1) < costs.mean(Work.EXPLAIN, 4)
    assert found.start_s > 0
