"""models.yaml: what is written is read again, what is wrong is told with its place, no edit is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import OptionInvalid
from serving.models.models_file import (
    FILE_NAME,
    MAX_HISTORY,
    Change,
    Entry,
    ModelsFile,
    Version,
    edit,
    parse,
    read,
    to_text,
)

DIGEST = "0123456789abcdef" * 4
names = st.text(st.characters(codec="utf-8", categories=("L", "N"), include_characters="._-"), min_size=1, max_size=12)
held = st.builds(Version, archive=names.map("a{}.mar".format), digest=st.just(DIGEST), pinned=st.booleans())


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    versions = draw(st.dictionaries(names, held, min_size=1, max_size=4))
    default, *others = draw(st.permutations(list(versions)))
    if others and draw(st.booleans()):
        share = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
        return Entry(default=default, versions=versions, canary=others[0], share=share)
    return Entry(default=default, versions=versions)


changes = st.builds(Change, at=names, model=names, change=names, before=st.none() | entries())
files = st.builds(
    ModelsFile, models=st.dictionaries(names, entries(), max_size=3), history=st.lists(changes, max_size=3).map(tuple)
)


@settings(deadline=None, max_examples=20)
@given(files)
def test_what_is_written_is_read_again(content: ModelsFile) -> None:
    assert parse(to_text(content)) == content


def text(**changes: str) -> str:
    parts = {
        "default": "'1'",
        "canary": "{version: '2', share: 0.25}",
        "archive": "a.mar",
        "digest": DIGEST,
        "format": "1",
    } | changes
    return (
        "format: {format}\nmodels:\n  m:\n    default: {default}\n    canary: {canary}\n    versions:\n"
        "      '1': {{archive: {archive}, digest: '{digest}'}}\n      '2': {{archive: b.mar, digest: '{digest}'}}\n"
    ).format(**parts)


def test_the_form_that_people_write() -> None:
    entry = parse(text()).models["m"]
    assert (entry.default, entry.canary, entry.share) == ("1", "2", 0.25)
    assert entry.versions["1"] == Version(archive="a.mar", digest=DIGEST)


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"default": "'3'"}, "models.m.default", "not one of the versions"),
        ({"default": "1"}, "models.m.default", "in quotes"),
        ({"canary": "{version: '1', share: 0.5}"}, "models.m.canary", "is the default"),
        ({"canary": "{version: '', share: 0.5}"}, "models.m.canary", "not one of the versions"),
        ({"canary": "{version: '2', share: 1}"}, "models.m.canary.share", "above 0 and below 1"),
        ({"canary": "{version: '2', share: .nan}"}, "models.m.canary.share", "above 0 and below 1"),
        ({"canary": "{version: '2'}"}, "models.m.canary", "share is missing"),
        ({"archive": "../a.mar"}, "models.m.versions.1.archive", "no file name"),
        ({"digest": "abc"}, "models.m.versions.1.digest", "64 hexadecimal"),
        ({"archive": "a.mar, pined: true"}, "models.m.versions.1", "not known"),
        ({"format": "2"}, "format", "format 1"),
        ({"format": "[1, {"}, "file", "no YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(changes: dict[str, str], where: str, says: str) -> None:
    with pytest.raises(OptionInvalid, match=says) as refused:
        parse(text(**changes))
    assert refused.value.field == where


@pytest.mark.parametrize(
    "content", ["", "- 1", "!!python/object/apply:os.getcwd []", "format: 1", "models: {}", "a: " * 9]
)
def test_what_is_no_such_file_is_refused(content: str) -> None:
    with pytest.raises(OptionInvalid):
        parse(content)


def test_a_folder_without_one_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(OptionInvalid, match="cannot be read"):
        read(tmp_path)
    (tmp_path / FILE_NAME).write_text(text(digest="no"))
    with pytest.raises(OptionInvalid, match=r"models\.yaml: models\.m\.versions\.1\.digest: "):
        read(tmp_path)
    with pytest.raises(OptionInvalid, match="cannot be opened"):
        edit(tmp_path / "nowhere", lambda content: content or ModelsFile())


def test_edits_at_the_same_time_lose_nothing_and_no_reader_sees_half(tmp_path: Path) -> None:
    stop = threading.Event()
    broken: list[Exception] = []

    def look() -> None:
        while not stop.is_set():
            try:
                read(tmp_path)
            except OptionInvalid as error:
                broken.append(error)
            stop.wait(0.001)

    def add(number: int) -> None:
        def change(content: ModelsFile | None) -> ModelsFile:
            content = content or ModelsFile()
            entry = Entry(default="1", versions={"1": Version(archive="a.mar", digest=DIGEST)})
            past = Change(at="now", model=f"m{number}", change="load 1", before=None)
            return ModelsFile(models={**content.models, f"m{number}": entry}, history=(*content.history, past))

        edit(tmp_path, change)

    reader = threading.Thread(target=look)
    reader.start()
    writers = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    content = read(tmp_path)
    assert content is not None
    assert broken == []
    assert len(content.models) == len(content.history) == 8
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_oldest_history_is_forgotten() -> None:
    past = tuple(Change(at=str(number), model="m", change="load", before=None) for number in range(MAX_HISTORY + 2))
    assert parse(to_text(ModelsFile(history=past))).history == past[2:]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(text())
    with pytest.raises(OptionInvalid):
        edit(tmp_path, lambda _: ModelsFile(models={"m": Entry(default="9", versions={})}))
    assert (tmp_path / FILE_NAME).read_text() == text()
