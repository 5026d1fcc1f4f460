"""A request's pieces out of its spans, the document they go to, and the command on a real service."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.documents import into_doc
from benchmarks.otlp_collector import Told
from benchmarks.waterfall import KINDS, Options, draw, main, pieces, told
from benchmarks.waterfall_spans import (
    BATCH,
    CALL,
    CLASSIFY,
    CLIENT,
    COMPUTE,
    DECODE,
    HANDLER,
    PACK,
    PROPOSE,
    SPANS,
    Request,
    median_request,
    requests_of,
)

PARENTS = {
    CLIENT: "", CALL: CLIENT, DECODE: CALL, CLASSIFY: CALL, BATCH: CALL, HANDLER: BATCH, COMPUTE: HANDLER, PACK: HANDLER
}  # fmt: skip
TIMES = {
    CLIENT: (0, 50), CALL: (1, 48), DECODE: (2, 7), CLASSIFY: (7, 46), BATCH: (8, 45), HANDLER: (12, 40),
    COMPUTE: (12.5, 38), PACK: (38, 39),
}  # fmt: skip
"""Begin and end in ms."""


def span(name: str, call: str, parent: str, begin_ms: float, end_ms: float, links: tuple[str, ...] = ()) -> Told:
    return Told(
        service="", name=name, trace=call, span=f"{call}/{name}", parent=parent, links=links, attributes={},
        failed=False, start_s=1e3 + begin_ms / 1e3, seconds=(end_ms - begin_ms) / 1e3,
    )  # fmt: skip


def spans(call: str, late_ms: float = 0.0, *without: str) -> list[Told]:
    """Of one request, whose client waits so much longer."""
    return [
        span(name, call, parent and f"{call}/{parent}", begin, end + (late_ms if name == CLIENT else 0))
        for (name, parent), (begin, end) in zip(PARENTS.items(), TIMES.values(), strict=True)
        if name not in without
    ]


def test_pieces_follow_each_other_and_are_all_of_the_clients_time() -> None:
    (request,) = requests_of(spans("a")[::-1])
    found = request.segments()
    assert [round(1000 * each.seconds, 2) for each in found] == [1, 1, 5, 1, 4, 0.5, 25.5, 2, 5, 3, 2]
    assert sum(each.seconds for each in found) == pytest.approx(request.seconds)
    for one, two in pairwise(found):
        assert one.start + one.seconds == pytest.approx(two.start)
    assert [bar.name for bar in request.bars()] == list(SPANS)


def test_a_proposed_graph_is_a_piece_of_its_own() -> None:
    (request,) = requests_of([*spans("a"), span(PROPOSE, "a", f"a/{CALL}", 46, 47)])
    found = {each.name: each.seconds for each in request.segments()}
    assert found["facade: propose a graph from the map"] == pytest.approx(0.002)
    assert found["facade: the typed answer"] == pytest.approx(0.001)
    assert sum(found.values()) == pytest.approx(request.seconds)


def test_a_shared_batch_is_part_of_each_of_its_calls() -> None:
    first, second = spans("a"), spans("b", 0, BATCH, HANDLER, COMPUTE, PACK)
    shared = [replace(each, links=(f"b/{CALL}",)) if each.name == BATCH else each for each in first]
    one, two = requests_of([*shared, *second])
    assert one.spans[BATCH] is two.spans[BATCH]
    assert two.spans[CLIENT].trace == "b"


def test_requests_that_are_not_whole_are_left_out() -> None:
    again = span(BATCH, "b", f"b/{CALL}", 30, 40)
    found = list(requests_of([*spans("a", 0, HANDLER), *spans("b"), replace(again, span="b/again"), *spans("c")]))
    assert [request.spans[CLIENT].trace for request in found] == ["c"]


def requests() -> list[Request]:
    return list(requests_of([each for place in range(5) for each in spans(str(place), 10.0 * (place * 2 % 5))]))


def test_the_median_request() -> None:
    assert median_request(requests()).seconds == pytest.approx(0.07)
    assert median_request(requests()[:1]).seconds == pytest.approx(0.05)


def test_table_and_picture(tmp_path: Path) -> None:
    found = {"prediction": requests(), "explained prediction": requests()}
    rows = [line for line in told(found).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(pieces(requests())) + 1
    assert {row.count("|") for row in rows} == {8}
    assert "| worker: the model | 25.50 | 25.50 | 36% | 25.50 | 25.50 | 36% |" in rows
    assert rows[-1].startswith("| what the client waited | 70.00 |")
    draw(found, tmp_path / "waterfall.png")
    assert (tmp_path / "waterfall.png").read_bytes().startswith(b"\x89PNG")


def test_figures_go_between_their_own_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("before\n<!-- one: begin -->\nold\n<!-- end -->\n<!-- two: begin -->\nkept\n<!-- end -->\nafter\n")
    into_doc(path, "one", "new\n")
    into_doc(path, "one", "newer")
    assert path.read_text() == (
        "before\n<!-- one: begin -->\n\nnewer\n\n<!-- end -->\n<!-- two: begin -->\nkept\n<!-- end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="no place for figures"):
        into_doc(path, "three", "lost")


def test_at_least_one_request() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Options(requests=0)


@pytest.mark.slow
def test_the_real_service(tmp_path: Path) -> None:
    main(Options(output=tmp_path, requests=3))
    found = json.loads((tmp_path / "waterfall.json").read_text())
    assert found.keys() == KINDS.keys()
    for figures in found.values():
        assert figures["requests"] == 3
        assert all(times["p50"] > -0.1 for times in figures["segments_ms"].values())
    assert found["explained prediction"]["segments_ms"].keys() > found["prediction"]["segments_ms"].keys()
    assert (tmp_path / "waterfall.png").is_file()
