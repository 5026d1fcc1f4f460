"""Answers of people as typed, and as understood."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from saaa.annotations.content import (
    MAX_TEXT,
    Content,
    clean,
    plurals,
    read_content,
    read_kind,
    rename,
    slips,
    split,
)
from saaa.checks import show
from saaa.role_graph import NodeKind
from saaa.scene_graph import SceneGraph

LOWEST, HIGHEST = 1.0, 5.0
"""Relevance: strongly disagree to strongly agree that the prompt word fits the highlighted area."""
MAX_ID = 200
"""Characters of an id or a file name."""
_NUMBER = re.compile(r"\s*([+-]?\d{1,9}(?:[.,]\d{0,9})?)\s*(?:/\s*5)?\s*$", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What was shown: an image with the area highlighted that a model looked at for one target."""

    image: str
    """Its id: the file's name without ".jpg", or its path in the data set."""
    region: str | None = None
    target: Literal["word", "class", "node"] = "word"
    """A word of the model's caption, a class, or a node of its graph."""
    position: int | None = None
    """Of the word in the model's caption, from 0; of the class among the model's."""
    word: str | None = None
    """The prompt word; of a class or node its name. Unknown where the export names only the position."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as it came: every field that a person typed is still what they typed."""

    id: str
    unit: Unit
    kind: Any
    description: Any
    rating: Any
    annotator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rationale:
    """An answer of task 2: a Human ASG, what the model should attend to."""

    id: str
    image: str
    region: str | None
    graph: SceneGraph
    """Boxes in pixels of the upright image."""
    annotator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One answer as it is understood."""

    id: str
    unit: Unit
    stated: NodeKind | None
    """The content type that the annotator gave."""
    content: Content
    typed: str
    """The description as typed, on one line."""
    rating: float
    """1 to 5."""
    annotator: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a line of ratings.jsonl."""
        unit, content = self.unit, self.content
        return {
            **{"id": self.id, "image": unit.image, "region": unit.region},
            **{"target": unit.target, "position": unit.position, "word": unit.word},
            "type": "" if self.stated is None else self.stated.name.lower(),
            "kind": None if content.kind is None else content.kind.name.lower(),
            **{"subject": content.subject, "predicate": content.predicate, "object": content.target},
            **{"description": self.typed, "rating": self.rating, "annotator": self.annotator},
        }


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A record that was repaired or set aside, and why."""

    source: str
    """File, or store."""
    record: int
    """Its number there, from 1."""
    id: str
    kept: bool
    """Whether its rating counts: repaired, not set aside."""
    reason: str


class AnswerRejected(ValueError):
    """An answer that cannot count; the text says why."""


def read_rating(value: Any) -> tuple[float, str | None]:
    """The rating that somebody typed, and what was repaired of it.

    Numbers, "4.4", "4,4" and "4/5" are read.

    Raises:
        AnswerRejected: it is no number from 1 to 5.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise AnswerRejected("it has no rating")
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e6 else math.inf
    elif isinstance(value, str) and (match := _NUMBER.match(value)):
        number = float(match[1].replace(",", "."))
    if number is None or math.isnan(number):
        raise AnswerRejected(f"its rating {show(value)} is no number")
    if not LOWEST <= number <= HIGHEST:
        raise AnswerRejected(f"its rating {show(value)} is outside {LOWEST:g} to {HIGHEST:g}")
    odd = isinstance(value, str) and bool(set(value) & set(",/"))
    return number, f"rating {show(value)} read as {number:g}" if odd else None


def check_image(name: Any) -> str:
    """An image's id that may stand in a file name.

    Raises:
        AnswerRejected: it is no text, too long, or a path that climbs out of its folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise AnswerRejected("it does not say of which image it is")
    if len(name) > MAX_ID or name != clean(name):
        raise AnswerRejected(f"its image name {show(name)} is too long or holds odd characters")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise AnswerRejected(f"its image name {show(name)} is no name but a path")
    return name


def understand(answers: Sequence[Answer]) -> list[tuple[Rating | None, list[str]]]:
    """Read the answers, all together: what one says helps to read another.

    Objects that people name in an image tell, in a pair of object and attribute, which is which; words written once are
    slips of words written more often; a plural is the object that others of the image call by its singular.

    Returns:
        For each answer its rating, or None where it cannot count, and what was repaired or is wrong with it.
    """
    heard = [_hear(answer) for answer in answers]
    typed = [" ".join(split(h.typed)) for h in heard]
    misspelt = slips(typed)
    objects = _objects(heard, misspelt)
    return [_read(h, misspelt, objects.get((h.answer.unit.image, h.answer.unit.region), frozenset())) for h in heard]


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """An answer on the way to a rating."""

    answer: Answer
    rating: float | None
    stated: NodeKind | None
    typed: str
    repaired: tuple[str, ...]
    """Or, without rating, why there is none."""


def _hear(answer: Answer) -> _Heard:
    repaired: list[str] = []
    description = answer.description
    if not isinstance(description, str):
        if description is not None:
            repaired.append(f"its description is {show(description)}, no text")
        description = ""
    typed = clean(description)
    if len(typed) > MAX_TEXT:
        typed = typed[:MAX_TEXT]
        repaired.append(f"its description was cut to {MAX_TEXT} characters")
    stated, what = read_kind(answer.kind if isinstance(answer.kind, str) else "")
    try:
        rating, how = read_rating(answer.rating)
    except AnswerRejected as error:
        return _Heard(answer=answer, rating=None, stated=stated, typed=typed, repaired=(str(error),))
    repaired += [r for r in (what, how) if r]
    return _Heard(answer=answer, rating=rating, stated=stated, typed=typed, repaired=tuple(repaired))


def _objects(heard: Iterable[_Heard], misspelt: dict[str, str]) -> dict[tuple[str, str | None], frozenset[str]]:
    """What people of each image call an object without doubt: the name of an object, or an end of a relationship."""
    found: dict[tuple[str, str | None], set[str]] = {}
    for h in heard:
        if h.stated in (NodeKind.OBJECT, NodeKind.RELATIONSHIP):
            content, _ = read_content(h.stated, _spelt(h.typed, misspelt))
            found.setdefault((h.answer.unit.image, h.answer.unit.region), set()).update(content.objects)
    return {image: frozenset(names) for image, names in found.items()}


def _spelt(typed: str, misspelt: dict[str, str]) -> str:
    return re.sub(r"[^\s,;|()]+", lambda m: misspelt.get(m[0].lower(), m[0]), typed)


def _read(heard: _Heard, misspelt: dict[str, str], objects: frozenset[str]) -> tuple[Rating | None, list[str]]:
    repaired = list(heard.repaired)
    if heard.rating is None:
        return None, repaired
    spelt = _spelt(heard.typed, misspelt)
    if spelt != heard.typed:
        repaired.append(f"{show(heard.typed)} read as {show(spelt)}")
    content, how = read_content(heard.stated, spelt, objects)
    same = plurals({*objects, *content.objects})
    return (
        Rating(
            id=heard.answer.id,
            unit=heard.answer.unit,
            stated=heard.stated,
            content=rename(content, same),
            typed=heard.typed,
            rating=heard.rating,
            annotator=heard.answer.annotator,
        ),
        repaired + how,
    )
