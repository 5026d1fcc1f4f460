"""What the pictures and the page show, checked on pixels and markup."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import grpc
import numpy as np
import pytest
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
    RpcFailed,
    Violation,
)
from saaa.report import ReportEntry, colors, draw_attribution, draw_graph, write_report
from saaa.report.graph import PICTURE
from saaa.report.heatmap import PANEL, Scale, spread
from saaa.report.matrix import MARGIN
from saaa.report.nodes import node_styles
from saaa.report.place import Rect, Room, around
from saaa.report.report import Stems
from saaa.report.text import drawable, shorten, width, wrap

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


# The map.


def naive_bilinear(grid, region, x, y):
    """One value at image point (x, y), by the book."""
    rows, columns = grid.shape
    v = min(max((y - region.y) / region.height * rows - 0.5, 0), rows - 1)
    u = min(max((x - region.x) / region.width * columns - 0.5, 0), columns - 1)
    i, j = min(int(v), rows - 2), min(int(u), columns - 2)
    a, b = v - i, u - j
    return (1 - a) * ((1 - b) * grid[i, j] + b * grid[i, j + 1]) + a * (
        (1 - b) * grid[i + 1, j] + b * grid[i + 1, j + 1]
    )


def test_spread_is_bilinear_in_the_region_and_empty_outside():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(3, 5)).astype(np.float32)
    region = Region(x=2.5, y=1, width=30, height=17.25)
    scale = 1.5
    values = spread(grid, region, (60, 33), scale)
    for row in range(33):
        for column in range(60):
            x, y = (column + 0.5) / scale, (row + 0.5) / scale
            inside = 2.5 <= x <= 32.5 and 1 <= y <= 18.25
            assert np.isnan(values[row, column]) != inside
            if inside:
                assert values[row, column] == pytest.approx(naive_bilinear(grid, region, x, y), abs=1e-6)


@pytest.mark.parametrize(("width_px", "height_px"), [(160, 160), (640, 480), (90, 300), (2000, 500)])
def test_overlay_has_three_panels_of_one_size(width_px, height_px):
    region = Region(x=0, y=0, width=width_px, height=height_px)
    picture = draw_attribution(photo(width_px, height_px), attribution([[0, 0], [0, 1]], region))
    scale = PANEL / max(width_px, height_px)
    panel = round(width_px * scale)
    assert picture.mode == "RGB"
    assert picture.width > 3 * panel
    assert picture.height >= round(height_px * scale)
    # The first panel is the untouched photo.
    top = 84
    assert picture.getpixel((24 + panel // 2, top + round(height_px * scale) // 2)) == (GREY, GREY, GREY)


def panels(picture: Image.Image, width_px: int, height_px: int) -> list[np.ndarray]:
    scale = PANEL / max(width_px, height_px)
    w, h = round(width_px * scale), round(height_px * scale)
    pixels = np.asarray(picture).astype(float)
    return [pixels[84 : 84 + h, 24 + i * (w + 16) : 24 + i * (w + 16) + w] for i in range(3)]


@pytest.mark.parametrize("place", [(0, 0), (2, 4), (1, 3)])
def test_map_and_blend_are_hottest_where_the_map_is_largest(place):
    grid = np.zeros((3, 5), np.float32)
    grid[place] = 2
    region = Region(x=0, y=0, width=300, height=180)
    picture = draw_attribution(photo(300, 180), attribution(grid.tolist(), region))
    for panel in panels(picture, 300, 180)[1:]:
        # Over an even grey, inferno's hot end is the one with most red and green.
        heat = panel[..., 0] + panel[..., 1]
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (row * 3 // panel.shape[0], column * 5 // panel.shape[1]) == place


def test_a_signed_map_is_red_for_and_blue_against_around_a_neutral_zero():
    region = Region(x=0, y=0, width=300, height=100)
    grid = [[-1.0, 0.0, 0.5]]
    _, heat, _ = panels(draw_attribution(photo(300, 100), attribution(grid, region)), 300, 100)
    against, zero, speaks_for = (heat[heat.shape[0] // 2, round(x * heat.shape[1])] for x in (0.02, 0.5, 0.98))
    assert against[2] > against[0] + 30
    assert speaks_for[0] > speaks_for[2] + 30
    assert np.ptp(zero) < 12
    levels = Scale.of(np.array(grid, np.float32))
    assert (levels.low, levels.high, levels.signed) == (-1, 1, True)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_map_is_drawn_flat(value):
    region = Region(x=0, y=0, width=100, height=100)
    picture = draw_attribution(photo(100, 100), attribution([[value] * 3] * 3, region))
    heat = panels(picture, 100, 100)[1]
    assert np.ptp(heat, axis=(0, 1)).max() == 0


def test_a_map_that_is_not_finite_is_drawn():
    region = Region(x=0, y=0, width=100, height=100)
    drawn = draw_attribution(photo(100, 100), attribution([[float("nan"), 1], [0, 2]], region))
    as_zero = draw_attribution(photo(100, 100), attribution([[0, 1], [0, 2]], region))
    for mine, expected in zip(panels(drawn, 100, 100), panels(as_zero, 100, 100), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_pixel_fine_map_is_not_dimmed_by_one_spike():
    grid = np.full((100, 100), 0.5, np.float32)
    grid[0] = 0
    grid[50, 50] = 100
    levels = Scale.of(grid)
    assert levels.high == pytest.approx(0.5)
    assert levels.clipped


def test_what_the_model_did_not_see_stays_without_colour():
    region = Region(x=100, y=0, width=100, height=100)
    picture = draw_attribution(photo(300, 100), attribution([[0, 1], [1, 1]], region))
    _, heat, blend = panels(picture, 300, 100)
    third = heat.shape[1] // 3
    for part in (slice(0, third - 2), slice(2 * third + 3, None)):
        assert np.ptp(heat[:, part], axis=2).max() < 15
        assert np.ptp(blend[:, part], axis=2).max() < 15
    assert np.ptp(heat[:, third + 5 : 2 * third - 5], axis=2).max() > 100


def test_sequential_colours_rise_in_lightness_and_diverging_ones_mirror():
    lightness = colors.SEQUENTIAL @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    light = colors.DIVERGING @ np.array([0.2126, 0.7152, 0.0722])
    assert light.argmax() in (127, 128)


# The graph.


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


# Text.


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


# The page.


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


def test_report_writes_every_file(tmp_path):
    entries = [
        ReportEntry(file="a/photo.png", image_bytes=png(photo()), analysis=analysis()),
        ReportEntry(file="b/photo.png", image_bytes=png(photo(80, 60)), analysis=analysis()),
        ReportEntry(file="bad.jpg", image_bytes=b"nonsense", error="not a picture"),
    ]
    target = write_report(tmp_path / "new" / "folder", entries, title="Two photos")
    assert target == tmp_path / "new" / "folder" / "report.html"
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "bad.json",
        "photo-2.attribution.0.png",
        "photo-2.graph.png",
        "photo-2.json",
        "photo.attribution.0.png",
        "photo.graph.png",
        "photo.json",
        "report.html",
    ]
    answer = json.loads((target.parent / "photo-2.json").read_text())
    assert answer["file"] == "b/photo.png"
    assert answer["captions"][0]["text"] == "lamp table"
    assert json.loads((target.parent / "bad.json").read_text()) == {
        "file": "bad.jpg",
        "error": "not a picture",
    }
    for path in target.parent.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()


def test_a_page_shows_so_many_and_the_files_are_of_all(tmp_path):
    read = []

    def entries():
        for number in range(5):
            # Taken one by one: the pictures of a large folder are never in memory together.
            read.append(len(list(tmp_path.glob("*.json"))))
            yield ReportEntry(file=f"{number}.png", image_bytes=png(photo()), analysis=analysis())

    text = write_report(tmp_path, entries(), title="Many", shown=2).read_text()
    assert read == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.glob("*.json"))) == len(list(tmp_path.glob("*.graph.png"))) == 5
    assert "Many: the first 2 of 5 photos" in text
    assert "2 photos analysed" in text


def test_page_is_self_contained_and_well_formed(tmp_path):
    entries = [ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=analysis())] * 2
    text = write_report(tmp_path, entries).read_text()
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    markup = Markup(text)
    assert markup.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(markup.tags)
    sources = [value for _, name, value in markup.attributes if name == "src"]
    assert len(sources) == 2 * 3  # thumbnail, heat map, graph
    for source in sources:
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    targets = {value for _, name, value in markup.attributes if name == "id"}
    for _, name, value in markup.attributes:
        if name == "href":
            assert value.removeprefix("#") in targets


def test_page_says_what_was_used_and_found(tmp_path):
    entry = ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=analysis())
    text = " ".join(Markup(write_report(tmp_path, [entry], title="My title").read_text()).texts)
    for expected in (
        "My title", "scenes", "2.0", "ab" * 32, "world", "cd" * 32, "75.0%", "kitchen", "gradcam", "25.0%",
        "2.50", "lamp on table", "beam_width=3", "9.5 ms", "graph proposed by the service", "local",
    ):  # fmt: skip
        assert expected in text


def test_words_carry_their_nodes_colour_and_weight(tmp_path):
    entry = ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=analysis())
    markup = Markup(write_report(tmp_path, [entry]).read_text())
    notes = [value for tag, name, value in markup.attributes if (tag, name) == ("span", "title")]
    assert [note.split(";")[0] for note in notes] == ["lamp: 0.80", "table: 0.90"]
    styles = [value for tag, name, value in markup.attributes if (tag, name) == ("span", "style")]
    for color in colors.OBJECTS[:2]:
        assert f"--node:{colors.css(color)}" in styles


def test_everything_foreign_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    failure = RpcFailed(grpc.StatusCode.INVALID_ARGUMENT, evil, evil, (Violation(field=evil, description=evil),))
    entries = [
        ReportEntry(file="ok.png", image_bytes=png(photo()), analysis=analysis(name=evil)),
        ReportEntry(file=evil + ".png", image_bytes=b"", error=failure),
        ReportEntry(file="plain.png", image_bytes=b"", error=evil),
    ]
    text = write_report(tmp_path, entries, title=evil).read_text()
    markup = Markup(text)
    assert "<script" not in text
    assert "script" not in markup.tags
    assert sum(evil in part for part in markup.texts) >= 6
    assert all(not name.startswith("on") for _, name, _ in markup.attributes)


def test_refused_photos_show_reason_and_fields(tmp_path):
    failure = RpcFailed(
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REJECTED",
        "the picture is refused",
        (Violation(field="image", description="the file is truncated; send all of it"),),
    )
    target = write_report(tmp_path, [ReportEntry(file="cut.jpg", image_bytes=b"", error=failure)])
    text = " ".join(Markup(target.read_text()).texts)
    for expected in (
        "cut.jpg",
        "IMAGE_REJECTED",
        "the picture is refused",
        "image",
        "truncated",
        "1 refused",
    ):
        assert expected in text


def test_an_analysis_of_undecodable_bytes_keeps_its_numbers(tmp_path):
    entry = ReportEntry(file="x.png", image_bytes=b"nonsense", analysis=analysis())
    text = " ".join(Markup(write_report(tmp_path, [entry]).read_text()).texts)
    assert "cannot be shown" in text
    assert "75.0%" in text


def test_a_bare_analysis_and_an_empty_report_are_written(tmp_path):
    bare = Analysis(image_width=160, image_height=160, predictions=(KITCHEN,))
    write_report(tmp_path, [ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=bare)])
    assert not list(tmp_path.glob("*.graph.png"))
    assert "0 photos analysed" in write_report(tmp_path, []).read_text()


def test_the_same_report_has_the_same_bytes(tmp_path):
    entry = ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=analysis())
    first, second = (write_report(tmp_path / name, [entry]).read_bytes() for name in ("one", "two"))
    assert first == second


def test_an_entry_has_either_an_analysis_or_an_error():
    with pytest.raises(ValueError, match="either"):
        ReportEntry(file="photo.png", image_bytes=b"")


def test_stems_are_unique_and_safe():
    files = ["a.jpg", "x/a.png", "A.jpg", "a-2.jpg", "c:\\b.jpg", ".jpg", "w<h>y?.png", "", "result.png"]
    stems = Stems()
    assert [stems.unique(file) for file in files] == [
        "a",
        "a-2",
        "A-3",
        "a-2-2",
        "b",
        ".jpg",
        "w_h_y_",
        "photo",
        "result-2",
    ]


def test_importing_the_report_loads_no_torch_and_no_plotting():
    program = "import sys, saaa.report; print([m for m in ('torch', 'matplotlib', 'serving') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
