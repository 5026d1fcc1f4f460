"""The captioner measured: reading, training step, decoding, memory; each against a plain implementation.

    python -m benchmarks.captioner [--parts read decode train] [--threads 1]

Published sizes: 2048 features, width 512, 2 graph layers, 10,000 words, captions of 8 to 14 words, graphs of 4 to 10
nodes, float32, random weights, so that nothing ends early. The plain side (`plain_captioner`) pads graphs to 10 nodes
and always trains 24 and decodes 25 steps. Both sides run in turn; medians are taken. Writes
`build/bench/captioner.json`, part by part.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Read when torch loads its threads; what `saaa-train` sets.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import add_figures
from benchmarks.plain_captioner import PlainCaptioner
from saaa.models.captioner import BOS, EOS, SPECIAL, Captioner, CaptionerConfig, GraphBatch, collate, search
from saaa.role_graph import RoleGraph

Part = Literal["read", "decode", "train"]
Side = Literal["ours", "plain"]
SIDES: tuple[Side, ...] = ("ours", "plain")
NODES, WORDS, TOKENS, STEPS, SIZE = 10, 10_000, 25, 25, 2048
TRAIN_BATCH = 128
CASES = (("greedy1", 1, 1), ("greedy16", 16, 1), ("beam5_1", 1, 5), ("beam5_16", 16, 5))
"""Name, batch and beam width of what is decoded."""
KEYS = (
    "read_per_s",
    "train_captions_per_s",
    "greedy16_captions_per_s",
    "beam5_16_captions_per_s",
    "peak_rss_mb",
    "gemm_fraction",
)
"""What captioner.json always has; null is not measured."""
GATES = (
    ("read_ratio", True, 10.0),
    ("train_ratio", True, 2.5),
    ("loss_gap", False, 1e-5),
    ("peak_rss_ratio", False, 0.6),
    ("greedy1_ratio", True, 3.0),
    ("greedy16_ratio", True, 2.0),
    ("beam5_1_ratio", True, 2.5),
    ("beam5_16_ratio", True, 1.4),
)
"""Figure, whether it must be at least (or at most) so much."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to measure, and where."""

    output: Path = Path("build/bench")
    parts: tuple[Part, ...] = ("read", "decode", "train")
    """What to measure; what captioner.json already says of the rest is kept."""
    rounds: int = 5
    """Timed runs of each kind, in turn; medians are taken."""
    threads: int = 1
    """Of torch."""
    memory_of: Side | None = None
    """Only train a few steps of one side and print this process's peak memory."""


@dataclass(frozen=True)
class Inputs:
    """B captions with what they describe."""

    regions: Tensor
    image: Tensor
    graphs: GraphBatch
    captions: Tensor
    lengths: Tensor

    @property
    def seen(self) -> tuple[Tensor, Tensor, GraphBatch]:
        """What encoding takes."""
        return self.regions, self.image, self.graphs


def main(options: Options) -> None:
    """Measure the parts, print the table and the gates, write the JSON."""
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        print(json.dumps(train_memory(options.memory_of)))
        return
    measures: Mapping[Part, Callable[[Options], dict[str, Any]]] = {"read": read, "decode": decode, "train": train}
    path = options.output / "captioner.json"
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        add_figures(path, measures[part](options), KEYS)
    figures = json.loads(path.read_text())
    report(figures)
    print(json.dumps(figures))


def read(options: Options) -> dict[str, Any]:
    """Samples a second from the packed cache and from the published files."""
    from benchmarks.captioner_read import measure

    found = measure(threads=options.threads, rounds=options.rounds)
    return {
        "read_per_s": found["read_per_s"],
        "read_plain_per_s": found["published_per_s"],
        "read_ratio": found["ratio"],
        "pack_s": found["pack_s"],
    }


