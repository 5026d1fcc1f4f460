"""Records one by one: a broken one costs no other, a hostile file neither memory nor code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.annotations.records import MAX_RECORD, read_records
from saaa.errors import DataError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def records(path: Path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return list(read_records(path))


@settings(max_examples=40)
@given(
    content=st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=4),
    indent=st.sampled_from([None, 2]),
)
def test_array_and_lines_are_read_as_json_reads_them(tmp_path_factory, content, indent) -> None:
    path = tmp_path_factory.mktemp("r") / "x.json"
    found = records(path, json.dumps(content, indent=indent))
    assert [r.content for r in found] == content
    assert [r.number for r in found] == list(range(1, len(content) + 1))
    if content:
        lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in content)
        assert [r.content for r in records(path, lines + "\n\n")] == json.loads(json.dumps(content))


def test_faults_cost_only_their_record(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    broken = ['{"a": 1}', '{"a": }', "7", "", '{"deep": ' + deep + "}", '{"big": ' + "9" * 5000 + "}", '{"b": 2}']
    found = records(tmp_path / "x", f"[{', '.join(broken)}]")
    assert [r.content for r in found if r.content] == [{"a": 1}, {"b": 2}]
    assert [r.number for r in found if r.fault] == [2, 3, 4, 5, 6]
    found = records(tmp_path / "x", "\n".join(part or "x" for part in ['{"a": 1}', *broken[1:]]))
    assert [r.content for r in found if r.content] == [{"a": 1}, {"b": 2}]


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    whole = json.dumps([{"a": "x, ]"}, {"b": 1}, {"c": 2}])
    first, second, rest = records(tmp_path / "x", whole[:-5])
    assert (first.content, second.content) == ({"a": "x, ]"}, {"b": 1})
    assert "breaks off" in rest.fault
    *_, more = records(tmp_path / "x", whole + ' "more"')
    assert "more after the end" in more.fault


def test_odd_files(tmp_path: Path) -> None:
    assert records(tmp_path / "x", b"\xef\xbb\xbf" + b'[{"a": "\xff"}]')[0].content == {"a": "\ufffd"}
    assert records(tmp_path / "x", "[]") == []
    assert f"at most {MAX_RECORD}" in records(tmp_path / "x", json.dumps([{"a": "b" * MAX_RECORD}]))[0].fault
    with pytest.raises(DataError, match="empty"):
        records(tmp_path / "x", " \n")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(tmp_path))
    with pytest.raises(DataError, match="Split it"):
        list(read_records(tmp_path / "x", max_bytes=0))
