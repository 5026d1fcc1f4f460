"""How `benchmarks.speed` measures: calls in turn, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

WARM_UP = 2

Call = Callable[[], object]


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median processor time of each call in ms; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= WARM_UP:
                times[name].append(time.process_time() - start)
    return {name: round(1000 * statistics.median(found), 2) for name, found in times.items()}
