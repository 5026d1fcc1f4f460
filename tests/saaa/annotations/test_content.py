"""Free text of annotators: every order and slip that the published export holds, read by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.annotations.content import MAX_TEXT, clean, name, plurals, read_content, read_kind, slips, split
from saaa.role_graph import NodeKind

O, A, R = NodeKind.OBJECT, NodeKind.ATTRIBUTE, NodeKind.RELATIONSHIP  # noqa: E741


@pytest.mark.parametrize(
    ("kind", "text", "known", "subject", "predicate", "target"),
    [
        (O, "Street", (), "street", None, None),
        (O, " the  Traffic light. ", (), "traffic light", None, None),
        (O, "(hydrant)", (), "hydrant", None, None),
        (O, "the", (), None, None, None),
        (O, "red, hydrant", ("hydrant",), "hydrant", None, None),
        (A, "(hydrant, red)", (), "hydrant", "red", None),
        (A, "(red,hydrant)", ("hydrant",), "hydrant", "red", None),
        (A, "white", (), None, "white", None),
        (A, "white cup", (), "cup", "white", None),
        (R, "(man, riding, a horse)", (), "man", "riding", "horse"),
        (R, "man; riding; horse", (), "man", "riding", "horse"),
        (R, "man riding the horse", (), "man", "riding", "horse"),
        (R, "(on,the,sidewalk)", (), None, "on", "sidewalk"),
        (R, "(in,front,of)", (), None, "in front of", None),
        (R, "(on,the side,of)", (), None, "on the side of", None),
        (R, "(on,rainy,day)", (), None, "on", "rainy day"),
        (R, "(parked,on,road)", (), None, "parked on", "road"),
        (R, "(painting, on, easel)", (), "painting", "on", "easel"),
        (R, "(building, behind, the seaweed)", (), "building", "behind", "seaweed"),
        (R, "(moped,parked,on street)", (), "moped", "parked on", "street"),
        (R, "(man,painting,wall)", (), "man", "painting", "wall"),
        (R, "(parking,on,road)", (), None, "parking on", "road"),
        (R, "(parking,on,road)", ("parking",), "parking", "on", "road"),
        (R, "(skating,down,road)", (), None, "skating down", "road"),
        (R, "(people,walking,on street)", (), "people", "walking on", "street"),
        (R, "(bench,covered,in snow)", (), "bench", "covered in", "snow"),
        (R, "(bus,in front of,bus stop)", (), "bus", "in front of", "bus stop"),
        (R, "(cat,in,front,of,dog)", (), "cat", "in front of", "dog"),
        (R, "(man,sitting)", (), "man", "sitting", None),
        (R, "riding", (), None, "riding", None),
        (R, "[cup, on, table", (), "cup", "on", "table"),
    ],
)
def test_content(kind, text: str, known, subject, predicate, target) -> None:
    content, _ = read_content(kind, text, known)
    assert (content.kind, content.subject, content.predicate, content.target) == (kind, subject, predicate, target)


@pytest.mark.parametrize(("text", "kind"), [("cup", O), ("(cup,red)", A), ("(cup,on,mat)", R), ("a,b,c,d", None)])
def test_kind_by_form(text: str, kind) -> None:
    content, repaired = read_content(None, text)
    assert content.kind is kind
    assert repaired


def test_in_order_nothing_is_repaired() -> None:
    for kind, text in ((O, "cup"), (A, "(cup, red)"), (R, "(cup, on, mat)")):
        assert read_content(kind, text)[1] == []


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("Object", O, False), ("attribute.", A, False), ("relationship", R, False), ("relatoinship", R, True),
        ("relation", R, True), ("obejct", O, True), ("", None, True), ("banana", None, True),
    ],
)  # fmt: skip
def test_read_kind(text: str, kind, told: bool) -> None:
    read, repaired = read_kind(text)
    assert read is kind
    assert (repaired is not None) == told


def test_slips() -> None:
    texts = ["sign"] * 2 + ["sgin", "stop sign"] + ["horse"] * 5 + ["house"] + ["runing"] + ["running"] * 2
    assert slips(texts) == {"sgin": "sign", "runing": "running"}
    # Not often enough, too short, a function word, other letters.
    assert slips(["sign", "sgin"]) == {}
    assert slips(["no", "on", "on"]) == {}
    assert slips(["form"] + ["from"] * 5) == {}
    assert slips(["pants"] + ["plants"] * 5) == {}


def test_plurals() -> None:
    assert plurals({"bench", "benches", "bike", "bikes", "berry", "berries", "glass", "people"}) == {
        "benches": "bench", "bikes": "bike", "berries": "berry",
    }  # fmt: skip


def test_name_and_split() -> None:
    assert name("on the red table") == "red table"
    assert name("of the") is None
    assert split(" (A , b\tc,, ) ") == ["a", "b c"]
    assert clean("a\x1b[31m\u202eb\ud800\nc") == "a [31m b c"


@given(st.sampled_from([*NodeKind, None]), st.text(max_size=2 * MAX_TEXT), st.sets(st.text(max_size=5), max_size=3))
def test_any_text_is_read(kind, text: str, known) -> None:
    content, repaired = read_content(kind, text, known)
    assert all(isinstance(reason, str) for reason in repaired)
    for part in (content.subject, content.predicate, content.target):
        assert part is None or (part.strip() and part == " ".join(part.split()))
    if not content.objects:
        assert repaired
