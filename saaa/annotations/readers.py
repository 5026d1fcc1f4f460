"""Exports of annotation tools, each with a reader: Scale's tasks.json, Label Studio's JSON, the facade's ratings.

A reader knows where a tool keeps what; `saaa.annotations.ratings` understands what people typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from saaa.annotations.content import clean
from saaa.annotations.drawing import read_drawing
from saaa.annotations.ratings import (
    MAX_ID,
    Answer,
    AnswerRejected,
    Rationale,
    Unit,
    check_image,
)
from saaa.checks import show
from saaa.errors import SceneGraphError
from saaa.scene_graph import SceneGraph

TYPE, DESCRIPTION, RATING = "Content Type Identification", "Content Description", "Relevance Rating"
"""The questions of task 1, by their published names."""
STUDIO_TYPE, STUDIO_DESCRIPTION, STUDIO_RATING = "content_type", "content_description", "relevance_rating"
"""The same in Label Studio's labeling configuration, which wants names without spaces."""
FACADE_FORMAT = "saaa.rating.v1"
_FILE_NAME = re.compile(
    r"(?:p\d+_)?(?P<image>.+?)__(?P<target>caption|class)_(?P<position>\d{1,6})_attr_result(?:\.\w+)?$"
)


Found = Answer | Rationale | AnswerRejected


