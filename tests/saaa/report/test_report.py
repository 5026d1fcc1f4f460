"""The page and the files beside it, checked on their markup."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys

import grpc
import pytest
from PIL import Image

from saaa.client import Analysis, RpcFailed, Violation
from saaa.report import ReportEntry, colors, write_report
from saaa.report.report import Stems
from tests.saaa.report.example import KITCHEN, Markup, analysis, photo, png


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
