"""Checks that the options of all jobs share."""

from __future__ import annotations

from saaa.errors import OptionInvalid


def check(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a number outside its range; None, an option left open, passes.

    Raises:
        OptionInvalid: with the range in words.
    """
    if value is None:
        return
    rules = [
        (at_least, "at least", lambda bound: value >= bound),
        (above, "above", lambda bound: value > bound),
        (at_most, "at most", lambda bound: value <= bound),
        (below, "below", lambda bound: value < bound),
    ]
    wanted = [(words, bound, test(bound)) for bound, words, test in rules if bound is not None]
    if not all(met for _, _, met in wanted):
        range_ = " and ".join(f"{words} {bound:g}" for words, bound, _ in wanted)
        raise OptionInvalid(f"{name} is {value:g}; it must be {range_}.", field=name)
