"""`saaa analyze` and `saaa models`: ask a running service and show what it says."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from saaa.client import Client, Item
from saaa.client.errors import RequestInvalid, RpcFailed
from saaa.client.models import Model
from saaa.client.request import AnalyzeOptions
from saaa.client.results import Analysis
from saaa.errors import BackendUnavailable, OptionInvalid
from saaa.report import ReportEntry, write_report
from saaa.report.attributions import faithfulness_note
from serving.commands.answers import Answers
from serving.commands.connection import Connection
from serving.commands.graph_files import Question, find_pictures, questions
from serving.commands.progress import Bar


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a question was not answered."""

    reason: str
    message: str
    violations: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one question: an analysis or a failure."""

    question: Question
    analysis: Analysis | None = None
    failure: Failure | None = None


def run_analyze(
    photos: Sequence[Path],
    service: Connection,
    *,
    graph: Path | None,
    out: Path | None,
    as_json: bool,
    timeout: float,
    options: AnalyzeOptions,
) -> int:
    """Ask about each photo; one that is refused does not stop the others.

    Args:
        photos: image files, and folders of them.
        service: how to reach it.
        graph: see `saaa analyze --graph`.
        out: folder for the report; what it holds of an earlier run is not asked again.
        as_json: print the whole answers as JSON.
        timeout: seconds for each photo; a lone one has so many, several have them together.
        options: what is asked.

    Returns:
        0 when all were answered, 1 when one was not.

    Raises:
        OptionInvalid: nothing is asked, or the graph file cannot be used.
        BackendUnavailable: the service cannot be reached.
    """
    if not photos:
        raise OptionInvalid("Name at least one photo.", field="photos")
    if timeout <= 0:
        raise OptionInvalid("The timeout must be above 0 seconds.", field="timeout")
    pictures = find_pictures(photos)
    asked = [question for photo in pictures for question in questions(photo, graph, photos=len(pictures))]
    # A folder's answers are in its files; nobody reads thousands of summaries.
    quiet = as_json or (out is not None and any(photo.is_dir() for photo in photos))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(service.client(timeout))
        models = reach(client, service.address)
        answers = stack.enter_context(Answers(out, options, models)) if out is not None else None
        outcomes = _ask_all(client, service.address, asked, options, timeout, answers, quiet=quiet)
    if as_json:
        print(json.dumps(_document(outcomes), indent=2, ensure_ascii=False))
    if out is not None:
        _write(out, outcomes)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _ask_all(
    client: Client,
    address: str,
    asked: Sequence[Question],
    options: AnalyzeOptions,
    timeout: float,
    answers: Answers | None,
    *,
    quiet: bool,
) -> list[Outcome]:
    """All outcomes in the order of the questions, each told as soon as it is its turn."""
    done: dict[int, Outcome] = {}
    for place, question in enumerate(asked):
        if answers is not None and (kept := answers.find(question.photo, question.graph)) is not None:
            done[place] = Outcome(question=question, analysis=kept)
    if done:
        print(f"saaa: {len(done)} of {len(asked)} answered before", file=sys.stderr)
    bar = Bar(len(asked), len(done))
    told = 0

    def tell() -> None:
        nonlocal told
        while told in done:
            if not quiet or done[told].failure:
                bar.clear()
            _tell(done[told], quiet=quiet)
            told += 1

    tell()
    open_ = [place for place in range(len(asked)) if place not in done]
    for place, outcome in _each(client, address, asked, open_, options, timeout):
        done[place] = outcome
        if answers is not None and outcome.analysis is not None:
            answers.add(outcome.question.graph, outcome.analysis)
        tell()
        bar.step(failed=outcome.failure is not None)
    bar.clear()
    return [done[place] for place in range(len(asked))]


def _each(
    client: Client,
    address: str,
    asked: Sequence[Question],
    places: Sequence[int],
    options: AnalyzeOptions,
    timeout: float,
) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of the questions at `places`, as they come; several travel on one call."""
    if len(places) == 1:
        yield places[0], ask(client, asked[places[0]], options)
    if len(places) < 2:
        return
    items = [Item(image=asked[place].photo, graph=asked[place].graph, key=place) for place in places]
    count = 0
    try:
        # Nobody waits for one of many: callers with a single photo go first.
        patient: AnalyzeOptions = {"priority": "batch", **options}
        for outcome in client.analyze_many(items, timeout=timeout * len(items), **patient):
            count += 1
            question = asked[outcome.item.key]
            failure = None if outcome.error is None else _failure(outcome.error)
            yield outcome.item.key, Outcome(question=question, analysis=outcome.analysis, failure=failure)
    except RpcFailed as failed:
        raise BackendUnavailable(
            f"The service at {address} ended the call after {count} of {len(items)} photos: {failed.message} "
            "With --out the answers are kept, and the same command goes on there."
        ) from None


def word_places(words: Sequence[str]) -> Sequence[int] | Literal["all"]:
    """The places of words as they were typed: numbers, or "all" alone.

    Raises:
        OptionInvalid: anything else.
    """
    if tuple(words) == ("all",):
        return "all"
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise OptionInvalid('--words takes places from 0, or "all" alone.', field="words")
    return [int(word) for word in words]


