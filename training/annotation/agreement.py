"""How far annotators agree, and who rates higher or lower than the others."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from saaa.annotations import Rating


def agreement(ratings: Iterable[Rating]) -> dict[str, Any]:
    """Krippendorff's alpha of the ratings, at interval level, and each annotator's bias.

    A unit counts where at least two annotators rated it; of several ratings by one, their mean. Ratings of nobody known
    are left out.

    Returns:
        `alpha` (1 full agreement, 0 as by chance), or None with the `reason`; `units` rated by two or more;
        `annotators`: of each the number of `ratings`, of `shared` units among them, and the `bias`: by how much they
        rate higher than the others of the same unit do, on average, or None without a shared unit.
    """
    given: dict[str, dict[Any, list[float]]] = {}
    for rating in ratings:
        unit = rating.unit
        if rating.annotator is not None:
            what = unit.word if unit.position is None else unit.position
            key = (unit.image, unit.region, unit.target, what)
            given.setdefault(rating.annotator, {}).setdefault(key, []).append(rating.rating)
    means = {who: {unit: fmean(values) for unit, values in units.items()} for who, units in given.items()}
    raters: dict[Any, list[str]] = {}
    for who, units in means.items():
        for unit in units:
            raters.setdefault(unit, []).append(who)
    shared = {unit: sorted(whos) for unit, whos in raters.items() if len(whos) > 1}
    alpha, reason = _alpha([(who, unit, means[who][unit]) for unit, whos in shared.items() for who in whos])
    annotators = {}
    for who in sorted(means):
        others = [
            means[who][unit] - fmean(means[other][unit] for other in shared[unit] if other != who)
            for unit in means[who]
            if unit in shared
        ]
        annotators[who] = {
            "ratings": sum(map(len, given[who].values())),
            "shared": len(others),
            "bias": round(fmean(others), 6) if others else None,
        }
    return {"alpha": alpha, "reason": reason, "units": len(shared), "annotators": annotators}


def _alpha(ratings: list[tuple[str, Any, float]]) -> tuple[float | None, str | None]:
    if not ratings:
        return None, "no unit was rated by two known annotators"
    if len({value for *_, value in ratings}) == 1:
        return None, "all ratings are equal: there is nothing that agreement could show in"
    from nltk.metrics.agreement import AnnotationTask  # type: ignore[import-untyped]
    from nltk.metrics.distance import interval_distance  # type: ignore[import-untyped]

    units = {unit: str(number) for number, unit in enumerate(dict.fromkeys(unit for _, unit, _ in ratings))}
    task = AnnotationTask([(who, units[unit], value) for who, unit, value in ratings], distance=interval_distance)
    return round(float(task.alpha()), 6), None
