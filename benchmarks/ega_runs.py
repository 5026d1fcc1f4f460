"""Training runs that are made once: train, measure, keep the figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.steps import command

FEATURES = "features"


def measured(
    folder: Path, train: Sequence[str | Path], evaluate: Sequence[str | Path], *, served: str = "best.pt"
) -> dict[str, Any]:
    """Train a captioner and measure it, unless `folder` holds the figures of just these commands; a run that was
    stopped goes on.

    The features, which are large and the same for runs on the same data, lie beside `folder`.

    Args:
        folder: of this run.
        train: words of `saaa-train ega`, without its output_dir.
        evaluate: words of `saaa-train evaluate ega`, without checkpoint and output.
        served: the checkpoint that is measured.

    Returns:
        The JSON of `saaa-train evaluate ega`.
    """
    commands = {"train": [str(word) for word in train], "evaluate": [str(word) for word in evaluate], "served": served}
    note, figures, shared = folder / "commands.json", folder / "held_out.json", folder.parent / FEATURES
    if not note.exists() or json.loads(note.read_text()) != commands:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(json.dumps(commands, indent=1) + "\n")
    if not figures.exists():
        if shared.exists() and not (folder / FEATURES).exists():
            shared.rename(folder / FEATURES)
        last = folder / "last.pt"
        goes_on = ["--resume", last] if last.exists() else []
        command("saaa-train", "ega", *train, "--output_dir", folder, *goes_on)
        if (folder / FEATURES).exists() and not shared.exists():
            (folder / FEATURES).rename(shared)
        command("saaa-train", "evaluate", "ega", *evaluate, "--checkpoint", folder / served, "--output", figures)
    result: dict[str, Any] = json.loads(figures.read_text())
    return result


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that there are; None when there is none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def means(reports: Sequence[Any]) -> Any:
    """The means of equal structures of numbers, figure by figure."""
    there = [report for report in reports if report is not None]
    if there and isinstance(there[0], Mapping):
        return {name: means([report[name] for report in there]) for name in there[0]}
    return mean(there)
