"""Checks that the options of all jobs share."""

from __future__ import annotations

import operator

from saaa.errors import OptionInvalid


def check(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Refuse a number outside its range; None, an option left open, passes.

    Raises:
        OptionInvalid: with the range in words.
    """
    if value is None:
        return
    rules = [
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    ]
    wanted = [(words, bound, meets(value, bound)) for words, bound, meets in rules if bound is not None]
    if not all(met for _, _, met in wanted):
        range_ = " and ".join(f"{words} {bound:g}" for words, bound, _ in wanted)
        raise OptionInvalid(f"{name} is {value:g}; it must be {range_}{hint and f': {hint}'}.", field=name)
