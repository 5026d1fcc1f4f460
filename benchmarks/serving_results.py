"""What `benchmarks.serving` measured, kept so that a run goes on where it stopped, and what follows from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
DRAWS = 4000
NEAR = 0.05
"""A ratio is met when its 95 % bound is within this share of it."""
LEAST_BLOCKS = 20
"""Fewer say nothing."""
SOAK_GROWTH = 1.03
"""What a server may take more of in the last quarter of a soak."""
NOT_RUN = "its part was not run with this code and these settings"


@dataclass(frozen=True)
class Kept:
    """Rows of one part, appended to a file as they are measured.

    Args:
        path: JSON lines.
    """

    path: Path

    def rows(self) -> list[Row]:
        """All; a last line that was cut off is left out."""
        rows = []
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        return rows

    def add(self, row: Row) -> None:
        """Keep one more."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write("\n" * torn + json.dumps(row) + "\n")

    def has(self, **facts: Any) -> bool:
        """Whether a row with these facts is there."""
        return any(all(row.get(key) == value for key, value in facts.items()) for row in self.rows())


def percentile(times: Sequence[float], share: float) -> float:
    """Of seconds; milliseconds."""
    return float(np.quantile(times, share)) * 1000


def second_and_last(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter of what was sampled over time, 1 value or more."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[quarter : 2 * quarter] or values), statistics.median(values[-quarter:])


@dataclass(frozen=True)
class Ratio:
    """The median ratio of two figures measured side by side, with the 95 % interval of its bootstrap over blocks."""

    value: float
    low: float
    high: float
    blocks: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.blocks} blocks)"


def pooled_ratio(
    above: Mapping[int, Sequence[float]], below: Mapping[int, Sequence[float]], share: float
) -> Ratio | None:
    """The ratio of a quantile of all blocks' times together: a block alone has too few for a high one.

    Args:
        above: each block's times.
        below: the same, measured in turn.
        share: which quantile, 0 to 1.
    """
    both = sorted(above.keys() & below.keys())
    if not both:
        return None

    def of(blocks: Sequence[int]) -> float:
        first, second = (np.quantile(np.concatenate([side[b] for b in blocks]), share) for side in (above, below))
        return float(first / second)

    draws = np.random.default_rng(0).choice(both, (DRAWS, len(both)))
    low, high = np.quantile([of(blocks) for blocks in draws], (0.025, 0.975))
    return Ratio(of(both), float(low), float(high), len(both))


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Ratio | None:
    """Figures by block; blocks that lack one are left out, and None is that there are none."""
    both = sorted(above.keys() & below.keys())
    if not both:
        return None
    each = np.array([above[block] / below[block] for block in both])
    draws = np.random.default_rng(0).integers(0, len(each), (DRAWS, len(each)))
    low, high = np.quantile(np.median(each[draws], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(each)), float(low), float(high), len(each))


@dataclass(frozen=True)
class Gate:
    """A figure that should be reached.

    Args:
        name: what.
        value: measured; None was not.
        bound: what it should reach.
        at_least: else at most.
        interval: of the value, 95 %; None where it has none.
        why: why there is no value, or what to know about it.
    """

    name: str
    value: float | None
    bound: float
    at_least: bool
    interval: tuple[float, float] | None = None
    why: str = ""
    enough: bool = True
    """Whether so much was measured that it may be judged."""

    @property
    def reached(self) -> bool | None:
        """Whether the value is, or the bad end of its interval within 5 %; None is that too little is known."""
        if self.value is None or not self.enough:
            return None
        if self.interval is None:
            return self.value >= self.bound if self.at_least else self.value <= self.bound
        low, high = self.interval
        return low >= self.bound * (1 - NEAR) if self.at_least else high <= self.bound * (1 + NEAR)

    def as_json(self) -> Row:
        """What the file has."""
        return {
            "target": self.bound,
            "at_least": self.at_least,
            "value": self.value,
            "interval": self.interval,
            "reached": self.reached,
            "why": self.why,
        }

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        if self.value is None:
            return f"  {self.name:<66}{'-':>9}   {sign} {self.bound:<7g}not measured: {self.why}"
        edges = "" if self.interval is None else " ({:.3f} to {:.3f})".format(*self.interval)
        said = {True: "ok", False: "MISSED", None: "not judged"}[self.reached]
        return (
            f"  {self.name:<66}{self.value:9.3f}   {sign} {self.bound:<7g}{said}{edges}{self.why and f'; {self.why}'}"
        )


def gate_of_ratio(name: str, found: Ratio | None, bound: float, *, at_least: bool, why: str = "") -> Gate:
    """A ratio's gate.

    Args:
        why: why it cannot be judged; "" where it can.
    """
    if found is None:
        return Gate(name, None, bound, at_least, why=why or NOT_RUN)
    if found.blocks < LEAST_BLOCKS:
        why = ", ".join(filter(None, (f"{found.blocks} blocks of {LEAST_BLOCKS}", why)))
    return Gate(name, found.value, bound, at_least, (found.low, found.high), why, enough=not why)


def gate_of_value(name: str, value: float | None, bound: float, *, at_least: bool = False, why: str = "") -> Gate:
    """The gate of a figure without an interval.

    Args:
        why: what to know about it.
    """
    return Gate(name, value, bound, at_least, why=NOT_RUN if value is None else why)


def gate_of_goodput(flood: Mapping[str, Any]) -> Gate:
    """Answers in a flood, of what the server could give with the processors that the load generator leaves.

    Args:
        flood: the row of `benchmarks.serving_stress.Stress.overload`; empty where it was not measured.
    """
    blocks = dict(enumerate(flood.get("goodput_blocks", ())))
    found = ratio(blocks, dict.fromkeys(blocks, flood.get("goodput_bound", 0.0)))
    gate = gate_of_ratio("overload: goodput / capacity, without the generator", found, 0.9, at_least=True)
    return replace(gate, why=f"as seen {flood['goodput_share']:.3f}") if gate.enough and blocks else gate


def gates_of_soak(soak: Mapping[str, Any]) -> list[Gate]:
    """Whether what a server takes stays the same; of memory it is told which program grew by how much, the most first.

    Args:
        soak: its row, of `benchmarks.serving_stress`; empty where it was not measured.
    """
    gates = []
    for name in ("memory", "descriptors", "files"):
        second, last = soak.get(name, (None, None))
        grown = None if second is None or last is None else last / max(second, 1)
        parts = soak.get("memory_of", {}) if name == "memory" else {}
        told = [
            f"{program} {(end - begin) / 2**20:+.1f} MiB of {begin / 2**20:.0f}"
            for program, (begin, end) in sorted(parts.items(), key=lambda part: part[1][0] - part[1][1])
        ]
        gates.append(gate_of_value(f"soak: {name}, last quarter / second", grown, SOAK_GROWTH, why=", ".join(told)))
    return gates