def decode(options: Options) -> dict[str, Any]:
    """Milliseconds a step and captions a second of greedy and beam search, encoding included.

    Ours takes a step more: the one that closes captions at the limit.
    """
    captioner = make_captioner()
    plain = PlainCaptioner(captioner)
    weights = captioner.decoder.weights(frozen=True)
    figures: dict[str, Any] = {}
    for name, batch, width in CASES:
        data = make_inputs(batch)

        @torch.inference_mode()
        def ours(data: Inputs = data, width: int = width) -> None:
            state, guide = captioner.begin(*data.seen)
            found = search(captioner.decoder, state, guide, width=width, max_words=STEPS, weights=weights)
            assert int(found.lengths.min()) == STEPS

        def theirs(data: Inputs = data, width: int = width) -> None:
            if width == 1:
                plain.greedy(*data.seen, STEPS)
            else:
                plain.beam(*data.seen, STEPS, width)

        one, two = in_turn(ours, theirs, options.rounds)
        figures |= {
            f"{name}_captions_per_s": batch / one,
            f"{name}_plain_captions_per_s": batch / two,
            f"{name}_ms_per_step": {"ours": 1e3 * one / (STEPS + 1), "plain": 1e3 * two / STEPS},
            f"{name}_ratio": (two / STEPS) / (one / (STEPS + 1)),
        }
    return figures


