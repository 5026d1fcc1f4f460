"""The figures of the debugging benchmark: from what every model answered to recoveries, intervals and shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from benchmarks.debugging_runs import BASE, CONTROLS, KIND, NOTES, OURS, shares
from benchmarks.debugging_statistics import figure, holm
from training.debugging.slices import ALIGNED, COUNTER
from training.debugging.strategies import STRATEGIES
from training.scenes.config import confound_cue

Seed = Mapping[str, Any]
"""What one seed's models answered, by name."""


def summarise(seeds: Sequence[Seed]) -> dict[str, Any]:
    """Bring the seeds of one co-occurrence together.

    Gains are paired by seed; a recovery is a gain on the counter slice over the mean `confound_drop`, so that a seed
    whose drop is small does not weigh more.

    Returns:
        "confound_drop": accuracy of the base on aligned minus on counter test scenes, mean over seeds; "strategies" by
        name: `recovery` and `interval` (95 %, Student's over seeds), `original_change` (of the accuracy on all of
        test) with its interval, `aligned_change`, `failures` (accuracy on what the base got wrong), `seconds` of a
        retraining (median); "against_ours": recovery of ours minus each other's, Holm-corrected together; "controls"
        and "against_controls" alike; "concepts"; "base" accuracies by slice; "seeds".
    """
    base = [shares(seed[BASE], seed[BASE]) for seed in seeds]
    drops = [found["aligned"] - found["counter"] for found in base]
    drop = fmean(drops)
    answered = {n: [shares(seed[n], seed[BASE]) for seed in seeds] for n in seeds[0] if n not in (BASE, NOTES)}

    def changes(name: str, where: str) -> list[float]:
        return [after[where] - before[where] for after, before in zip(answered[name], base, strict=True)]

    recoveries = {name: [gain / drop for gain in changes(name, "counter")] for name in answered}
    rows = {}
    for name in answered:
        recovery, whole = figure(recoveries[name]), figure(changes(name, "test"))
        rows[name] = {
            "recovery": recovery["mean"],
            "interval": recovery["interval"],
            "by_seed": recovery["values"],
            "original_change": whole["mean"],
            "original_interval": whole["interval"],
            "aligned_change": fmean(changes(name, "aligned")),
            "failures": fmean(found["failures"] for found in answered[name]),
            "seconds": median(seed[name]["seconds"] for seed in seeds),
            "cpu_seconds": median(seed[name]["cpu_seconds"] for seed in seeds),
        }

    def beyond(names: Sequence[str]) -> dict[str, Any]:
        pairs = {n: [a - b for a, b in zip(recoveries[OURS], recoveries[n], strict=True)] for n in names}
        return holm(pairs)

    controls = [name for name in CONTROLS if name in rows]
    return {
        "confound_drop": drop,
        "confound_drops": drops,
        "base": {where: fmean(found[where] for found in base) for where in ("test", "aligned", "counter")},
        "strategies": {name: rows[name] for name in STRATEGIES},
        "against_ours": beyond([name for name in STRATEGIES if name != OURS]),
        "controls": {name: rows[name] for name in controls},
        "against_controls": beyond(controls),
        "concepts": concepts(seeds),
        "seeds": len(seeds),
    }


def concepts(seeds: Sequence[Seed]) -> dict[str, Any]:
    """Confounded concepts found, all seeds together, in the order of "noise": "precision" (of those found, how many are
    the planted ones; None where none is found) and "recall" (of those planted, how many are found). Answers given
    without looking are noise "random".

    "by_class" sets the share of seeds in which a noiseless annotator finds a class's planted concept beside its cost,
    how far the base's accuracy on the class falls on the counter slice.
    """
    found: dict[str, Any] = {"noise": [], "precision": [], "recall": [], "by_class": _by_class(seeds)}
    for name in seeds[0][NOTES]:
        total = {key: sum(seed[NOTES][name][key] for seed in seeds) for key in ("found", "right", "planted")}
        found["noise"].append(name if name == "random" else float(name))
        found["precision"].append(total["right"] / total["found"] if total["found"] else None)
        found["recall"].append(total["right"] / total["planted"])
    return found


def _by_class(seeds: Sequence[Seed]) -> dict[str, dict[str, float]]:
    rows = {}
    for label in seeds[0][NOTES]["0"]["concepts"]:
        cue = confound_cue(label, KIND)
        told = [seed[NOTES]["0"]["concepts"][label] for seed in seeds]
        seen = [any(c["concept"] == cue and c["verdict"] == "confounded" for c in those) for those in told]
        rows[label] = {"found": fmean(seen), "cost": fmean(_cost(seed[BASE], label) for seed in seeds)}
    return rows


def _cost(base: Mapping[str, Any], label: str) -> float:
    """Accuracy of the base on a class's aligned scenes minus that on its counter scenes."""
    own = [
        row for row in zip(base["files"], base["right"], base["slices"], strict=True) if row[0].split("/")[0] == label
    ]
    aligned, counter = ([right for _, right, where in own if where == name] for name in (ALIGNED, COUNTER))
    return fmean(aligned) - fmean(counter)
