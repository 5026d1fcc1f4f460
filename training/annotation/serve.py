"""Tasks answered in Label Studio: started for a folder of `annotate export`, its answers fetched for `annotate import`.

In the folder of the tasks:

studio/     Label Studio's own data; see `training.annotation.studio_server`
answers/    attribution.json, rationale.json: the answers, as fetched last
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import DataError, StartFailed
from training.annotation.config import ServeConfig
from training.annotation.export import PICTURES, STUDIO
from training.annotation.studio_client import Refused, StudioClient, Unreachable
from training.annotation.studio_install import installed
from training.annotation.studio_lock import held
from training.annotation.studio_server import StudioServer, running
from training.files import whole, write_json
from training.progress import counter
from training.stopping import graceful_stop

STATE, ANSWERS = "studio", "answers"
KINDS = ("attribution", "rationale")
_BATCH = 250
"""Tasks of one request."""
_FILLED = "filled.json"
_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class _Tasks:
    """The tasks of one kind."""

    kind: str
    labels: str
    tasks: list[dict[str, Any]]

    @property
    def title(self) -> str:
        return f"saaa {self.kind}"


def serve_tasks(config: ServeConfig) -> dict[str, Any]:
    """Serve tasks until Ctrl-C (or SIGTERM), then fetch the answers; with `pull`, fetch them and end.

    Started again it goes on with the same projects.

    Returns:
        Of each kind of tasks: how many there are, and how many have answers.

    Raises:
        DataError: the folder holds no tasks, or cannot be written.
        StartFailed: Label Studio cannot be installed or started, or does not do as asked.
        KeyboardInterrupt: stopped before it was ready.
    """
    all_tasks = [_read(config.tasks, kind) for kind in KINDS]
    state = config.tasks / STATE
    if config.pull and not state.exists():
        raise DataError(f"{config.tasks} has not been served: there are no answers; leave --pull out to begin.")
    with graceful_stop() as stop, ExitStack() as stack:
        try:
            state.mkdir(exist_ok=True, mode=0o700)
            stack.enter_context(held(state / ".lock"))
        except BlockingIOError:
            client = running(state)
            if not config.pull:
                raise StartFailed(f"These tasks are served already, at {client.url}.") from None
            with _asking():
                return _pull(config.tasks, client, all_tasks)
        except OSError as error:
            raise DataError(f"{state} cannot be written: {error.strerror or error}") from error
        python = installed(config.environment, stop)
        port = 0 if config.pull else config.port
        server = StudioServer(python, state, config.tasks, port=port, stop=stop)
        first = "" if server.ready else " (it makes its database first, which takes a minute or two)"
        print(f"Starting Label Studio{first}", flush=True)
        stack.enter_context(server)
        if not config.pull:
            with _asking():
                _fill(config.tasks, server.client, all_tasks)
            print(f"{server.url}: log in as {server.credentials.email} with the password in {state}/credentials.json")
            print("Ctrl-C fetches the answers and stops it.", flush=True)
            while not stop and not server.ended():
                time.sleep(_LOOK_S)
            if why := server.ended():
                raise StartFailed(f"{why} Start the same command again to go on; no answer is lost.")
        with _asking():
            return _pull(config.tasks, server.client, all_tasks)


@contextmanager
def _asking() -> Iterator[None]:
    """Raises `StartFailed` where the server does not answer as it should."""
    try:
        yield
    except (Refused, Unreachable, KeyError, TypeError, ValueError) as error:
        raise StartFailed(
            f"Label Studio does not do as asked ({error}). No answer is lost: start the same command again."
        ) from error


def _read(folder: Path, kind: str) -> _Tasks:
    path = folder / STUDIO / f"{kind}.json"
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        labels = path.with_suffix(".xml").read_text(encoding="utf-8")
        ids = {task["data"]["task_id"] for task in tasks}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder} holds no tasks of `saaa-train annotate export`: {path} cannot be read.") from error
    if len(ids) < len(tasks):
        raise DataError(f"{path} has tasks of the same task_id; make the tasks anew with `saaa-train annotate export`.")
    return _Tasks(kind=kind, labels=labels, tasks=tasks)


def _fill(folder: Path, client: StudioClient, all_tasks: Sequence[_Tasks]) -> None:
    """Put the tasks into their projects; what is there stays as people left it."""
    done = folder / STATE / _FILLED
    filled = set(json.loads(done.read_text(encoding="utf-8"))["kinds"]) if done.exists() else set()
    for kind in all_tasks:
        if not kind.tasks:
            continue
        project = client.find(kind.title) or client.create(kind.title, kind.labels)
        client.show_pictures(project, str((folder / PICTURES).resolve()))
        if kind.kind in filled:
            continue  # a task that is missing now was taken out by a person
        there = {task["data"].get("task_id") for task in client.tasks(project)}
        missing = [task for task in kind.tasks if task["data"]["task_id"] not in there]
        with counter(kind.title, total=len(kind.tasks), done=len(there), unit="task") as bar:
            for first in range(0, len(missing), _BATCH):
                batch = missing[first : first + _BATCH]
                client.add(project, batch)
                bar.update(len(batch))
        filled.add(kind.kind)
        write_json(done, {"kinds": sorted(filled)})


def _pull(folder: Path, client: StudioClient, all_tasks: Sequence[_Tasks]) -> dict[str, Any]:
    """Fetch the answers; each file is whole or as it was."""
    counts: dict[str, Any] = {}
    files = []
    for kind in all_tasks:
        project = client.find(kind.title)
        if project is None:
            continue
        answers = client.export(project)
        path = folder / ANSWERS / f"{kind.kind}.json"
        with whole(path) as aside:
            aside.write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        answered = sum(bool(task["annotations"]) for task in answers)
        counts[kind.kind] = {"tasks": len(kind.tasks), "answered": answered}
        print(f"{kind.kind}: {answered} of {len(kind.tasks)} tasks are answered")
        files += [str(path)] if answered else []
    if files:
        print(f"Next: saaa-train annotate import --answers {' '.join(files)} --out FOLDER")
    return counts
