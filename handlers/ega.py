"""The handler of EGA archives.

REST: JSON {"image": base64, "graph": region JSON}, or multipart fields of these names, answers

    {"model": {"name", "version", "digest"}, "graph_source": "GIVEN",
     "captions": [{"text", "words", "log_probability", "nodes", "node_weights"}]}

with one row of "node_weights" a word and one column a node. A bare picture (`curl -T photo.jpg ...`) is
captioned along the graph of one object that fills it; "graph_source" is "WHOLE_IMAGE" then.
"""

from __future__ import annotations

import json
from typing import Any

from handlers.base import Form, Handler, fields, picture
from saaa.errors import SceneGraphError
from saaa.scene_graph import Box, SceneGraph, SceneObject
from saaa.work import Work, WorkItem


class EgaHandler(Handler):
    """Captions."""

    def respond(self, form: Form) -> dict[str, Any]:
        """Give the best caption."""
        form = fields(form)
        image = picture(form)
        width, height = image.header.size
        region = _region(form.get("graph"))
        if region is None:
            graph = SceneGraph(objects=(SceneObject(id=0, name="image", box=Box(0, 0, width, height)),))
        else:
            graph = SceneGraph.from_region(region, image_size=(width, height))
        pixels, geometry = image.fit(self.executor.info)
        roles = graph.role_graph(max_nodes=len(graph.nodes()))
        item = WorkItem(graph=roles.with_boxes(geometry.to_input(roles.boxes)))
        result = self.run_one(pixels, Work.CAPTION, item)
        return {
            "model": self.model(),
            "graph_source": "WHOLE_IMAGE" if region is None else "GIVEN",
            "captions": [
                {
                    "text": " ".join(caption.words),
                    "words": list(caption.words),
                    "log_probability": caption.log_probability,
                    "nodes": [node.name for node in graph.nodes()],
                    "node_weights": caption.node_weights.tolist(),
                }
                for caption in result.captions
            ],
        }


def _region(value: Any) -> dict[str, Any] | None:
    if isinstance(value, bytes | bytearray | str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise SceneGraphError(f"The graph is not JSON: {error}", field="graph") from None
    if value is not None and not isinstance(value, dict):
        raise SceneGraphError("The graph must be a JSON object.", field="graph")
    return value
