"""`saaa compare`: what several served models, or versions of one, say of the same photo, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saaa.client import Client
from saaa.client.models import Model
from saaa.client.request import AnalyzeOptions
from saaa.errors import ImageRejected, OptionInvalid
from saaa.images import decode
from saaa.report.comparison import Answer, compared, comparison_page, difference, points, titles
from serving.commands.ask import Failure, ask, reach
from serving.commands.connection import Connection
from serving.commands.graph_files import Question, questions

MAPS_SHOWN = 4
"""Classes whose maps are shown, unless they are named."""
_MOST_CLASSES = 1000
"""That a service gives probabilities of."""


def run_compare(
    photo: Path,
    service: Connection,
    *,
    models: Sequence[str],
    classes: Sequence[str],
    graph: Path | None,
    out: Path,
    as_json: bool,
    top_k: int,
    timeout: float,
    options: AnalyzeOptions,
) -> int:
    """Ask each model, print a table, write a page; a model that fails does not stop the others.

    Args:
        photo: an image file.
        service: how to reach it.
        models: NAME (all its versions) or NAME:VERSION, the first being what the others are compared with; all
            classifiers when empty.
        classes: whose maps to show; each model's most probable one when empty.
        graph: as `saaa analyze --graph`, for one region.
        out: the page.
        as_json: print everything as JSON instead of the table.
        top_k: each model's so many most probable classes are listed.
        timeout: deadline of each call in seconds.
        options: of the maps.

    Returns:
        0 when every model answered, 1 when one did not.

    Raises:
        OptionInvalid: the service has no such model, no model knows a class, or a file cannot be used.
        BackendUnavailable: the service cannot be reached.
    """
    if timeout <= 0:
        raise OptionInvalid("The timeout must be above 0 seconds.", field="timeout")
    if top_k < 1:
        raise OptionInvalid("top_k must be at least 1.", field="top_k")
    [question, *others] = questions(photo, graph, photos=1)
    if others:
        raise OptionInvalid(f"{graph} holds several regions of {photo.name}; give a file with one.", field="graph")
    with service.client(timeout) as client:
        chosen = _chosen(reach(client, service.address), models)
        answers = [_predictions(client, question, model) for model in chosen]
        targets = _targets(answers, classes)
        answers = [_maps(client, question, answer, targets, options) for answer in answers]
    _tell_failures(photo, answers)
    if as_json:
        print(json.dumps(_document(photo, answers), indent=2, ensure_ascii=False))
    elif any(answer.predictions for answer in answers):
        print(_table(photo, answers, top_k))
    if any(answer.predictions for answer in answers):
        _write(out, photo, answers, targets, top_k)
    return 1 if any(answer.failure for answer in answers) else 0


def _chosen(served: Sequence[Model], names: Sequence[str]) -> list[Model]:
    """The models that are named, in that order, each once; a model's versions in the service's order."""
    classifiers = [model for model in served if model.kind == "egdd"]
    if not classifiers:
        raise OptionInvalid("The service has no classifier to compare.", field="models")
    chosen: dict[tuple[str, str], Model] = {}
    for name in names:
        found = [model for model in classifiers if name in (model.name, f"{model.name}:{model.version}")]
        if not found:
            known = ", ".join(f"{model.name}:{model.version}" for model in classifiers)
            raise OptionInvalid(f"The service has no classifier {name}; it has {known}.", field="models")
        chosen.update(((model.name, model.version), model) for model in found)
    return list(chosen.values()) if names else classifiers


def _predictions(client: Client, question: Question, model: Model) -> Answer:
    """Ask for all classes, so that every difference can be told."""
    options: AnalyzeOptions = {
        "outputs": ("predictions",),
        "top_k": min(len(model.classes), _MOST_CLASSES),
        "classifier": f"{model.name}:{model.version}",
    }
    outcome = ask(client, Question(photo=question.photo), options)
    if outcome.analysis is None:
        return Answer(model=model, failure=_reason(outcome.failure))
    return Answer(model=model, predictions=outcome.analysis.predictions)


def _targets(answers: Sequence[Answer], classes: Sequence[str]) -> list[str]:
    """The classes to explain: those named, else what each model holds most probable, in the models' order."""
    known = {label for answer in answers for label in answer.model.classes}
    if strangers := [label for label in classes if label not in known]:
        raise OptionInvalid(f"None of the models knows the class {strangers[0]}.", field="classes")
    best = [answer.predictions[0].label for answer in answers if answer.predictions]
    return list(dict.fromkeys(classes)) or list(dict.fromkeys(best))[:MAPS_SHOWN]


