"""What `benchmarks.simulate` says: the comparison, pods and cost by rate, the scenarios, and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.simulate_cluster import Scaled
from benchmarks.simulate_pod import Asked, Figures
from benchmarks.simulate_scaler import ROOT

WITHIN = 0.15
RATES = (10, 1_000, 100_000)
DOC = ROOT / "docs/scaling.md"
IMAGE_BYTES = 100_000
"""Of `benchmarks.serving_material`."""
_NAMES = {
    "throughput": ("answers a second", 1.0),
    "shed": ("share refused or expired", 1.0),
    "p50": ("p50 of the answered, ms", 1000.0),
    "p95": ("p95 of the answered, ms", 1000.0),
}


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Assumptions, not anybody's price list; set them to yours."""

    vcpu_hour: float = 0.04
    """Of one vCPU and its memory."""
    gpu_hour: float = 2.5
    """Of a node with one GPU."""


def differences(real: Figures, simulated: Figures) -> dict[str, float]:
    """Simulated / real - 1."""
    theirs = asdict(simulated)
    return {name: theirs[name] / value - 1.0 for name, value in asdict(real).items()}


def compared(real: Figures, simulated: Figures) -> list[str]:
    """A table, in Markdown."""
    lines = ["| one pod, bursty arrivals | real facade | simulated | difference |", "| --- | --- | --- | --- |"]
    theirs, found = asdict(simulated), differences(real, simulated)
    for name, value in asdict(real).items():
        text, unit = _NAMES[name]
        verdict = "" if abs(found[name]) <= WITHIN else f" (missed: more than {WITHIN:.0%})"
        lines.append(f"| {text} | {value * unit:.4g} | {theirs[name] * unit:.4g} | {found[name]:+.1%}{verdict} |")
    return lines


