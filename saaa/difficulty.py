"""How hard images are for a model, from people's ratings of what it attends to; and which concepts mislead it.

Two scorers. `mean_relevance` is the published script's: the mean rating over 5, where high is easy; it ignores what the
ratings are about. `estimate` follows RA3's figure (c, d), which asks for a relation-aware estimate: a unit rated r is
(5 - r) / 4 difficult; an object is as difficult as its own units and those of its attributes and relationships;
an instance as its hardest object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, cast, get_args

from saaa.annotations.model_asg import by_instance
from saaa.annotations.ratings import HIGHEST, LOWEST, Rating
from saaa.errors import OptionInvalid
from saaa.role_graph import NodeKind

Aggregate = Literal["mean", "max", "share"]
Rule = Literal["tau", "gap"]
Verdict = Literal["valid", "confounded", "undecided"]
NEUTRAL = (LOWEST + HIGHEST) / 2
Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class DifficultyOptions:
    """How to estimate difficulty.

    Raises:
        OptionInvalid: a value outside its range.
    """

    alpha: float = 0.5
    """Weight of an object's attributes and relationships against the units that name the object itself, 0 to 1."""
    rule: Rule = "tau"
    """Hard is what reaches `tau`, or what lies above the largest gap between neighbouring values."""
    tau: float = 0.5
    """0 to 1."""
    aggregate: Aggregate = "max"
    """An instance's difficulty: the mean or the maximum of its objects', or the share of hard objects. By the maximum
    it is hard as soon as one of its objects is; the mean dilutes that one among the others."""

    def __post_init__(self) -> None:
        for name in ("alpha", "tau"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionInvalid(f"{name} is {getattr(self, name):g}; it must be from 0 to 1.", field=name)


@dataclass(frozen=True)
class ObjectDifficulty:
    """One object of an instance."""

    name: str
    difficulty: float
    """0 easy to 1."""
    hard: bool
    units: int
    """Ratings that name the object itself."""
    incident: int
    """Ratings of its attributes and relationships."""


@dataclass(frozen=True)
class InstanceDifficulty:
    """An image, or a region of one."""

    image: str
    region: str | None
    difficulty: float
    """0 easy to 1. Where no rating names an object, the mean over its units."""
    hard: bool
    mean_relevance: float
    """The published score, mean rating / 5: from 0.2 to 1, high is easy."""
    ratings: int
    objects: tuple[ObjectDifficulty, ...]

    @property
    def weight(self) -> float:
        """What it may weigh in training when hard instances shall count less: 1 - difficulty."""
        return 1 - self.difficulty

    def to_json(self) -> dict[str, Any]:
        """As in difficulty.json."""
        return {
            "image": self.image,
            "region": self.region,
            "difficulty": round(self.difficulty, 6),
            "hard": self.hard,
            "weight": round(self.weight, 6),
            "mean_relevance": round(self.mean_relevance, 6),
            "ratings": self.ratings,
            "objects": [
                {
                    "name": thing.name,
                    "difficulty": round(thing.difficulty, 6),
                    "hard": thing.hard,
                    "units": thing.units,
                    "incident": thing.incident,
                }
                for thing in self.objects
            ],
        }


@dataclass(frozen=True)
class Difficulty:
    """The estimate for all instances, the hardest first."""

    instances: tuple[InstanceDifficulty, ...]
    object_threshold: float
    """Objects from here on are hard."""
    instance_threshold: float


def unit_difficulty(rating: float) -> float:
    """A rating of 1 to 5 as a difficulty of 1 to 0."""
    return (HIGHEST - rating) / (HIGHEST - LOWEST)


def mean_relevance(ratings: Sequence[float]) -> float:
    """The published script's score of an instance: mean / 5."""
    return fmean(ratings) / HIGHEST


def estimate(ratings: Iterable[Rating], options: DifficultyOptions | None = None) -> Difficulty:
    """Estimate the difficulty of every instance that has a rating.

    An object with units of one sort only (itself, or its attributes and relationships) is as difficult as these.
    """
    options = options or DifficultyOptions()
    instances = by_instance(ratings)
    of_objects = {key: _objects(rated, options.alpha) for key, rated in instances.items()}
    hard = threshold([value for things in of_objects.values() for value, *_ in things.values()], options)
    objects = {
        key: tuple(ObjectDifficulty(n, value, value >= hard, *counts) for n, (value, *counts) in things.items())
        for key, things in of_objects.items()
    }
    values = {key: _instance(objects[key], instances[key], options.aggregate) for key in instances}
    hard_instance = threshold(list(values.values()), options)
    found = [
        InstanceDifficulty(
            image=image,
            region=region,
            difficulty=value,
            hard=value >= hard_instance,
            mean_relevance=mean_relevance([r.rating for r in instances[image, region]]),
            ratings=len(instances[image, region]),
            objects=tuple(sorted(objects[image, region], key=lambda o: (-o.difficulty, o.name))),
        )
        for (image, region), value in values.items()
    ]
    order = sorted(found, key=lambda i: (-i.difficulty, i.image, i.region or ""))
    return Difficulty(tuple(order), hard, hard_instance)


def _objects(ratings: Sequence[Rating], alpha: float) -> dict[str, tuple[float, int, int]]:
    """Of each object its difficulty, and how many units name it and are incident to it."""
    own: dict[str, list[float]] = {}
    incident: dict[str, list[float]] = {}
    for rating in ratings:
        to = own if rating.content.kind is NodeKind.OBJECT else incident
        for name in rating.content.objects:
            to.setdefault(name, []).append(unit_difficulty(rating.rating))
    found = {}
    for name in dict.fromkeys((*own, *incident)):
        a, b = own.get(name, []), incident.get(name, [])
        value = (1 - alpha) * fmean(a) + alpha * fmean(b) if a and b else fmean(a or b)
        found[name] = (value, len(a), len(b))
    return found


def _instance(objects: Sequence[ObjectDifficulty], ratings: Sequence[Rating], aggregate: Aggregate) -> float:
    if not objects:
        return fmean(unit_difficulty(rating.rating) for rating in ratings)
    if aggregate == "share":
        return fmean(thing.hard for thing in objects)
    values = [thing.difficulty for thing in objects]
    return max(values) if aggregate == "max" else fmean(values)


def threshold(values: Sequence[float], options: DifficultyOptions) -> float:
    """From which value on something is hard: tau; or the middle of the largest gap between neighbours.

    Of equal gaps the highest counts; with fewer than two different values there is no gap, and tau counts.
    """
    ordered = sorted(set(values))
    if options.rule == "tau" or len(ordered) < 2:
        return options.tau
    gaps = [(high - low, low) for low, high in pairwise(ordered)]
    width, low = max(gaps)
    return low + width / 2


def wilson(share: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share among `count`; (0, 1) for a count of 0.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 1.0
    spread = z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Concept:
    """What a model uses when it predicts a class, as annotators named it."""

    name: str
    """An object; "(object, attribute)"; or "(object, relationship, object)"."""
    kind: str
    support: int
    """Ratings."""
    mean: float
    """Rating, 1 to 5."""
    irrelevant: float
    """Share of ratings below 3, which say that the class does not show there; a 3 counts half."""
    interval: tuple[float, float]
    """Wilson's, 95 %, of `irrelevant`."""
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "concept": self.name,
            "kind": self.kind,
            "support": self.support,
            "mean": round(self.mean, 6),
            "irrelevant": round(self.irrelevant, 6),
            "interval": [round(bound, 6) for bound in self.interval],
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Concept:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it gave something else.
        """
        low, high = map(float, told["interval"])
        name, kind, verdict = (str(told[key]) for key in ("concept", "kind", "verdict"))
        if verdict not in get_args(Verdict):
            raise ValueError(f"there is no verdict {verdict!r}")
        mean, irrelevant = float(told["mean"]), float(told["irrelevant"])
        return cls(name, kind, int(told["support"]), mean, irrelevant, (low, high), cast("Verdict", verdict))


def concepts(ratings: Iterable[Rating]) -> dict[str, tuple[Concept, ...]]:
    """The valid and the confounded set of each class, from ratings of class attributions.

    A concept is confounded (the model uses it, and it does not show the class) where the whole interval of the share of
    ratings below 3 lies above one half, valid where it lies below. So one rating never decides, and four that agree do.

    Returns:
        By class: confounded, then valid, then undecided concepts, those with most support first.
    """
    rated: dict[str, dict[tuple[str, str], list[float]]] = {}
    for rating in ratings:
        content, unit = rating.content, rating.unit
        if unit.target == "class" and unit.word and content.kind is not None and str(content):
            key = str(content), content.kind.name.lower()
            rated.setdefault(unit.word, {}).setdefault(key, []).append(rating.rating)
    order = ("confounded", "valid", "undecided")
    return {
        word: tuple(
            sorted(
                (_concept(*key, given) for key, given in named.items()),
                key=lambda c: (order.index(c.verdict), -c.support, c.name),
            )
        )
        for word, named in sorted(rated.items())
    }


def _concept(name: str, kind: str, given: Sequence[float]) -> Concept:
    share = fmean((rating < NEUTRAL) + (rating == NEUTRAL) / 2 for rating in given)
    low, high = wilson(share, len(given))
    verdict: Verdict = "confounded" if low > 0.5 else "valid" if high < 0.5 else "undecided"
    return Concept(name, kind, len(given), fmean(given), share, (low, high), verdict)
