"""The best setting of a server: each is started alone and asked at the greatest concurrency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from benchmarks.serving_results import Kept
from benchmarks.serving_systems import Absent, Setting

ROUNDS = 3
"""Of each setting; the first warms up, the median of the others counts."""


async def best_setting(
    kept: Kept, name: str, settings: Sequence[Setting], rate: Callable[[Setting], Awaitable[float]]
) -> Setting:
    """The setting of the highest rate; kept, so that a later run takes it.

    Args:
        kept: where.
        name: the server's.
        settings: what it may be told; one alone is taken unseen.
        rate: starts it so, and gives its calls a second.

    Raises:
        Absent: it starts with none.
    """
    if len(settings) == 1:
        return settings[0]
    for row in kept.rows():
        if row["system"] == name:
            return Setting(**row["setting"])
    rates, reason = dict[Setting, float](), Absent()
    for setting in settings:
        try:
            rates[setting] = await rate(setting)
        except Absent as why:
            reason = why
            print(f"  {name:<20}{setting!s:<34}does not start: {why}", flush=True)
            continue
        print(f"  {name:<20}{setting!s:<34}{rates[setting]:8.1f}/s", flush=True)
    if not rates:
        raise reason
    best = max(rates, key=rates.__getitem__)
    tried = {str(setting): rate for setting, rate in rates.items()}
    kept.add({"system": name, "setting": asdict(best), "tried": tried})
    return best
