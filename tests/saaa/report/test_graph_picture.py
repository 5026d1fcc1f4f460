"""What the picture of a graph shows: boxes, arrows, words and their labels."""

from __future__ import annotations

import numpy as np
import pytest

from saaa.client import Analysis, Graph, GraphObject, GraphRelationship
from saaa.report import colors, draw_graph
from saaa.report.graph import PICTURE
from saaa.report.matrix import MARGIN
from saaa.report.nodes import node_styles
from saaa.report.place import Rect, Room, around
from saaa.report.text import drawable, shorten, width, wrap
from tests.saaa.report.example import analysis, photo


def test_graph_picture_draws_box_tag_and_arrow():
    picture = np.asarray(draw_graph(photo(), analysis()))
    scale = PICTURE / 160
    blue, orange = colors.OBJECTS[:2]

    def count(color, part):
        return int((part == np.array(color)).all(axis=2).sum())

    left, top = MARGIN + round(10 * scale), MARGIN + round(10 * scale)
    # The first object's lower edge, below its name tag, in its own colour.
    bottom = MARGIN + round(70 * scale) - 2
    assert count(blue, picture[bottom - 2 : bottom + 2, left : left + round(50 * scale)]) > 300
    assert count(blue, picture[top - 30 : top + 40, left - 5 : left + 90]) > 600
    assert count(orange, picture[:, MARGIN + round(80 * scale) :]) > 1000
    # The arrow runs between the boxes.
    between = picture[MARGIN + round(60 * scale) : MARGIN + round(85 * scale), : MARGIN + PICTURE]
    assert count(colors.RELATION, between) > 50


def test_word_strip_is_below_the_picture_in_the_nodes_colours():
    full = np.asarray(draw_graph(photo(), analysis()))
    below = full[MARGIN + PICTURE + MARGIN :]
    assert len(below) > 100
    # Relationship and both objects mark their rows; the words carry their strongest node's colour on top.
    strip = below[: below.shape[0] - 4 * 26 - 20]
    for color in colors.OBJECTS[:2]:
        assert (strip == np.array(color)).all(axis=2).sum() > 400
    bare = np.asarray(draw_graph(photo(), Analysis(image_width=160, image_height=160, graph=analysis().graph)))
    assert len(bare) < len(full)


def test_a_long_caption_breaks_into_several_tables():
    short, long = (draw_graph(photo(), analysis(words=words)) for words in (10, 40))
    assert long.width == short.width
    assert long.height >= short.height + 2 * 130


@pytest.mark.parametrize(("width_px", "height_px"), [(640, 480), (160, 900), (900, 160)])
def test_graph_picture_of_any_shape(width_px, height_px):
    picture = draw_graph(photo(width_px, height_px), analysis(width_px, height_px))
    scale = PICTURE / max(width_px, height_px)
    assert picture.height >= MARGIN + round(height_px * scale)
    assert picture.width >= MARGIN + round(width_px * scale)


def test_a_crowded_graph_is_drawn():
    objects = tuple(
        GraphObject(id=i, name=f"thing number {i}", attributes=("red", "tall"), x=10, y=10, width=20, height=20)
        for i in range(50)
    )
    links = tuple(
        GraphRelationship(id=i, subject_id=i, object_id=i + 1, name="exactly at the place of") for i in range(49)
    )
    graph = Graph(objects=objects, relationships=links)
    crowded = draw_graph(photo(), Analysis(image_width=160, image_height=160, graph=graph))
    few = draw_graph(photo(), Analysis(image_width=160, image_height=160, graph=Graph(objects=objects[:2])))
    assert crowded.width * crowded.height > few.width * few.height


def test_no_graph_cannot_be_drawn():
    with pytest.raises(ValueError, match="no graph"):
        draw_graph(photo(), Analysis(image_width=160, image_height=160))


def test_node_titles_say_what_belongs_together():
    result = analysis()
    styles = node_styles(result.caption_nodes, result.graph)
    assert [style.title for style in styles] == ["lamp", "red (lamp)", "table", "lamp on table"]
    assert [style.badge for style in styles] == ["1", "1", "2", ""]
    assert styles[0].color == styles[1].color != styles[2].color
    assert [style.title for style in node_styles(result.caption_nodes, None)] == [
        "lamp",
        "red",
        "table",
        "on",
    ]


def test_labels_never_cover_each_other_while_there_is_room():
    room = Room(Rect(0, 0, 300, 300))
    placed = [room.place(around(Rect(100, 100, 200, 200), 60, 20)) for _ in range(12)]
    taken = [rect for rect in placed if rect is not None]
    assert len(taken) >= 8
    assert all(a.overlap(b) == 0 for i, a in enumerate(taken) for b in taken[:i])
    assert all(rect.left >= 0 and rect.right <= 300 and rect.top >= 0 and rect.bottom <= 300 for rect in taken)


def test_labels_prefer_places_that_hide_no_arrow():
    room = Room(Rect(0, 0, 300, 300))
    room.spare([(110, 110)])
    rect = room.place([Rect(100, 100, 160, 120), Rect(100, 80, 160, 100)])
    assert rect == Rect(100, 80, 160, 100)
    assert room.place([Rect(100, 80, 160, 100)]) is None
    assert room.place([Rect(100, 80, 160, 100)], force=True) is not None


def test_text_fits_and_has_only_characters_of_the_font():
    assert drawable("café\n台") == "cafe??"
    assert shorten("lamp", 16, 400) == "lamp"
    cut = shorten("a very long name of a thing", 16, 80)
    assert cut.endswith("…")
    assert width(cut, 16) <= 80
    lines = wrap("a lamp next to a table " * 5 + "x" * 100, 16, 200)
    assert all(width(line, 16) <= 200 for line in lines)
    assert len(lines) > 3
    assert wrap("", 16, 100) == [""]


@pytest.mark.parametrize("color", colors.OBJECTS)
def test_text_on_every_node_colour_has_contrast(color):
    def luminance(rgb):
        linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(color), luminance(colors.text_on(color))))
    assert (light + 0.05) / (dark + 0.05) >= 4.0
