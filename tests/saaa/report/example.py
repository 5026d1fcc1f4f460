"""An answer to draw, and what reads the page that is made of it."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from saaa.client import (
    Analysis,
    Attribution,
    Caption,
    CaptionWord,
    Concept,
    Graph,
    GraphObject,
    GraphRelationship,
    ModelProvenance,
    Node,
    Prediction,
    Provenance,
    Region,
)

KITCHEN = Prediction(label="kitchen", index=3, probability=0.75)
GREY = 128


def photo(width_px: int = 160, height_px: int = 160) -> np.ndarray:
    return np.full((height_px, width_px, 3), GREY, np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def attribution(grid: list[list[float]], region: Region, **more) -> Attribution:
    return Attribution(target=KITCHEN, method="gradcam", grid=np.array(grid, np.float32), region=region, **more)


def analysis(width_px: int = 160, height_px: int = 160, *, name: str = "lamp", words: int = 2) -> Analysis:
    lamp = Node(kind="object", id=7, name=name)
    red = Node(kind="attribute", id=7, name="red")
    table = Node(kind="object", id=9, name="table")
    on = Node(kind="relationship", id=1, name="on")
    caption = Caption(
        text=" ".join(["lamp", "table"] * (words // 2)),
        words=tuple(
            CaptionWord(
                text=("lamp", "table")[i % 2],
                log_probability=-0.1,
                node_weights=np.array([0.8, 0.1, 0.05, 0.05] if i % 2 == 0 else [0.1, 0, 0.9, 0], np.float32),
            )
            for i in range(words)
        ),
        log_probability=-0.5,
    )
    return Analysis(
        image_width=width_px,
        image_height=height_px,
        predictions=(KITCHEN,),
        attributions=(
            attribution(
                [[0, 0], [0, 1]],
                Region(x=0, y=0, width=width_px, height=height_px),
                concepts=(Concept(node=lamp, mass=0.25, density=2.5),),
            ),
        ),
        captions=(caption,),
        graph=Graph(
            objects=(
                GraphObject(id=7, name=name, attributes=("red",), x=10, y=10, width=50, height=60),
                GraphObject(id=9, name="table", x=80, y=80, width=70, height=60),
            ),
            relationships=(GraphRelationship(id=1, subject_id=7, object_id=9, name="on"),),
        ),
        graph_source="proposed",
        caption_nodes=(lamp, red, table, on),
        provenance=Provenance(
            classifier=ModelProvenance(name="scenes", version="2.0", archive_sha256="ab" * 32),
            captioner=ModelProvenance(
                name="world", version="1.0", archive_sha256="cd" * 32, parameters={"beam_width": "3"}
            ),
            software_version="0.1.0",
            backend="local",
        ),
        timings={"decode": 1.0, "total": 9.5},
    )


class Markup(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
