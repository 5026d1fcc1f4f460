"""A page that shows what a captioner says of some images along several graphs, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from PIL import Image

from saaa.client import Caption, CaptionWord, Graph, GraphObject, GraphRelationship, Node
from saaa.images import decode
from saaa.report import markup
from saaa.report.graph import annotate
from saaa.report.nodes import node_styles
from saaa.scene_graph import NodeKind, SceneGraph
from saaa.work import CaptionResult
from training.ega.captioning import PROPOSED, SHUFFLED, TRUE
from training.ega.published import ImageFolder, Region
from training.files import whole

SHOWN = 10
SIDE = 380
"""Longer side of a picture, pixels."""
_QUALITY = 88
_KINDS: Mapping[NodeKind, Literal["object", "attribute", "relationship"]] = {
    NodeKind.OBJECT: "object",
    NodeKind.ATTRIBUTE: "attribute",
    NodeKind.RELATIONSHIP: "relationship",
}
_HEADINGS = {TRUE: "True graph", PROPOSED: "Proposed graph", SHUFFLED: "Another image's graph"}
_STYLE = """
.graphs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 24px;
  margin-top: 16px; }
.graphs .caption { font-size: 17px; line-height: 1.9; margin: 12px 0 4px; }
.graphs .nodes { font-size: 13px; }
"""


class Along(NamedTuple):
    """What is said along one graph."""

    graph: SceneGraph
    """In pixels of the region's image."""
    caption: CaptionResult
    cider: float


@dataclass(frozen=True)
class Compared:
    """One region with what is said along each kind of graph."""

    region: Region
    along: Mapping[str, Along]


def write_page(path: Path, compared: Sequence[Compared], folder: ImageFolder, figures: Mapping[str, Any]) -> None:
    """Write the page, which needs no other file.

    Args:
        path: of the HTML file.
        compared: all regions; the first one of some images, drawn at random, is shown.
        folder: where the images are.
        figures: of the evaluation.

    Raises:
        DataError: the file cannot be written.
    """
    first: dict[str, Compared] = {}
    for one in compared:
        first.setdefault(one.region.image_id, one)
    images = list(first.values())
    # Drawn, since images often come in a pattern; the same ones whatever the model.
    shown = [images[k] for k in sorted(Random(0).sample(range(len(images)), min(SHOWN, len(images))))]
    page = markup.document(
        "Captions along several graphs",
        header=f'<p class="muted">{escape(_facts(figures, len(shown)))}</p>\n{_table(figures["graphs"])}',
        main="\n".join(_section(one, folder) for one in shown),
        footer="The captioner sees boxes and roles of a graph's nodes, never their names. Each word has the colour of "
        "the node that it attends to most.",
        style=_STYLE,
    )
    with whole(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _facts(figures: Mapping[str, Any], shown: int) -> str:
    facts = [f"{figures['eval_set']}: {figures['regions']} regions of {figures['images']} images, {shown} shown"]
    if above := figures["proposed_above_shuffled"]:
        low, high = above["interval"]
        facts.append(
            f"CIDEr along proposed graphs minus along another image's: {above['difference']:.1f} "
            f"(95 % interval {low:.1f} to {high:.1f})"
        )
    return " · ".join(facts)


def _table(graphs: Mapping[str, Mapping[str, float | None]]) -> str:
    names = {"cider": "CIDEr", "object_recall": "Object recall", "object_precision": "Object precision"}
    head = "".join(f'<th class="number">{name}</th>' for name in names.values())
    rows = "".join(
        f"<tr><td>{_HEADINGS[kind]}</td>"
        + "".join(f'<td class="number">{_number(found[name], name)}</td>' for name in names)
        + "</tr>"
        for kind, found in graphs.items()
    )
    return f'<div class="card"><table><tr><th>Captions along</th>{head}</tr>{rows}</table></div>'


def _number(value: float | None, name: str) -> str:
    return "-" if value is None else f"{value:.1f}" if name == "cider" else f"{value:.3f}"


def _section(one: Compared, folder: ImageFolder) -> str:
    region = one.region
    image = decode(folder.paths[region.file_name].read_bytes())
    columns = "".join(_column(kind, along, Image.fromarray(image)) for kind, along in one.along.items())
    return (
        f'<section class="card"><h2>{escape(region.file_name)}, region {escape(region.region_id)}</h2>'
        f'<p class="muted">people: {escape(region.captions[0])}</p><div class="graphs">{columns}</div></section>'
    )


def _column(kind: str, along: Along, image: Image.Image) -> str:
    graph = _graph(along.graph)
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = annotate(image.resize(size, Image.Resampling.LANCZOS), graph, scale)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    styles = node_styles(_nodes(along.graph), graph)
    heading = f"{_HEADINGS[kind]} · CIDEr {along.cider:.0f}"
    return (
        f"<div><h3>{escape(heading)}</h3>{markup.figure(buffer.getvalue(), f'{_HEADINGS[kind]} on the picture')}"
        f"{markup.caption(_caption(along.caption), styles)}"
        f'<div class="nodes">{"".join(map(markup.node, styles))}</div></div>'
    )


def _graph(graph: SceneGraph) -> Graph:
    """As the report's drawings take it."""
    return Graph(
        objects=tuple(
            GraphObject(
                id=thing.id,
                name=thing.name,
                attributes=thing.attributes,
                x=thing.box.x,
                y=thing.box.y,
                width=thing.box.width,
                height=thing.box.height,
            )
            for thing in graph.objects
        ),
        relationships=tuple(
            GraphRelationship(id=link.id, subject_id=link.subject_id, object_id=link.object_id, name=link.name)
            for link in graph.relationships
        ),
    )


def _nodes(graph: SceneGraph) -> tuple[Node, ...]:
    return tuple(
        Node(kind=_KINDS[node.kind], id=node.id, attribute_index=node.attribute_index, name=node.name)
        for node in graph.nodes()
    )


def _caption(caption: CaptionResult) -> Caption:
    words = tuple(
        CaptionWord(text=word, log_probability=float(chance), node_weights=weights)
        for word, chance, weights in zip(caption.words, caption.log_probabilities, caption.node_weights, strict=True)
    )
    return Caption(text=" ".join(caption.words), words=words, log_probability=caption.log_probability)
