"""Self-made exports of annotation tools, with all the oddities of the published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saaa.annotations.readers import DESCRIPTION, RATING, TYPE

ODD = [
    # image, position, type, description, rating
    (1, 1, "object", "man", "4.5"),
    (1, 2, "relationship", "(man,riding,horse)", "4"),
    (1, 4, "object", "Horses ", "5"),
    (1, 5, "relationship", "(on,the,grass)", "3.5"),
    (2, 1, "attribute", "(red,bus)", "1.2"),
    (2, 2, "object", "bus", "1"),
    (2, 3, "", "(bus,on,street)", "2.6"),
    (2, 5, "object", "the", "2"),
    (3, 1, "object", "sgin", "2.4"),
    (3, 2, "object", "sign", "2"),
    (3, 3, "attribute", "white", "1"),
    (3, 4, "relationship", "(sign,next to,parking lot)", "1.5"),
    (3, 5, "relationship", "(in,front,of)", "1.6"),
]
"""Three images."""
COUNTS = {"object": 6, "relationship": 4, "attribute": 2, "": 1}


def scale(
    image: int | str, position: int, kind: Any, description: Any, rating: Any, *, id_: str | None = None
) -> dict[str, Any]:
    """One completed task of Scale's export."""
    name = f"COCO_val2014_{image:012d}" if isinstance(image, int) else image
    return {
        "task_id": id_ or f"task-{name}-{position}",
        "status": "completed",
        "metadata": {"filename": f"p1_{name}__caption_{position}_attr_result.jpg"},
        "response": {"annotations": {TYPE: kind, DESCRIPTION: description, RATING: rating}},
    }


def odd_export() -> list[dict[str, Any]]:
    """13 ratings of three images, one task with empty annotations, two without a response."""
    tasks = [scale(*row) for row in ODD]
    empty = {**scale(2, 9, "", "", ""), "response": {"annotations": {}}}
    waiting = [{**scale(3, k, "", "", ""), "status": "processing"} for k in (7, 8)]
    for task in waiting:
        del task["response"]
    return [*tasks[:5], empty, *tasks[5:], *waiting]


def studio(unit: dict[str, Any], *answers: tuple[Any, Any, Any, Any], id_: int = 1) -> dict[str, Any]:
    """One task of Label Studio's export; answers are (annotator, type, description, rating)."""
    annotations = []
    for number, (who, kind, description, rating) in enumerate(answers):
        values = (
            ("content_type", "choices", {"choices": [kind]}),
            ("content_description", "textarea", {"text": [description]}),
            ("relevance_rating", "number", {"number": rating}),
        )
        result = [{"id": "r", "from_name": n, "to_name": "picture", "type": t, "value": v} for n, t, v in values]
        annotations.append({"id": 10 * id_ + number, "completed_by": who, "was_cancelled": False, "result": result})
    return {"id": id_, "data": {"image": "/data/x.jpg", "unit": unit}, "annotations": annotations}


def facade(request: str, *, target: str = "kitchen", rating: Any = 2.5, **other: Any) -> dict[str, Any]:
    """One line of the facade's export."""
    return {
        "format": "saaa.rating.v1",
        "request_id": request,
        "recorded_at": "2026-01-31T12:00:00.000Z",
        "annotator": "a7",
        "task": "relevance",
        "relevance": {"content_type": "object", "content_description": "lamp", "relevance": rating},
        "image": {"sha256": "ab" * 32, "width": 64, "height": 48},
        "attribution": {"target": target, "target_kind": "class", "target_index": 3, "method": "grad_cam"},
        **other,
    }


def write(path: Path, records: Any) -> Path:
    """As a JSON array."""
    path.write_text(json.dumps(records), encoding="utf-8")
    return path