class Reader(Protocol):
    """Reads the records of one tool."""

    def recognises(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of this tool."""

    def answers(self, record: Mapping[str, Any]) -> Iterator[Found]:
        """The answers in a record, or why one of them is none.

        Raises:
            AnswerRejected: there is none.
        """


class ScaleReader:
    """Scale's tasks.json, as published: `metadata.filename` says what was shown, `response.annotations` answers.

    Files that `saaa-train annotate export` wrote say more in `metadata.unit`.
    """

    def recognises(self, record: Mapping[str, Any]) -> bool:
        return "task_id" in record or ("metadata" in record and "response" in record)

    def answers(self, record: Mapping[str, Any]) -> Iterator[Found]:
        response = record.get("response")
        if response is None:
            status = record.get("status")
            raise AnswerRejected(f"it has no response{f' (status {clean(str(status))[:20]})' if _text(status) else ''}")
        typed = response.get("annotations") if isinstance(response, Mapping) else None
        if not isinstance(typed, Mapping):
            raise AnswerRejected("its response holds no annotations")
        if not typed:
            raise AnswerRejected("its annotations are empty")
        unit = _unit(record.get("metadata"))
        yield Answer(
            id=record_id(record) or unit.image,
            unit=unit,
            kind=_first(typed.get(TYPE)),
            description=_first(typed.get(DESCRIPTION)),
            rating=_first(typed.get(RATING)),
            annotator=_annotator(record.get("annotator")),
        )


class LabelStudioReader:
    """Label Studio's JSON export: `data` says what was shown, each of `annotations` is a person's answer."""

    def recognises(self, record: Mapping[str, Any]) -> bool:
        return isinstance(record.get("data"), Mapping) and "annotations" in record

    def answers(self, record: Mapping[str, Any]) -> Iterator[Found]:
        annotations = record["annotations"]
        if not isinstance(annotations, list) or not annotations:
            raise AnswerRejected("its annotations are empty")
        unit = _unit(record["data"])
        size = record["data"].get("width"), record["data"].get("height")
        task = record_id(record) or unit.image
        for number, annotation in enumerate(annotations, 1):
            if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
                yield AnswerRejected(f"annotation {number} holds no result")
                continue
            if annotation.get("was_cancelled"):
                yield AnswerRejected(f"annotation {number} was skipped by the annotator")
                continue
            who = _annotator(annotation.get("completed_by"))
            named: dict[str, Any] = {"id": f"{task}/{record_id(annotation) or number}", "annotator": who}
            if (drawn := read_drawing(annotation["result"], size)) is not None:
                yield _rationale(drawn, unit, **named)
                continue
            typed = dict(map(_control, annotation["result"]))
            if not typed.keys() & {STUDIO_TYPE, STUDIO_DESCRIPTION, STUDIO_RATING}:
                yield AnswerRejected(f"annotation {number} answers none of the questions")
                continue
            yield Answer(
                unit=unit,
                kind=typed.get(STUDIO_TYPE),
                description=typed.get(STUDIO_DESCRIPTION),
                rating=typed.get(STUDIO_RATING),
                **named,
            )


class FacadeReader:
    """The facade's ratings, as `saaa ratings export` writes them. An image is known by its digest only."""

    def recognises(self, record: Mapping[str, Any]) -> bool:
        return bool(record.get("format") == FACADE_FORMAT)

    def answers(self, record: Mapping[str, Any]) -> Iterator[Found]:
        image, shown = record.get("image"), record.get("attribution")
        digest = image.get("sha256") if isinstance(image, Mapping) else None
        named: dict[str, Any] = {"id": record_id(record), "annotator": _annotator(record.get("annotator"))}
        told: Mapping[str, Any] = shown if isinstance(shown, Mapping) else {}
        position = told.get("target_index")
        unit = Unit(
            image=check_image(digest),
            target=kind if (kind := told.get("target_kind")) in ("class", "node") else "word",
            position=position if isinstance(position, int) and position >= 0 else None,
            word=clean(told["target"])[:100] if _text(told.get("target")) else None,
        )
        if record.get("task") == "human_graph":
            yield _rationale(record.get("human_graph"), unit, **named)
            return
        answer = record.get("relevance")
        if not isinstance(answer, Mapping):
            raise AnswerRejected("it holds neither a rating nor a graph")
        yield Answer(
            unit=unit,
            kind=answer.get("content_type"),
            description=answer.get("content_description"),
            rating=answer.get("relevance"),
            **named,
        )


READERS: tuple[Reader, ...] = (FacadeReader(), ScaleReader(), LabelStudioReader())
"""The tools whose exports are read; the first that recognises a record reads it."""


def _rationale(graph: Any, unit: Unit, *, id: str, annotator: str | None) -> Rationale | AnswerRejected:
    """A Human ASG in the published region format, checked."""
    try:
        read = SceneGraph.from_region(graph)
    except SceneGraphError as error:
        where = f" ({error.field})" if error.field else ""
        return AnswerRejected(f"its graph is not valid: {error.message}{where}")
    return Rationale(id=id, image=unit.image, region=unit.region, graph=read, annotator=annotator)


def _control(item: Any) -> tuple[str, Any]:
    """A control's name and value in a Label Studio result; "" where it is none."""
    value = item.get("value") if isinstance(item, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(item.get("from_name"), str):
        return "", None
    found = (_first(value[key]) for key in ("choices", "text", "number", "rating") if key in value)
    return item["from_name"], next(found, None)


def record_id(record: Mapping[str, Any]) -> str:
    """A record's id on one line; "" without one."""
    for key in ("task_id", "request_id", "id"):
        value = record.get(key)
        if isinstance(value, str) or (isinstance(value, int) and abs(value) < 10**18):
            return clean(str(value)[:MAX_ID])
    return ""


def _unit(told: Any) -> Unit:
    """What a task showed, from what the export says of it: our own note, or the picture's published name.

    Raises:
        AnswerRejected: it does not say.
    """
    if not isinstance(told, Mapping):
        raise AnswerRejected("it does not say of which image it is")
    if isinstance(note := told.get("unit"), Mapping):
        position = note.get("position")
        return Unit(
            image=check_image(note.get("image")),
            region=_region(note.get("region")),
            target="class" if note.get("target") == "class" else "word",
            position=position if isinstance(position, int) and 0 <= position < 10**6 else None,
            word=clean(note["word"])[:100] if _text(note.get("word")) else None,
        )
    name = told.get("filename")
    if not isinstance(name, str):
        name = str(told.get("image", "")).rsplit("/", 1)[-1] or None
    check_image(name)
    match = _FILE_NAME.match(str(name))
    if match is None:
        raise AnswerRejected(f"the picture {show(name)} is not named like p1_<image>__caption_<number>_attr_result.jpg")
    return Unit(
        image=check_image(match["image"]),
        target="class" if match["target"] == "class" else "word",
        position=int(match["position"]),
    )


def _region(value: Any) -> str | None:
    return str(value)[:100] if isinstance(value, str) or (isinstance(value, int) and abs(value) < 10**18) else None


def _annotator(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("id")
    return clean(str(value))[:100] if _text(value) or (isinstance(value, int) and abs(value) < 10**18) else None


def _first(value: Any) -> Any:
    """A value, or the first of a list of them."""
    return (value[0] if value else None) if isinstance(value, list) else value


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