def train(options: Options) -> dict[str, Any]:
    """Captions a second of a training step with Adam, loss, peak memory, share of the matrix library's peak."""
    captioner = make_captioner()
    data = make_inputs(TRAIN_BATCH)
    steps = {side: training_step(captioner, side, data) for side in SIDES}
    with torch.no_grad():
        gap = abs(float(loss_of(captioner, "ours", data)) - float(loss_of(captioner, "plain", data)))
    one, two = in_turn(steps["ours"], steps["plain"], max(2, options.rounds // 2))
    with FlopCounterMode(display=False) as counter:
        steps["ours"]()
    rate, peak = counter.get_total_flops() / one, matrix_rate()
    memory = {side: _peak(side, options) for side in SIDES}
    figures: dict[str, Any] = {
        "train_captions_per_s": TRAIN_BATCH / one,
        "train_plain_captions_per_s": TRAIN_BATCH / two,
        "train_ratio": two / one,
        "loss_gap": gap,
        "gflops": rate / 1e9,
        "gemm_gflops": peak / 1e9,
        "gemm_fraction": rate / peak,
        "peak_rss_mb": memory["ours"],
        "peak_rss_plain_mb": memory["plain"],
        "peak_rss_ratio": memory["ours"] / memory["plain"],
    }
    return figures | _bfloat16(captioner, data, two, options.rounds)


def _bfloat16(captioner: Captioner, data: Inputs, plain_s: float, rounds: int) -> dict[str, Any]:
    """The gain of bfloat16 autocast where the CPU computes in it; else null and why."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not ({"avx512_bf16", "amx_bf16"} & set(flags.split())):
        return {"train_bf16_ratio": None, "bf16_note": "this CPU does not compute in bfloat16"}
    with torch.no_grad():
        exact = float(loss_of(captioner, "ours", data))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = float(loss_of(captioner, "ours", data))
    step = training_step(captioner, "ours", data)

    def cast() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step()

    seconds, _ = in_turn(cast, lambda: None, max(2, rounds // 2))
    return {"train_bf16_ratio": plain_s / seconds, "bf16_loss_gap": abs(rounded - exact) / exact}


def loss_of(captioner: Captioner, side: Side, data: Inputs) -> Tensor:
    """The loss of the captions, by one side or the other."""
    if side == "ours":
        return captioner.loss(captioner.teach(*data.seen, data.captions, data.lengths))
    return PlainCaptioner(captioner).loss(*data.seen, data.captions, data.lengths)


def training_step(captioner: Captioner, side: Side, data: Inputs) -> Callable[[], None]:
    """A function that does one step of Adam."""
    optimiser = torch.optim.Adam(captioner.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss_of(captioner, side, data).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def in_turn(ours: Callable[[], None], plain: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median seconds of each, run alternately after one run that does not count."""
    seconds: dict[Callable[[], None], list[float]] = {ours: [], plain: []}
    for _ in range(rounds + 1):
        for run, times in seconds.items():
            begun = time.perf_counter()
            run()
            times.append(time.perf_counter() - begun)
    return statistics.median(seconds[ours][1:]), statistics.median(seconds[plain][1:])


def matrix_rate(size: int = 2048, runs: int = 5) -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def train_memory(side: Side) -> float:
    """Peak resident memory of this process after three training steps, in MB."""
    captioner = make_captioner()
    step = training_step(captioner, side, make_inputs(TRAIN_BATCH))
    for _ in range(3):
        step()
    # Not getrusage: that also knows the parent's size from before this program began.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def _peak(side: Side, options: Options) -> float:
    words = ["-m", "benchmarks.captioner", "--memory_of", side, "--threads", str(options.threads)]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def make_captioner() -> Captioner:
    """Of the published sizes, random weights, in evaluation mode: dropout would make the two sides differ."""
    torch.manual_seed(0)
    return Captioner(CaptionerConfig(vocabulary_size=WORDS)).eval()


def make_inputs(count: int, seed: int = 0) -> Inputs:
    """Random features, graphs and captions of likely sizes, always the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 15, count) + 2  # BOS and EOS count
    captions = np.full((count, TOKENS), EOS)
    captions[:, 0] = BOS
    chance = 1 / np.arange(1, WORDS - SPECIAL + 1)
    for row, length in enumerate(lengths):
        captions[row, 1 : length - 1] = SPECIAL + rng.choice(WORDS - SPECIAL, length - 2, p=chance / chance.sum())
    return Inputs(
        regions=torch.from_numpy(rng.standard_normal((count, NODES, SIZE), np.float32)),
        image=torch.from_numpy(rng.standard_normal((count, SIZE), np.float32)),
        graphs=collate([make_graph(rng) for _ in range(count)], nodes=NODES),
        captions=torch.from_numpy(captions),
        lengths=torch.from_numpy(lengths),
    )


def make_graph(rng: np.random.Generator) -> RoleGraph:
    """4 to 10 nodes, about half of them objects, the others attributes and relationships."""
    nodes = int(rng.integers(4, NODES + 1))
    links, looks = round(0.24 * nodes), round(0.28 * nodes)
    owners = rng.integers(0, nodes - links - looks, looks)
    types: list[int] = []
    orders: list[int] = []
    edges: list[tuple[int, int, int]] = []
    places: list[int] = []
    for thing in range(nodes - links - looks):
        place = len(types)
        places.append(place)
        types.append(0)
        orders.append(0)
        for order in range(1, int((owners == thing).sum()) + 1):
            edges += [(place, len(types), 0), (len(types), place, 1)]
            types.append(1)
            orders.append(order)
    for _ in range(links):
        subject, target = (places[k] for k in rng.choice(len(places), 2, replace=False))
        node = len(types)
        types.append(2)
        orders.append(0)
        edges += [(subject, node, 2), (node, subject, 3), (node, target, 4), (target, node, 5)]
    return RoleGraph(np.array(types), np.array(orders), np.tile([0, 0, 1, 1], (nodes, 1)), np.array(edges))


def report(figures: Mapping[str, Any]) -> None:
    """Print the table, and the gates of what was measured."""
    print(f"\n{'':30}{'ours':>10}{'plain':>10}{'ratio':>8}")
    rows = [("samples read a second", "read_per_s", "read_plain_per_s", "read_ratio")]
    rows += [("captions trained a second", "train_captions_per_s", "train_plain_captions_per_s", "train_ratio")]
    rows += [
        (f"{name} captions a second", f"{name}_captions_per_s", f"{name}_plain_captions_per_s", f"{name}_ratio")
        for name, _, _ in CASES
    ]
    rows += [("peak MB of training", "peak_rss_mb", "peak_rss_plain_mb", "peak_rss_ratio")]
    for title, ours, plain, ratio in rows:
        if figures.get(ours) is not None:
            print(f"{title:<30}{figures[ours]:10.1f}{figures[plain]:10.1f}{figures[ratio]:8.2f}")
    if figures.get("gemm_fraction") is not None:
        rate, peak = figures["gflops"], figures["gemm_gflops"]
        print(f"training at {rate:.0f} GFLOP/s, {rate / peak:.0%} of the matrix library's {peak:.0f}")
    for name, at_least, bound in GATES:
        if figures.get(name) is not None:
            met = figures[name] >= bound if at_least else figures[name] <= bound
            rule = "at least" if at_least else "at most"
            print(f"{'ok    ' if met else 'MISSED'} {name} {figures[name]:.3g}, {rule} {bound:g}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
