"""`saaa-train`: one subcommand a batch job.

Only the job asked for is imported, so `saaa-train --help` and a typing mistake answer at once. Options are
written with underscores or hyphens alike.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from saaa.errors import SaaaError


@dataclass(frozen=True)
class Job:
    """Where a subcommand lives: `module.options` is its configuration, `module.run` does it."""

    module: str
    options: str
    run: str
    summary: str


JOBS: dict[str, Job] = {
    "scenes": Job("training.scenes", "ScenesConfig", "run", "render the procedural world"),
    "egdd": Job("training.egdd", "EgddConfig", "run", "train an image classifier"),
    "ega": Job("training.ega", "EgaConfig", "run", "train a captioner guided by scene graphs"),
    "evaluate egdd": Job("training.egdd", "EvaluateConfig", "evaluate", "measure a classifier on a folder"),
    "evaluate ega": Job("training.ega", "EvaluateConfig", "evaluate", "measure a captioner"),
    "attribute": Job("training.attribute", "AttributeConfig", "run", "explain a whole data set"),
    "archive egdd": Job("training.egdd", "ArchiveConfig", "archive", "make a servable archive of a classifier"),
    "archive ega": Job("training.ega", "ArchiveConfig", "archive", "make a servable archive of a captioner"),
}
USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: what follows the program's name; None is the process's own.

    Returns:
        The exit code: 0 done, 2 the options or the data are wrong (one line on standard error says what), 130
        stopped by the user.
    """
    # Read when torch loads its thread pool: threads that wait for each other sleep instead of spinning. On a machine
    # that also does something else, spinning makes training several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = _split(words)
    if name is None:
        asked = not words or words[0] in ("-h", "--help")
        print(_usage(words), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else USAGE_ERROR
    job = JOBS[name]
    try:
        module = importlib.import_module(job.module)
        # tyro's defaults: underscores and hyphens are the same, and the field comments are the help.
        import tyro

        options = tyro.cli(
            getattr(module, job.options),
            args=rest,
            prog=f"saaa-train {name}",
            description=f"{job.summary[0].upper()}{job.summary[1:]}.",
            use_underscores=True,
        )
        getattr(module, job.run)(options)
    except SaaaError as error:
        print(f"saaa-train {name}: {error.message}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt as stop:
        print(f"saaa-train {name}: {stop or 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Take the subcommand, of one or two words, off the arguments; None when there is none of that name."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in JOBS:
            return name, words[length:]
    return None, words


def _usage(words: list[str]) -> str:
    lines = []
    if words and words[0] not in ("-h", "--help"):
        lines.append(f"saaa-train: there is no job {' '.join(words[:2])!r}.")
    lines.append("usage: saaa-train JOB [options]     (saaa-train JOB --help lists the options)\n\njobs:")
    lines.extend(f"  {name:<14} {job.summary}" for name, job in JOBS.items())
    return "\n".join(lines)