def _maps(
    client: Client, question: Question, answer: Answer, targets: Sequence[str], options: AnalyzeOptions
) -> Answer:
    """Ask for the maps of the classes that the model knows; a failure leaves its predictions as they are."""
    wanted = [label for label in targets if label in answer.model.classes]
    if answer.failure or not wanted:
        return answer
    asked: AnalyzeOptions = {
        **options,
        "outputs": ("attributions",),
        "classes": wanted,
        "classifier": f"{answer.model.name}:{answer.model.version}",
    }
    outcome = ask(client, question, asked)
    if outcome.analysis is None:
        return Answer(model=answer.model, predictions=answer.predictions, failure=_reason(outcome.failure))
    maps = outcome.analysis.attributions
    if question.graph is None:
        # The service proposes a graph of its own for each model; their nodes cannot be compared.
        maps = tuple(replace(map_, concepts=()) for map_ in maps)
    return Answer(model=answer.model, predictions=answer.predictions, attributions=maps)


def _reason(failure: Failure | None) -> str:
    assert failure is not None
    fields = ", ".join(violation["field"] for violation in failure.violations)
    return f"{failure.reason}: {failure.message}" + (f" ({fields})" if fields else "")


def _tell_failures(photo: Path, answers: Sequence[Answer]) -> None:
    """A line a model; one line where all fail alike, as with a bad photo."""
    failures = {answer.failure for answer in answers}
    if len(failures) == 1 and (failure := failures.pop()):
        print(f"saaa: {photo}: {failure}", file=sys.stderr)
        return
    for answer in answers:
        if answer.failure:
            print(f"saaa: {answer.model.name}:{answer.model.version}: {answer.failure}", file=sys.stderr)


def _table(photo: Path, answers: Sequence[Answer], top_k: int) -> str:
    """A row a class, a column a model, with the difference to the first in percentage points."""
    rows = [["class", *titles(answers)]]
    for label in compared(answers, top_k):
        row = [label]
        for place, answer in enumerate(answers):
            share, more = answer.probability(label), difference(answer, answers[0], label)
            shift = f" ({points(more)})" if place and more is not None else ""
            row.append("-" if share is None else f"{share:.1%}{shift}")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([str(photo), *(f"  {line}" for line in lines)])


def _document(photo: Path, answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "file": str(photo),
        "models": [
            {
                "name": answer.model.name,
                "version": answer.model.version,
                "archive_sha256": answer.model.archive_sha256,
                "predictions": [entry.to_json() for entry in answer.predictions],
                "attributions": [entry.to_json() for entry in answer.attributions],
                "failure": answer.failure or None,
            }
            for answer in answers
        ],
    }


def _write(out: Path, photo: Path, answers: Sequence[Answer], targets: Sequence[str], top_k: int) -> None:
    try:
        page = comparison_page(str(photo), decode(photo.read_bytes()), answers, targets=targets, top_k=top_k)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except ImageRejected as error:
        raise OptionInvalid(f"{photo} cannot be shown: {error.message}", field="photo") from None
    except OSError as error:
        raise OptionInvalid(f"The page cannot be written to {out}: {error.strerror}.", field="out") from None
    print(f"page: {out}", file=sys.stderr)
