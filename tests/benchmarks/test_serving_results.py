"""The serving benchmark's arithmetic, its resuming, and what it takes for a server's processes."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from benchmarks import serving_identity
from benchmarks.serving_calls import HttpCaller, Protocols, json_answer
from benchmarks.serving_explain import as_true, choose
from benchmarks.serving_processes import Processes
from benchmarks.serving_results import (
    Gate,
    Kept,
    Ratio,
    gate_of_goodput,
    gate_of_ratio,
    gate_of_value,
    percentile,
    pooled_ratio,
    ratio,
)
from benchmarks.serving_systems import Absent, Setting
from benchmarks.serving_tuning import best_setting

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
    ("value", "at_least", "interval", "reached"),
    [
        (1.02, True, (0.96, 1.2), True),
        (1.02, True, (0.94, 1.2), False),
        (1.00, False, (0.7, 1.04), True),
        (1.00, False, (0.7, 1.06), False),
        (1.0, False, None, True),
        (1.01, False, None, False),
        (None, True, None, None),
    ],
)
def test_gate(value: float | None, at_least: bool, interval: tuple[float, float] | None, reached: bool | None) -> None:
    """A ratio is met when the unfavourable end of its interval is within 5 % of it; other figures have no margin."""
    gate = Gate("g", value, 1.0, at_least, interval)
    assert gate.reached is reached
    assert gate.as_json()["reached"] is reached


def test_gate_without_measurement_says_why() -> None:
    assert "not measured: left out" in str(gate_of_ratio("g", None, 1.0, at_least=True, why="left out"))
    assert gate_of_ratio("g", None, 1.0, at_least=True).as_json()["why"]
    assert gate_of_value("g", None, 1.0).as_json()["why"]


def test_too_few_blocks_are_not_judged() -> None:
    few, many = Ratio(2.0, 2.0, 2.0, 19), Ratio(2.0, 2.0, 2.0, 20)
    assert gate_of_ratio("g", few, 1.0, at_least=True).reached is None
    assert gate_of_ratio("g", many, 1.0, at_least=True).reached is True
    assert gate_of_ratio("g", many, 1.0, at_least=True, why="not equal").reached is None


def test_pooled_ratio_is_of_all_blocks_together() -> None:
    above, below = {0: [1.0] * 98, 1: [9.0] * 2, 5: [7.0]}, {0: [1.0] * 98, 1: [3.0] * 2}
    found = pooled_ratio(above, below, 0.995)
    assert found is not None
    assert (found.value, found.blocks) == (3.0, 2)
    assert found.low <= found.value <= found.high
    assert pooled_ratio({0: [1.0]}, {1: [1.0]}, 0.5) is None


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


def test_steps_are_the_fewest_as_true_as_ours() -> None:
    ours = {"pointing": (0.9, 0.02), "shapley_cosine": (0.8, 0.01)}
    tried = {
        4: {"pointing": (0.89, 0.02), "shapley_cosine": (0.7, 0.01)},
        8: {"pointing": (0.885, 0.02), "shapley_cosine": (0.795, 0.01)},
        16: {"pointing": (0.95, 0.02), "shapley_cosine": (0.9, 0.01)},
    }
    assert [as_true(found, ours) for found in tried.values()] == [False, True, True]
    assert choose(ours, tried)[0] == 8


def test_steps_without_equals_are_those_after_which_more_gain_nothing() -> None:
    """A rival that never gets so far must not be slowed down by steps that do not help it."""
    ours = {"pointing": (0.9, 0.01)}
    tried = {4: {"pointing": (0.6, 0.01)}, 8: {"pointing": (0.699, 0.01)}, 64: {"pointing": (0.7, 0.01)}}
    steps, why = choose(ours, tried)
    assert steps == 8
    assert "never" in why


def test_a_connection_that_the_server_has_closed_is_opened_again() -> None:
    async def ask() -> tuple[list[bytes], int]:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            caller = HttpCaller(server.sockets[0].getsockname()[1])
            answers = [await caller(b"GET / HTTP/1.1\r\n\r\n", 5) for _ in range(3)]
            await caller.close()
        return answers, connections

    assert asyncio.run(ask()) == ([b"ok"] * 3, 3)


def test_identity_follows_code_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_identity, "ROOT", tmp_path)
    (tmp_path / "code").mkdir()
    names = []
    for text, calls in (("a = 1", 4), ("a = 2", 4), ("a = 2", 8), ("a = 1", 4)):
        (tmp_path / "code" / "a.py").write_text(text)
        serving_identity.digest.cache_clear()
        names.append(serving_identity.identity(["code"], calls=calls))
    assert len(set(names)) == 3
    assert names[0] == names[3]
    serving_identity.digest.cache_clear()


def test_best_setting_is_kept_and_those_that_do_not_start_are_passed_over(tmp_path: Path) -> None:
    rates = {Setting(2, 1): 3.0, Setting(1, 2): 5.0}
    asked: list[Setting] = []

    async def rate(setting: Setting) -> float:
        asked.append(setting)
        if setting not in rates:
            raise Absent("no")
        return rates[setting]

    kept, broken = Kept(tmp_path / "tuned.jsonl"), Setting(2, 1, 8)
    for _ in range(2):
        assert asyncio.run(best_setting(kept, "a", (broken, *rates), rate)) == Setting(1, 2)
    assert asked == [broken, *rates]
    with pytest.raises(Absent):
        asyncio.run(best_setting(kept, "b", (broken, broken), rate))


def test_goodput_is_of_what_the_generator_leaves() -> None:
    flood = {"goodput_blocks": [45.0] * 20, "goodput_bound": 50.0, "goodput_share": 0.82}
    gate = gate_of_goodput(flood)
    assert (gate.value, gate.interval, gate.reached, gate.why) == (0.9, (0.9, 0.9), True, "as seen 0.820")
    assert gate_of_goodput({**flood, "goodput_blocks": [40.0] * 20}).reached is False
    assert gate_of_goodput({**flood, "goodput_blocks": [45.0] * 19}).reached is None
    assert gate_of_goodput({}).value is None
