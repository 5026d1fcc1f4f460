"""What the captioner's captions are worth: on the procedural world, and on photographs.

    python -m benchmarks.ega [--parts world coco] [--data ../shared/data]

`world` trains with and without the explanation loss (`benchmarks.ega_world`), `coco` on coco-mini
(`benchmarks.ega_coco`). Runs are kept below `build/bench/ega`, so a run is made once and the command can be stopped and
called again. Writes `build/bench/ega.json`, part by part, and prints it last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import ega_coco, ega_world
from benchmarks.figures import add_figures

Part = Literal["world", "coco"]
KEYS = ("cider_with", "cider_without", "node_accuracy", "mention", "object_precision", "graphs", "coco_mini")
"""What ega.json always has; null is not measured."""
GATES = (
    (("with_above_without", "interval", 0), 0.0),
    (("node_accuracy", "with"), 0.90),
    (("mention", "object"), 0.95),
    (("mention", "attribute"), 0.90),
    (("mention", "relationship"), 0.85),
    (("object_precision",), 0.95),
    (("proposed_above_shuffled", "interval", 0), 0.0),
)
"""Where a figure is, and what it must reach; the first and the last are lower ends of intervals."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    parts: tuple[Part, ...] = ("world", "coco")
    """What ega.json already says of the rest is kept."""
    data: Path = Path("../shared/data")
    """Folder that holds coco-mini."""
    demo: Path = Path("build/demo")
    """Output folder of the world demo; its EGDD archive proposes graphs; without it one is trained."""
    output: Path = Path("build/bench")
    seeds: int = 3
    """Of the world."""
    folds: int = ega_coco.FOLDS
    """Of coco-mini: how many of the five are held out."""


def main(options: Options) -> None:
    """Measure the parts, print the table and the gates, write the JSON."""
    if "coco" in options.parts and not (options.data / "coco-mini").is_dir():
        raise SystemExit(f"{options.data / 'coco-mini'} is missing: give the folder that holds it with --data")
    path, runs = options.output / "ega.json", options.output / "ega"
    runs.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        if part == "world":
            measured = ega_world.world(options.demo, runs / "world", range(options.seeds))
        else:
            measured = {"coco_mini": ega_coco.coco(options.data, runs / "coco", options.folds)}
        add_figures(path, measured, KEYS)
    figures = json.loads(path.read_text())
    report(figures)
    print(json.dumps(figures))


def report(figures: Mapping[str, Any]) -> None:
    """Print the tables, and the gates of what was measured."""
    if figures["cider_with"] is not None:
        print("\nworld, CIDEr by seed")
        for name in ("with", "without"):
            print(f"  {name + ' explanation loss':<26}" + "".join(f"{v:9.1f}" for v in figures[f"cider_{name}"]))
        print(f"  with above without: {_interval(figures['with_above_without'])}")
        print(f"\n{'along the graph':<18}{'CIDEr':>8}{'object recall':>15}{'precision':>11}")
        for kind, row in figures["graphs"].items():
            print(f"{kind:<18}{row['cider']:8.1f}{row['object_recall']:15.3f}{row['object_precision']:11.3f}")
        print(f"proposed above shuffled: {_interval(figures['proposed_above_shuffled'])}\n")
        for place, bound in GATES:
            value: Any = figures
            for key in place:
                value = value[key]
            name = ".".join(map(str, place))
            print(f"{'ok    ' if value >= bound else 'MISSED'} {name} {value:.3g}, at least {bound:g}")
    if (coco := figures["coco_mini"]) is not None:
        names = list(coco["metrics"]["guided"])
        print(f"\ncoco-mini, {coco['regions']} captions of {coco['pictures']} held-out pictures")
        print(f"{'':<14}" + "".join(f"{name:>10}" for name in names) + f"{'objects':>10}{'precision':>11}")
        for kind, row in coco["metrics"].items():
            shares = (coco["mention"][kind]["object"], coco["object_precision"][kind])
            print(f"{kind:<14}" + "".join(_number(row[name]) for name in names) + "".join(f"{v:10.3f}" for v in shares))
        for other in ega_coco.KINDS[1:]:
            print(f"CIDEr, guided above {other}: {_interval(coco[f'guided_above_{other}'])}")


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.2f}"


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["interval"]
    return f"{figures['difference']:.1f} (95 % {low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
