"""The serving benchmark's arithmetic, its resuming, and what it takes for a server's processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving_calls import Protocols, json_answer
from benchmarks.serving_processes import Processes
from benchmarks.serving_results import Gate, Kept, gate_of_ratio, percentile, ratio

BURN = "import time\nend = time.process_time() + {0}\nwhile time.process_time() < end: pass\ntime.sleep(60)"


def test_rows_are_kept_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "deep" / "rows.jsonl")
    assert kept.rows() == []
    kept.add({"system": "a", "block": 0})
    kept.add({"system": "a", "block": 1})
    with kept.path.open("a") as file:
        file.write('{"system": "b", "blo')
    assert kept.rows() == [{"system": "a", "block": 0}, {"system": "a", "block": 1}]
    assert kept.has(system="a", block=1)
    assert not kept.has(system="a", block=2)
    assert not kept.has(system="b")


def test_a_row_after_a_torn_line_is_not_lost(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "rows.jsonl")
    kept.path.write_text('{"system": "b", "blo')
    kept.add({"system": "a"})
    assert kept.rows() == [{"system": "a"}]


def test_ratio_pairs_blocks() -> None:
    """A machine that is slow in a block is slow for both."""
    found = ratio({0: 2.0, 1: 20.0, 2: 200.0, 9: 7.0}, {0: 1.0, 1: 10.0, 2: 100.0, 8: 1.0})
    assert found is not None
    assert (found.value, found.low, found.high, found.blocks) == (2.0, 2.0, 2.0, 3)
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_interval_holds_the_median_and_widens_with_noise() -> None:
    ones = dict.fromkeys(range(20), 1.0)
    calm = ratio({block: 1 + 0.01 * (block % 5) for block in range(20)}, ones)
    wild = ratio({block: 1 + 0.2 * (block % 5) for block in range(20)}, ones)
    assert calm is not None
    assert wild is not None
    assert calm.low <= calm.value <= calm.high
    assert wild.high - wild.low > calm.high - calm.low


@pytest.mark.parametrize(
    ("value", "at_least", "edge", "reached"),
    [
        (1.02, True, 0.96, True),
        (1.02, True, 0.94, False),
        (1.00, False, 1.04, True),
        (1.00, False, 1.06, False),
        (1.0, False, None, True),
        (1.01, False, None, False),
        (None, True, None, None),
    ],
)
def test_gate(value: float | None, at_least: bool, edge: float | None, reached: bool | None) -> None:
    """A ratio is met when the unfavourable end of its interval is within 5 % of it; other figures have no margin."""
    assert Gate("g", value, 1.0, at_least, edge).reached is reached


def test_gate_without_measurement_says_so() -> None:
    assert "not measured" in str(gate_of_ratio("g", None, 1.0, at_least=True))


def test_percentile_is_in_milliseconds() -> None:
    assert percentile([0.001, 0.002, 0.003], 0.5) == pytest.approx(2.0)


def test_processor_time_of_children_counts_and_all_of_them_end(tmp_path: Path) -> None:
    """A grandchild in a session of its own belongs to the server too."""
    start = f"subprocess.Popen([sys.executable, '-c', {BURN.format(0.3)!r}], start_new_session=True)"
    child = f"import subprocess, sys\n{start}"
    server = Processes([sys.executable, "-c", f"{child}\n{BURN.format(0.2)}"], {}, tmp_path / "log")
    try:
        deadline = time.monotonic() + 30
        while server.seconds() < 0.5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.seconds() >= 0.5
        assert len(server.look()) == 2
        assert server.memory() > 2**20
    finally:
        server.stop(patience_s=0.1)
    assert not server.look()


def test_requests_carry_the_image() -> None:
    jpeg = bytes(range(256))
    head, _, body = Protocols.multipart("/x")(jpeg).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert jpeg in body
    for request in (Protocols.torchserve(jpeg), Protocols.inference(jpeg), Protocols.wrapped(jpeg)):
        assert jpeg in request


def test_json_answer_keeps_probabilities_only() -> None:
    assert json_answer(b'{"a": 0.25, "map": [[1.0]]}') == {"a": 0.25}