def run_models(service: Connection, *, as_json: bool) -> int:
    """List what a service serves.

    Raises:
        BackendUnavailable: the service cannot be reached.
    """
    with service.client(30) as client:
        models = reach(client, service.address)
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2, ensure_ascii=False))
        return 0
    for model in models:
        what = f"{len(model.classes)} classes" if model.classes else f"{model.vocabulary_size} words"
        methods = ", ".join(
            f"{method.name} ({'/'.join(method.targets)}, {method.cost_forwards:g} forwards)"
            for method in model.attribution_methods
        )
        state = "ready" if model.ready else "not ready"
        used = f"{model.execution.runtime} {model.execution.precision}  " if model.execution else ""
        print(
            f"{model.name} {model.version}  {model.kind}  {model.input_size} px  {what}  {state}  {used}"
            f"{model.archive_sha256[:12]}{'  ' + methods if methods else ''}"
        )
        if model.execution and model.execution.refused:
            print(f"  not used: {model.execution.refused}")
        if model.decode_scales:
            scales = ", ".join(f"1/{scale}" for scale in model.decode_scales)
            print(f"  JPEGs decoded at {scales} where {model.decode_margin:g} pixels are left for each of the input's")
    return 0


def reach(client: Client, address: str) -> Sequence[Model]:
    """Ask a service for its models.

    Raises:
        BackendUnavailable: it cannot be reached.
    """
    try:
        return client.models()
    except RpcFailed as failure:
        raise BackendUnavailable(f"The service at {address} cannot be asked: {failure.message}") from None


def ask(client: Client, question: Question, options: AnalyzeOptions) -> Outcome:
    """Ask one question; a refusal, or a file that cannot be read, is an outcome too."""
    try:
        return Outcome(question=question, analysis=client.analyze(question.photo, question.graph, **options))
    except (RpcFailed, RequestInvalid, OSError) as error:
        return Outcome(question=question, failure=_failure(error))


def _failure(error: RpcFailed | RequestInvalid | OSError) -> Failure:
    if isinstance(error, RpcFailed):
        violations = tuple(asdict(violation) for violation in error.violations)
        return Failure(reason=error.reason, message=error.message, violations=violations)
    if isinstance(error, RequestInvalid):
        violation = {"field": error.field, "description": error.message}
        return Failure(reason="REQUEST_INVALID", message=error.message, violations=(violation,))
    return Failure(reason="FILE_UNREADABLE", message=error.strerror or str(error))


def _tell(outcome: Outcome, *, quiet: bool) -> None:
    name, failure = outcome.question.name, outcome.failure
    if failure is not None:
        fields = ", ".join(violation["field"] for violation in failure.violations)
        where = f" ({fields})" if fields and fields not in failure.message else ""
        print(f"saaa: {name}: {failure.message}{where}", file=sys.stderr, flush=True)
    elif outcome.analysis is not None and not quiet:
        print(_summary(name, outcome.analysis), flush=True)


def _summary(name: str, analysis: Analysis) -> str:
    lines = [name]
    for prediction in analysis.predictions:
        lines.append(f"  {prediction.probability:7.2%}  {prediction.label}")
    for attribution in analysis.attributions:
        measured = any(concept.effect is not None for concept in attribution.concepts)
        best = sorted(attribution.concepts, key=lambda concept: -(concept.score if measured else concept.density))[:3]
        seen = ", ".join(
            f"{concept.node.name} {concept.effect:+.2f}"
            if concept.effect is not None
            else f"{concept.node.name} x{concept.density:.1f}"
            for concept in best
        )
        what = "" if attribution.kind == "class" else f"{attribution.kind} "
        lines.append(f"  {what}{attribution.label} because of ({attribution.method}): {seen or 'no graph'}")
        lines.append(f"    {faithfulness_note(attribution)}")
    for caption in analysis.captions:
        lines.append(f'  "{caption.text}"')
    if analysis.graph is not None:
        lines.append(f"  graph: {analysis.graph_source}, {len(analysis.graph.objects)} objects")
    return "\n".join(lines)


def _document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    images, failures = [], []
    for outcome in outcomes:
        place = {"file": str(outcome.question.photo)}
        if outcome.question.region_id:
            place["region_id"] = outcome.question.region_id
        if outcome.analysis is not None:
            images.append({**place, **outcome.analysis.to_json()})
        elif outcome.failure is not None:
            failures.append({**place, **asdict(outcome.failure)})
    return {"images": images, "failures": failures}


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    bar = Bar(len(outcomes), what="drawing ")

    def entries() -> Iterator[ReportEntry]:
        for outcome in outcomes:
            yield _entry(outcome)
            bar.step()

    try:
        page = write_report(out, entries())
    except OSError as error:
        raise OptionInvalid(f"The report cannot be written to {out}: {error.strerror}.", field="out") from None
    finally:
        bar.clear()
    print(f"report: {page}", file=sys.stderr)


def _entry(outcome: Outcome) -> ReportEntry:
    name, failure = outcome.question.name, outcome.failure
    if failure is not None:
        return ReportEntry(file=name, image_bytes=b"", error=f"{failure.reason}: {failure.message}")
    return ReportEntry(file=name, image_bytes=outcome.question.photo.read_bytes(), analysis=outcome.analysis)
