"""Data debugging measured: do people's concepts repair a model better than the six other strategies do?

    python -m benchmarks.debugging [--parts world difficulty loop scenes15] [--data ../shared/data]

world: a base model on the confounded world, then seven retrained ones from the same start with the same budget and as
many steps, ten seeds, and five with a weaker confound; controls with random answers and shuffled concepts. difficulty:
planted hard instances. loop: `saaa-train debug-train` from nothing, timed. scenes15: the strategies that choose, on
photographs. All settings are in debugging.yaml, committed before any result was looked at. The annotator is simulated:
it sees the maps and what is in the scenes, never which confound a scene carries.

Every model's answers are kept below `build/bench/debugging`, so the command can be stopped and called again. Writes
`build/bench/debugging.json`, part by part, and debugging.png.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from benchmarks.figures import add_figures

Part = Literal["world", "difficulty", "loop", "scenes15"]
SETTINGS = Path(__file__).with_name("debugging.yaml")
MAIN = "main"
KEYS = ("confound_drop", "strategies", "concepts", "difficulty_auc", "loop_minutes", "scenes15")
"""What debugging.json always has; null is not measured."""
LOOP_SEED = 99


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and where."""

    parts: tuple[Part, ...] = ("difficulty", "world", "loop", "scenes15")
    """What debugging.json already says of the rest is kept."""
    runs: tuple[str, ...] = ()
    """Of the world, by their names in debugging.yaml; default: all."""
    data: Path = Path("../shared/data")
    """Folder that holds scenes15."""
    output: Path = Path("build/bench")
    processes: int = 2
    """Seeds at a time, each with one thread."""


def main(options: Options) -> None:
    """Measure the parts, print the tables and the gates, write the JSON and the plot."""
    settings = yaml.safe_load(SETTINGS.read_text())
    measures: Mapping[Part, Callable[[Options, Mapping[str, Any]], dict[str, Any]]] = {
        "world": world,
        "difficulty": difficulty,
        "loop": loop,
        "scenes15": photographs,
    }
    path = options.output / "debugging.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        add_figures(path, measures[part](options, settings), KEYS)
    figures = json.loads(path.read_text())
    if figures["strategies"]:
        from benchmarks.debugging_plot import draw

        draw(figures, path.with_suffix(".png"))
    report(figures)
    print(json.dumps(figures))