def pod_vcpu() -> float:
    """What one pod asks for in `deploy`; init containers that end are not counted."""
    spec = yaml.safe_load((ROOT / "deploy/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    staying = [each for each in spec["initContainers"] if each.get("restartPolicy") == "Always"] + spec["containers"]
    return sum(float(each["resources"]["requests"]["cpu"]) for each in staying)


def pods_for(rate: float, capacity: float, busy: float, least: int) -> int:
    """Pods for so many requests a second, each used to the part `busy` of its capacity."""
    return max(least, math.ceil(rate / (capacity * busy)))


def costs(capacity: float, busy: float, least: int, most: int, prices: Prices) -> list[str]:
    """Pods and cost by rate, in Markdown."""
    vcpu = pod_vcpu()
    lines = [
        "| requests a second | CPU pods | vCPU | an hour | a million requests |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rate in RATES:
        pods = pods_for(rate, capacity, busy, least)
        hour = pods * vcpu * prices.vcpu_hour
        beyond = f" (above maxReplicaCount {most})" if pods > most else ""
        each = hour / (rate * 3600) * 1e6
        lines.append(f"| {rate:,} | {pods:,}{beyond} | {pods * vcpu:,.0f} | {hour:,.2f} | {each:.2f} |")
    even = prices.gpu_hour / (vcpu * prices.vcpu_hour)
    return [
        *lines,
        "",
        f"Assumed: {prices.vcpu_hour:g} a vCPU hour, {prices.gpu_hour:g} a GPU hour (`--prices.vcpu_hour`, "
        "`--prices.gpu_hour`).",
        "GPU capacity is not measured. With C requests a second of one GPU pod: pods = ceil(rate / "
        f"({busy:g} C)), an hour = pods x {prices.gpu_hour:g}; it is cheaper than CPU where C is above "
        f"{even:.1f} times a CPU pod's capacity, here {even * capacity:,.0f} a second.",
    ]


def bottlenecks(worker: float, workers: int, edge: Mapping[str, float], shares: Mapping[str, float], most: int) -> str:
    """The measured ceilings of one pod and of all, the lowest first, in Markdown."""
    facade = 1.0 / sum(shares[name] * seconds for name, seconds in edge.items())
    of_pod = {
        f"its {workers} workers: {worker:.1f} requests a second each": worker * workers,
        f"its facade process: {1000 / facade:.1f} ms of one core a request (transport, decoding, lanes)": facade,
        f"10 Gbit/s of network at {IMAGE_BYTES / 1000:.0f} KB an image": 10e9 / 8 / IMAGE_BYTES,
    }
    ordered = sorted(of_pod.items(), key=lambda each: each[1])
    lines = [f"{place}. {text}: {rate:,.0f} a second" for place, (text, rate) in enumerate(ordered, 1)]
    least = min(of_pod.values())
    lines.append(f"\nThe autoscaler's `maxReplicaCount` of {most} ends all at {most * least:,.0f} a second.")
    flow = RATES[-1] * IMAGE_BYTES * 8 / 1e9
    lines.append(f"At {RATES[-1]:,} requests a second the images alone are {flow:,.0f} Gbit/s: the balancer is next.")
    return "\n".join(lines)


def short_of_pods(scaled: Scaled, offered: NDArray[np.float64], capacity: float) -> tuple[float, float]:
    """Seconds in which more came, over 30 s, than the ready pods can answer; and the longest such stretch."""
    smooth = np.convolve(offered, np.ones(30) / 30, "same")
    when = [seconds for seconds, _, _ in scaled.pods]
    ready = np.asarray([count for _, _, count in scaled.pods])
    at = np.searchsorted(when, np.arange(len(offered)), "right") - 1
    short = smooth > ready[at] * capacity
    longest = run = 0
    for each in short:
        run = run + 1 if each else 0
        longest = max(longest, run)
    return float(short.sum()), float(longest)


def scenarios(found: Mapping[str, Scaled], lags: Mapping[str, tuple[float, float]]) -> list[str]:
    """A table, in Markdown."""
    lines = [
        "| pods | shed | p95, ms | mean pods | most | seconds too few | longest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, scaled in found.items():
        shed, p95 = scaled.figures.shed, scaled.figures.p95 * 1000
        short, longest = lags[name]
        pods = f"{scaled.mean_pods:.1f} | {scaled.most_pods}"
        lines.append(f"| {name} | {shed:.1%} | {p95:.0f} | {pods} | {short:.0f} | {longest:.0f} |")
    return lines


def draw(
    path: Path,
    real: Sequence[Asked],
    simulated: Sequence[Asked],
    found: Mapping[str, Scaled],
    offered: NDArray[np.float64],
    capacity: float,
) -> None:
    """Latencies of the answered, real and simulated; below them each scenario's pods, and what was shed."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(14, 11), layout="constrained")
    top, middle, low = sheet.subplots(3, 1)
    for name, asked in (("real facade", real), ("simulated", simulated)):
        times = np.sort([each.seconds for each in asked if each.outcome == "answered"])
        top.plot(times * 1000, np.arange(1, len(times) + 1) / len(asked), label=name)
    top.set(xlabel="ms", ylabel="share of all requests answered by then", title="One pod, bursty arrivals")
    top.legend()
    seconds = np.arange(len(offered))
    smooth = np.convolve(offered, np.ones(15) / 15, "same")
    middle.fill_between(seconds, smooth / capacity, color="0.85", label="offered, in pods' capacity (15 s mean)")
    for name, scaled in found.items():
        when, _, ready = zip(*scaled.pods, strict=True)
        middle.step(when, ready, where="post", label=name)
        lost = np.asarray([each.at for each in scaled.asked if each.outcome != "answered"])
        edges = np.arange(0, len(offered) + 15, 15)
        low.step(edges[:-1], np.histogram(lost, edges)[0] / 15, where="post", label=name)
    middle.set(ylabel="ready pods", title="Synthetic bursts and the autoscaler")
    low.set(xlabel="seconds", ylabel="refused or expired a second")
    middle.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    sheet.savefig(path, dpi=100)


def summary(scaled: Scaled) -> dict[str, Any]:
    """For the JSON file."""
    return {
        **asdict(scaled.figures),
        "mean_pods": scaled.mean_pods,
        "most_pods": scaled.most_pods,
        "pod_hours": scaled.pod_hours,
        "pods": list(scaled.pods),
    }
