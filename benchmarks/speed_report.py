"""What `benchmarks.speed` says of its figures: tables, what must be reached, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.attribution import GATES, QUALITY
from benchmarks.serving_results import Gate, gate_of_value
from benchmarks.speed_served import gates_of_served
from saaa.runtime.caption_parity import MIN_EQUAL
from saaa.runtime.options import BF16

Figures = Mapping[str, Any]

BARE = 1.1
"""Of a bare call of OpenVINO."""
EAGER = {"vit_tiny": 0.55, "efficientnet_lite0": 0.35}
"""Of torch's eager forward in float32."""
EXPLAINED = {True: 1.0, False: 1.8}
"""The same, of a prediction with its attribution: in bf16 or not."""
FOUR_CLASSES, DECODE, START, CIDER = 2.5, 0.5, 0.6, 0.005
DECODED_ROWS = (1, 16)
COLOURS = {True: "tab:green", False: "tab:red", None: "0.7"}


def gates(figures: Figures) -> list[Gate]:
    """What must be reached; what was not measured says so.

    Args:
        figures: as in speed.json.
    """
    bf16 = figures["precision"] == BF16
    predict, explain = figures.get("predict", {}), figures.get("explain", {})
    found = []
    for name, bound in EAGER.items():
        for batch, times in sorted(predict.get(name, {"1": {}, "8": {}}).items()):
            title = f"{name}, batch {batch}: prediction, ours /"
            found.append(_quotient(f"{title} bare OpenVINO", times, "openvino_direct", BARE))
            found.append(_quotient(f"{title} torch fp32", times, "torch_fp32", bound))
    for batch in ("1", "8"):
        title = f"vit_tiny, batch {batch}: one class explained, ours / torch fp32 forward"
        found.append(_quotient(title, explain.get(batch, {}), "torch_forward", EXPLAINED[bf16]))
    title = "vit_tiny, four classes explained, ours / torch fp32 forward"
    four = _quotient(title, figures.get("four_classes", {}), "torch_forward", FOUR_CLASSES)
    found.append(four if bf16 else Gate(four.name, four.value, four.bound, False, why="of bf16", enough=False))
    for rows in DECODED_ROWS:
        times = figures.get("decode_step", {}).get(str(rows), {})
        found.append(_quotient(f"decode step, {rows} rows, ours / torch fp32", times, "torch_fp32", DECODE))
    found += _of_captions(figures.get("parity", {}).get("captions", {}))
    found += gates_of_served(figures.get("served", {}))
    found += _of_maps(figures.get("maps", {}), f"openvino_{figures['precision']}")
    start = figures.get("start_s", {})
    return [*found, _quotient("worker's start with warm blobs, ours / torch", start, "torch", START, "openvino_warm")]


def _quotient(name: str, times: Figures, below: str, bound: float, above: str = "ours") -> Gate:
    return gate_of_value(name, times[above] / times[below] if times else None, bound)


def _of_captions(captions: Figures) -> list[Gate]:
    found = []
    for way in ("greedy", "beam"):
        told = captions.get(way, {})
        title = f"{way} captions of validation graphs: "
        changed = None if told.get("cider_ratio") is None else abs(told["cider_ratio"] - 1)
        found.append(gate_of_value(f"{title}the same as torch's", told.get("equal"), MIN_EQUAL, at_least=True))
        found.append(gate_of_value(f"{title}change of CIDEr", changed, CIDER))
    return found


def _of_maps(maps: Figures, compiled: str) -> list[Gate]:
    """The attribution benchmark's own, of the compiled graph; torch's figure is said beside it."""
    found = []
    for name, at_least, bound in GATES:
        if name in QUALITY:
            ours, theirs = (maps.get(runtime, {}).get(name) for runtime in (compiled, "torch"))
            why = "" if theirs is None else f"torch {theirs:.3f}"
            found.append(gate_of_value(f"compiled maps: {name}", ours, bound, at_least=at_least, why=why))
    return found


def tables(figures: Figures) -> str:
    """All times, a row each."""
    lines = [f"\nms of processor time, one thread, compiled in {figures['precision']}"]
    rows = {
        f"{name}, batch {batch}: prediction": times
        for name, batches in figures.get("predict", {}).items()
        for batch, times in batches.items()
    }
    for key, name in (("explain", "vit_tiny"), ("explain_cnn", "efficientnet_lite0")):
        rows |= {f"{name}, batch {batch}: explained": times for batch, times in figures.get(key, {}).items()}
    rows |= {"vit_tiny, four classes": figures["four_classes"]} if "four_classes" in figures else {}
    rows |= {f"decode step, {count} rows": times for count, times in figures.get("decode_step", {}).items()}
    rows |= {f"{count} pictures captioned": times for count, times in figures.get("caption", {}).items()}
    lines += [_row(name, times) for name, times in rows.items()]
    for key, title in (("start_s", "seconds to a worker's first answers"), ("start_cpu_s", "the same, processor time")):
        lines += [_row(title, figures[key])] if key in figures else []
    if served := figures.get("served"):
        rates = {name: value for name, value in served.items() if isinstance(value, float)}
        lines += [_row("calls a second, 16 callers", rates), f"  served with {served['runtime']}"]
    return "\n".join(lines)


def _row(name: str, values: Mapping[str, float]) -> str:
    return f"  {name:<40}" + "   ".join(f"{what} {value:.2f}" for what, value in values.items())


def draw(figures: Figures, judged: Sequence[Gate], path: Path) -> None:
    """A bar a gate, as its share of what it may be: those that end left of the line are reached."""
    from matplotlib.figure import Figure

    shown = [gate for gate in judged if gate.value is not None][::-1]
    sheet = Figure(figsize=(12, 1.6 + 0.32 * max(1, len(shown))), layout="constrained")
    panel = sheet.subplots()
    for place, gate in enumerate(shown):
        ends = [share(gate, end) for end in gate.interval or ()]
        length = share(gate, gate.value or 0.0)
        panel.barh(place, length, color=COLOURS[gate.reached], height=0.7)
        if ends:
            panel.plot(ends, [place, place], color="black", linewidth=1.5)
        sign = "≥" if gate.at_least else "≤"
        told = f"{gate.value:.3g} ({sign} {gate.bound:g}{'' if gate.reached is not None else ', not judged'})"
        panel.text(1.01, place, told, va="center", transform=panel.get_yaxis_transform())
    panel.axvline(1, color="black", linestyle="--", linewidth=1)
    panel.set_yticks(range(len(shown)), [gate.name for gate in shown])
    panel.set_ylim(-0.6, len(shown) - 0.4)
    panel.set_xlim(0, max([1.1, *(share(gate, gate.value or 0.0) for gate in shown)]))
    panel.set_xlabel("share of the gate: reached left of 1")
    panel.set_title(f"{figures['cpu']['name']}, compiled in {figures['precision']}")
    panel.spines[["top", "right"]].set_visible(False)
    sheet.savefig(path, dpi=110)


def share(gate: Gate, value: float) -> float:
    """What a value is of a gate's bound, or the bound of it, so that at most 1 is good either way; 2 at the most."""
    if not gate.at_least:
        return min(2.0, value / gate.bound)
    return min(2.0, gate.bound / value) if value > 0 else 2.0