def world(options: Options, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The runs of the world: the main one's figures, and those of the others below their names."""
    from benchmarks.debugging_runs import measured
    from benchmarks.debugging_summary import summarise

    found: dict[str, Any] = {}
    for run in settings["runs"]:
        if not options.runs or run["name"] in options.runs:
            folder = options.output / "debugging" / run["name"]
            summary = summarise(measured(folder, settings, run, options.processes))
            summary["co_occurrence"] = run["co_occurrence"]
            found |= summary if run["name"] == MAIN else {run["name"]: summary}
    return found


def difficulty(options: Options, settings: Mapping[str, Any]) -> dict[str, Any]:
    """AUCs of the scorers of difficulty."""
    from benchmarks import debugging_difficulty

    folder = options.output / "debugging" / "difficulty"
    found = debugging_difficulty.difficulty(folder, settings["difficulty"])
    shutil.rmtree(folder)
    return {"difficulty_auc": found}


def loop(options: Options, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Minutes of the whole loop as a person starts it, the world's drawing left out."""
    from training.scenes.config import ScenesConfig
    from training.scenes.writer import run

    told, folder = settings["world"], options.output / "debugging" / "loop"
    labels = told["classes"]
    shutil.rmtree(folder, ignore_errors=True)
    run(
        ScenesConfig(
            output_dir=folder / "world",
            classes=tuple(labels),
            **{split: told[split] * len(labels) for split in ("train", "val", "test")},
            seed=LOOP_SEED,
            confound=tuple(f"{label}=object" for label in labels),
            confound_strength=settings["runs"][0]["co_occurrence"],
            confound_held_out=told["held_out"],
        )
    )
    words = ["--data", folder / "world", "--out", folder / "out", "--annotator", "simulated", "--strategy", "ours"]
    words += ["--budget", settings["budget"]]
    began = time.monotonic()
    _training("debug-train", *words)
    minutes = (time.monotonic() - began) / 60
    shutil.rmtree(folder / "world")
    return {"loop_minutes": minutes}


def _training(*words: object) -> None:
    """One of the trainer's jobs, of this very code."""
    import subprocess

    command = [sys.executable, "-m", "training", *map(str, words)]
    print("$ python", *command[1:], flush=True)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def photographs(options: Options, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The strategies that choose, on scenes15."""
    from benchmarks.debugging_scenes15 import scenes15

    if not (options.data / "scenes15").is_dir():
        print(f"{options.data / 'scenes15'} is missing: the photographs are left out")
        return {}
    folder = options.output / "debugging" / "scenes15"
    return {"scenes15": scenes15(options.data / "scenes15", folder, settings["scenes15"], options.processes)}


def report(figures: Mapping[str, Any]) -> None:
    """Print the tables, and the gates of what was measured."""
    if figures["strategies"]:
        _table("co-occurrence 0.95", figures)
        if figures.get("weaker"):
            _table("co-occurrence 0.80", figures["weaker"])
    if found := figures["scenes15"]:
        print(f"\nscenes15: base {_share(found['base'])}")
        for name, row in found.items():
            if name != "base":
                above = f"   above s-random {_share(row['above_random'])}" if "above_random" in row else ""
                print(f"  {name:<20}change {_share(row['test_change'])}   failures {_share(row['failures'])}{above}")
    if found := figures["difficulty_auc"]:
        print("\ndifficulty of planted hard instances, AUC: " + _aucs(found))
    print("\ngates")
    for text, reached in gates(figures):
        print(f"  {'ok    ' if reached else 'MISSED'} {text}")


def _table(title: str, found: Mapping[str, Any]) -> None:
    base = found["base"]
    print(
        f"\n{title}, {found['seeds']} seeds; simulated annotator. Base: {100 * base['test']:.1f} % on test, "
        f"{100 * base['aligned']:.1f} aligned, {100 * base['counter']:.1f} counter"
    )
    titles = f"{'test':>8}{'aligned':>9}{'failures':>10}{'ours above':>14}{'Holm 95 %':>18}"
    print(f"{'':<26}{'recovery':>9}{'95 %':>16}{titles}")
    above = {**found["against_ours"], **found["against_controls"]}
    for name, row in {**found["strategies"], **found["controls"]}.items():
        low, high = row["interval"]
        line = f"{name:<26}{row['recovery']:9.2f}{f'{low:.2f} to {high:.2f}':>16}{100 * row['original_change']:+8.1f}"
        line += f"{100 * row['aligned_change']:+9.1f}{100 * row['failures']:10.1f}"
        if ours := above.get(name):
            low, high = ours["interval"]
            line += f"{ours['difference']:+14.2f}{f'{low:+.2f} to {high:+.2f}':>18}"
        print(line)
    noted = found["concepts"]
    for noise, precision, recall in zip(noted["noise"], noted["precision"], noted["recall"], strict=True):
        exact = "none found" if precision is None else f"precision {precision:.2f}"
        print(f"  confounded concepts, noise {noise}: {exact}, recall {recall:.2f}")
    rows = [f"{label} {row['found']:.1f} ({100 * row['cost']:.0f})" for label, row in noted["by_class"].items()]
    print(f"  found in so many of the seeds (points that the counter slice costs the class): {', '.join(rows)}")


def gates(figures: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What must be reached, in words, and whether it is."""
    found: list[tuple[str, bool]] = []
    if figures["strategies"]:
        drop, ours = figures["confound_drop"], figures["strategies"]["ours"]
        found.append((f"the confound costs {100 * drop:.1f} points, at least 15", drop >= 0.15))
        found.append((f"ours recovers {ours['recovery']:.2f}, at least 0.60", ours["recovery"] >= 0.6))
        for name, row in figures["against_ours"].items():
            low, high = row["interval"]
            found.append((f"ours above {name}: {row['difference']:.2f} ({low:.2f} to {high:.2f}), above 0", low > 0))
        change = 100 * ours["original_change"]
        found.append((f"original test {change:+.1f} points, at least -1", change >= -1))
        noted = figures["concepts"]
        for noise, bound in ((0.0, 0.9), (0.2, 0.75)):
            place = noted["noise"].index(noise)
            for key in ("precision", "recall"):
                value = noted[key][place] or 0.0
                found.append((f"{key} of concepts {value:.2f} with noise {noise:g}, at least {bound}", value >= bound))
    if auc := figures["difficulty_auc"]:
        low = auc["relation_aware_above_mean"]["interval"][0]
        found.append((f"relation-aware AUC above the mean's, interval from {low:.3f}, above 0", low > 0))
    if figures["loop_minutes"] is not None:
        minutes = figures["loop_minutes"]
        found.append((f"the whole loop takes {minutes:.1f} minutes, at most 20", minutes <= 20))
    return found


def _share(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['mean']:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f})"


def _aucs(found: Mapping[str, Any]) -> str:
    parts = []
    for name in ("relation_aware", "relation_aware_mean", "mean"):
        above = found.get(f"{name}_above_mean")
        more = (
            f" ({above['difference']:+.3f}, {above['interval'][0]:+.3f} to {above['interval'][1]:+.3f})"
            if above
            else ""
        )
        parts.append(f"{name} {found[name]:.3f}{more}")
    return ", ".join(parts)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.debugging", description=__doc__, use_underscores=True))
