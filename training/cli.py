"""`saaa-train`: one subcommand a batch job.

Only the job asked for is imported, so `saaa-train --help` and a typing mistake answer at once. Options are
written with underscores or hyphens alike, or come from a YAML file; the command line overrides the file.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

from saaa.errors import SaaaError
from training.options import load_values, to_yaml
from training.stopping import Stopped


@dataclass(frozen=True)
class Job:
    """Where a subcommand lives: `module.options` is its configuration, `module.run` does it."""

    module: str
    options: str
    run: str
    summary: str
    files: str | None = None
    """The job that takes the line over when a file, not an option, comes first."""


JOBS: dict[str, Job] = {
    "scenes": Job("training.scenes", "ScenesConfig", "run", "render the procedural world"),
    "egdd": Job("training.egdd", "EgddConfig", "run", "train an image classifier"),
    "ega": Job("training.ega", "EgaConfig", "run", "train a captioner guided by scene graphs", files="ega published"),
    "ega published": Job(
        "training.ega", "PublishedConfig", "run_published", "the same as published: saaa-train ega model.json path.json"
    ),
    "ega prepare": Job("training.ega", "PrepareConfig", "prepare", "write model.json and path.json for a data folder"),
    "evaluate egdd": Job("training.egdd", "EvaluateConfig", "evaluate", "measure a classifier on a folder"),
    "evaluate ega": Job("training.ega", "EvaluateConfig", "evaluate", "measure a captioner"),
    "attribute": Job("training.attribute", "AttributeConfig", "run", "explain a whole data set"),
    "annotate export": Job(
        "training.annotation", "ExportConfig", "export_tasks", "make annotation tasks of attributions"
    ),
    "annotate serve": Job("training.annotation", "ServeConfig", "serve_tasks", "have tasks answered in Label Studio"),
    "annotate import": Job("training.annotation", "ImportConfig", "import_answers", "read people's answers about them"),
    "concepts": Job("training.debugging", "ConceptsConfig", "list_concepts", "have a language model list concepts"),
    "debug-train": Job(
        "training.debugging",
        "DebugTrainConfig",
        "run",
        "repair a classifier: a debug set, retraining, a report",
    ),
    "archive egdd": Job("training.egdd", "ArchiveConfig", "archive", "make a servable archive of a classifier"),
    "archive ega": Job("training.ega", "ArchiveConfig", "archive", "make a servable archive of a captioner"),
    "asg coco": Job("training.asg", "AsgCocoConfig", "run_coco", "make scene graphs of COCO's captions and boxes"),
    "evaluate asg": Job("training.asg", "EvaluateAsgConfig", "evaluate", "measure the parser of captions"),
    "features": Job("training.features", "FeaturesConfig", "run", "make features of images and boxes"),
    "pack": Job("training.pack", "PackConfig", "run", "pack region files, captions and features into a cache"),
    "shards": Job("training.egdd", "ShardsConfig", "make_shards", "pack class folders into WebDataset shards"),
}
DONE = 0
USAGE_ERROR = 2
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, run it again."""
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What is asked of every job beside its own options."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """Take options from this file; those given here override it."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all options as such a file, and do nothing else."""


Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Call(ConfigFile, Generic[Options]):
    """One command line."""

    options: Annotated[Options, tyro.conf.arg(name="")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: what follows the program's name; None is the process's own.

    Returns:
        The exit code: 0 done, 2 the options or the data are wrong (one line on standard error says what), 75 stopped
        by SIGTERM with its state saved (start it again to go on), 130 stopped by the user.
    """
    # Read when torch loads its thread pool: threads that wait for each other sleep instead of spinning. On a machine
    # that also does something else, spinning makes training several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = _split(words)
    if name is None:
        asked = not words or words[0] in ("-h", "--help")
        _say(_usage(words), error=not asked)
        return DONE if asked else USAGE_ERROR
    job = JOBS[name]
    try:
        module = importlib.import_module(job.module)
        with _heard_once():
            call = _parse(getattr(module, job.options), rest, name)
        if call.print_config:
            _say(to_yaml(call.options).rstrip(), error=False)
        else:
            getattr(module, job.run)(call.options)
    except SaaaError as error:
        _say(f"saaa-train {name}: {error.message}", error=True)
        return USAGE_ERROR
    except KeyboardInterrupt as stop:
        _say(f"saaa-train {name}: {str(stop) or 'stopped'}", error=True)
        return PREEMPTED if isinstance(stop, Stopped) and stop.signal == signal.SIGTERM else INTERRUPTED
    return DONE


def _parse(options: type[Options], words: list[str], name: str) -> Call[Options]:
    """Read a job's command line. The file that it names, if any, comes first: its values are tyro's defaults, so
    --help shows them and what it lacks is still required."""
    prog = f"saaa-train {name}"
    source, _ = tyro.cli(ConfigFile, args=words, prog=prog, add_help=False, return_unknown_args=True)
    # An instance that was never validated: the command line may yet override what is wrong, or complete it.
    defaults = object.__new__(options)
    vars(defaults).update({f.name: tyro.MISSING for f in fields(options) if f.default is MISSING})  # type: ignore[arg-type]
    if source.config is not None:
        vars(defaults).update(load_values(source.config, options))
    summary = JOBS[name].summary
    return tyro.cli(
        Call[options],  # type: ignore[valid-type]
        default=Call(options=defaults),
        args=words,
        prog=prog,
        description=f"{summary[0].upper()}{summary[1:]}.",
        use_underscores=True,
    )


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    """Take the subcommand, of one or two words, off the arguments; None when there is none of that name."""
    for length in (2, 1):
        name, rest = " ".join(words[:length]), words[length:]
        if len(words) >= length and name in JOBS:
            other = JOBS[name].files
            return (other if other and rest and not rest[0].startswith("-") else name), rest
    return None, words


def _usage(words: list[str]) -> str:
    lines = []
    if words and words[0] not in ("-h", "--help"):
        lines.append(f"saaa-train: there is no job {' '.join(words[:2])!r}.")
    lines.append("usage: saaa-train JOB [options]     (saaa-train JOB --help lists the options)\n\njobs:")
    lines.extend(f"  {name:<14} {job.summary}" for name, job in JOBS.items())
    return "\n".join(lines)


def _under_torchrun() -> bool:
    """Whether torchrun started this process and keeps a store that its processes share."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _say(text: str, *, error: bool) -> None:
    """Print a text. Of the processes of one torchrun only the first that comes prints it: each may fail for the same
    reason, and torchrun ends the others as soon as one has, so that it cannot always be the same one."""
    if _under_torchrun():
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
            if store.add(f"saaa-train {os.environ['TORCHELASTIC_RESTART_COUNT']} {text}", 1) > 1:
                return
        except RuntimeError:  # torchrun itself has ended: better twice than never
            pass
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def _heard_once() -> Iterator[None]:
    """Let what tyro prints (help, mistakes in the options) go the way of `_say`."""
    if not _under_torchrun():
        yield
        return
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        for text, error in ((out.getvalue(), False), (err.getvalue(), True)):
            if text:
                _say(text.rstrip(), error=error)
