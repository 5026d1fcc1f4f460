"""The Model ASG: what a model attends to in an image, as annotators of task 1 named it, with its relevance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from saaa.annotations.ratings import Rating
from saaa.role_graph import NodeKind


@dataclass(frozen=True)
class Relevance:
    """What the ratings of one node say together."""

    mean: float
    """1 to 5."""
    ratings: int

    @classmethod
    def of(cls, ratings: Sequence[float]) -> Relevance | None:
        """None without ratings."""
        return cls(sum(ratings) / len(ratings), len(ratings)) if ratings else None

    def to_json(self) -> dict[str, Any]:
        return {"relevance": round(self.mean, 6), "ratings": self.ratings}


@dataclass(frozen=True)
class RatedObject:
    """An object that the model attends to; without relevance where only pairs and relationships name it."""

    name: str
    relevance: Relevance | None
    attributes: tuple[tuple[str, Relevance], ...] = ()


@dataclass(frozen=True)
class RatedRelationship:
    """A relationship; an end that nobody named is None."""

    subject: str | None
    name: str
    object: str | None
    relevance: Relevance


@dataclass(frozen=True)
class ModelAsg:
    """What a model attends to in one image, or one region of it. Names are unique; nothing has a box."""

    image: str
    region: str | None
    objects: tuple[RatedObject, ...]
    relationships: tuple[RatedRelationship, ...]
    unnamed: tuple[tuple[str, Relevance], ...]
    """Attributes of which nobody said whose they are, and what names nothing at all ("")."""

    def to_json(self) -> dict[str, Any]:
        """As in model_asg.json; keys as in the published region format, without ids and boxes."""
        return {
            "image": self.image,
            "region": self.region,
            "objects": [
                {
                    "name": thing.name,
                    **(thing.relevance.to_json() if thing.relevance else {"relevance": None, "ratings": 0}),
                    "attributes": [{"name": name, **relevance.to_json()} for name, relevance in thing.attributes],
                }
                for thing in self.objects
            ],
            "relationships": [
                {"subject": link.subject, "name": link.name, "object": link.object, **link.relevance.to_json()}
                for link in self.relationships
            ],
            "unnamed": [{"name": name, **relevance.to_json()} for name, relevance in self.unnamed],
        }


def by_instance(ratings: Iterable[Rating]) -> dict[tuple[str, str | None], list[Rating]]:
    """The ratings of each image, or of each region where they name one, in the order of the first rating."""
    found: dict[tuple[str, str | None], list[Rating]] = {}
    for rating in ratings:
        found.setdefault((rating.unit.image, rating.unit.region), []).append(rating)
    return found


def model_asgs(ratings: Iterable[Rating]) -> list[ModelAsg]:
    """The Model ASG of every instance; several ratings of one node are averaged."""
    return [_model_asg(image, region, rated) for (image, region), rated in by_instance(ratings).items()]


def _model_asg(image: str, region: str | None, ratings: Sequence[Rating]) -> ModelAsg:
    objects: dict[str, list[float]] = {}
    attributes: dict[tuple[str, str], list[float]] = {}
    links: dict[tuple[str | None, str, str | None], list[float]] = {}
    unnamed: dict[str, list[float]] = {}
    for rating in ratings:
        content = rating.content
        for name in content.objects:
            objects.setdefault(name, [])
        if content.kind is NodeKind.RELATIONSHIP and content.predicate:
            links.setdefault((content.subject, content.predicate, content.target), []).append(rating.rating)
        elif content.subject is None:
            unnamed.setdefault(content.predicate or "", []).append(rating.rating)
        elif content.kind is NodeKind.ATTRIBUTE and content.predicate:
            attributes.setdefault((content.subject, content.predicate), []).append(rating.rating)
        else:
            objects[content.subject].append(rating.rating)
    return ModelAsg(
        image,
        region,
        tuple(
            RatedObject(name, Relevance.of(rated), tuple((a, _of(r)) for (o, a), r in attributes.items() if o == name))
            for name, rated in objects.items()
        ),
        tuple(RatedRelationship(*ends, _of(rated)) for ends, rated in links.items()),
        tuple((name, _of(rated)) for name, rated in unnamed.items()),
    )


def _of(ratings: Sequence[float]) -> Relevance:
    found = Relevance.of(ratings)
    assert found is not None, "a node is made by its first rating"
    return found
