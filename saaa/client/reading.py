"""An analysis back from its JSON: the inverse of `Analysis.to_json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saaa.client.attributions import Attribution, Concept, Faithfulness, Node, Prediction, Region, WordTarget
from saaa.client.results import (
    Analysis,
    Caption,
    CaptionWord,
    Graph,
    GraphObject,
    GraphRelationship,
    ModelProvenance,
    Provenance,
)


def read_analysis(data: Mapping[str, Any]) -> Analysis:
    """The analysis that `to_json` wrote: its arrays are the same, and it gives the same JSON again.

    Args:
        data: what `Analysis.to_json` gave, also after a way through a file.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    graph, used = data["graph"], data["provenance"]
    return Analysis(
        request_id=data["request_id"],
        image_width=data["image"]["width"],
        image_height=data["image"]["height"],
        predictions=tuple(Prediction(**entry) for entry in data["predictions"]),
        attributions=tuple(_attribution(entry) for entry in data["attributions"]),
        captions=tuple(_caption(entry) for entry in data["captions"]),
        graph=None if graph is None else _graph(graph),
        graph_source=data["graph_source"],
        caption_nodes=tuple(Node(**entry) for entry in data["caption_nodes"]),
        provenance=Provenance(
            **{**used, **{role: _model(used[role]) for role in ("classifier", "captioner")}},
        ),
        timings=data["timings"],
    )


def _attribution(data: Mapping[str, Any]) -> Attribution:
    target: Prediction | WordTarget | Node
    if data["target_kind"] == "class":
        target = Prediction(label=data["target"], index=data["target_index"], probability=data["target_probability"])
    elif data["target_kind"] == "word":
        target = WordTarget(index=data["target_index"], text=data["target"])
    else:
        target = Node(**data["target_node"])
    return Attribution(
        target=target,
        method=data["method"],
        grid=np.array(data["grid"], np.float32),
        region=Region(**data["region"]),
        concepts=tuple(Concept(**{**entry, "node": Node(**entry["node"])}) for entry in data["concepts"]),
        node_weights=np.array(data["node_weights"], np.float32),
        faithfulness=tuple(Faithfulness(**entry) for entry in data["faithfulness"]),
        concept_agreement=data["concept_agreement"],
    )


def _caption(data: Mapping[str, Any]) -> Caption:
    words: Sequence[Mapping[str, Any]] = data["words"]
    return Caption(
        text=data["text"],
        words=tuple(
            CaptionWord(
                text=word["text"],
                log_probability=word["log_probability"],
                node_weights=np.array(word["node_weights"], np.float32),
            )
            for word in words
        ),
        log_probability=data["log_probability"],
    )


def _graph(region: Mapping[str, Any]) -> Graph:
    return Graph(
        objects=tuple(
            GraphObject(
                id=thing["object_id"],
                name=thing["name"],
                attributes=tuple(thing["attributes"]),
                x=thing["x"],
                y=thing["y"],
                width=thing["w"],
                height=thing["h"],
            )
            for thing in region["objects"]
        ),
        relationships=tuple(
            GraphRelationship(
                id=link["relationship_id"],
                subject_id=link["subject_id"],
                object_id=link["object_id"],
                name=link["name"],
            )
            for link in region["relationships"]
        ),
    )


def _model(data: Mapping[str, Any] | None) -> ModelProvenance | None:
    return None if data is None else ModelProvenance(**data)
