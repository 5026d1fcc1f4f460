"""`saaa analyze` and `saaa models`: ask a running service and show what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saaa.client import Client
from saaa.client.convert import AnalyzeOptions
from saaa.client.errors import RequestInvalid, RpcFailed
from saaa.client.results import Analysis
from saaa.errors import BackendUnavailable, OptionInvalid
from saaa.report import ReportEntry, write_report

Region = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One photo with at most one graph."""

    photo: Path
    region_id: str = ""
    graph: Region | None = None

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"{self.photo}#{self.region_id}" if self.region_id else str(self.photo)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A question that was not answered."""

    name: str
    reason: str
    message: str
    violations: tuple[Mapping[str, str], ...] = ()


def run_analyze(
    photos: Sequence[Path],
    address: str,
    *,
    graph: Path | None,
    out: Path | None,
    as_json: bool,
    timeout: float,
    options: AnalyzeOptions,
) -> int:
    """Ask about each photo; one that is refused does not stop the others.

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
    questions = [question for photo in photos for question in _questions(photo, graph, len(photos))]
    answers: list[tuple[Question, Analysis]] = []
    failures: list[Failure] = []
    with Client(address, timeout=timeout) as client:
        _reach(client, address)
        for question in questions:
            try:
                analysis = client.analyze(question.photo, question.graph, **options)
            except (RpcFailed, RequestInvalid, OSError) as error:
                failures.append(_failure(question, error))
                _tell(failures[-1])
                continue
            answers.append((question, analysis))
            if not as_json:
                print(_summary(question, analysis), flush=True)
    if as_json:
        print(json.dumps(_document(answers, failures), indent=2, ensure_ascii=False))
    if out is not None:
        _write(out, answers, failures)
    return 1 if failures else 0


def run_models(address: str, *, as_json: bool) -> int:
    """List what a service serves.

    Raises:
        BackendUnavailable: the service cannot be reached.
    """
    with Client(address, timeout=30) as client:
        models = _reach(client, address)
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2, ensure_ascii=False))
        return 0
    for model in models:
        what = f"{len(model.classes)} classes" if model.classes else f"{model.vocabulary_size} words"
        methods = ", ".join(method.name for method in model.attribution_methods)
        state = "ready" if model.ready else "not ready"
        print(
            f"{model.name} {model.version}  {model.kind}  {model.input_size} px  {what}  {state}  "
            f"{model.archive_sha256[:12]}{'  ' + methods if methods else ''}"
        )
    return 0


def _reach(client: Client, address: str) -> Sequence[Any]:
    try:
        return client.models()
    except RpcFailed as failure:
        raise BackendUnavailable(f"The service at {address} cannot be asked: {failure.message}") from None


def _questions(photo: Path, graphs: Path | None, photos: int) -> Iterator[Question]:
    """One question a photo, or one a region where the graph file holds several."""
    if graphs is None:
        yield Question(photo=photo)
        return
    path = _graph_file(photo, graphs)
    content = _load(path)
    if not _is_region(content) and photo.name in content:
        content = _mapping(content[photo.name], f"{path}: {photo.name}")
    elif photos > 1 and not graphs.is_dir():
        raise OptionInvalid(
            f"{graphs} has no graph for {photo.name}; for several photos give a folder with {photo.stem}.json, or a "
            "file whose keys are the photos' file names.",
            field="graph",
        )
    if _is_region(content):
        yield Question(photo=photo, graph=content)
        return
    if not content:
        raise OptionInvalid(f"{path} holds no region.", field="graph")
    for region_id, region in content.items():
        yield Question(photo=photo, region_id=region_id, graph=_mapping(region, f"{path}: {region_id}"))


def _graph_file(photo: Path, graphs: Path) -> Path:
    if not graphs.is_dir():
        return graphs
    for name in (f"{photo.stem}.json", f"{photo.name}.json"):
        if (graphs / name).is_file():
            return graphs / name
    raise OptionInvalid(f"{graphs} has no {photo.stem}.json with a graph for {photo.name}.", field="graph")


def _load(path: Path) -> Region:
    try:
        return _mapping(json.loads(path.read_bytes()), str(path))
    except OSError as error:
        raise OptionInvalid(
            f"The graph file {path} cannot be read: {error.strerror}.", field="graph"
        ) from None
    except (ValueError, RecursionError) as error:
        raise OptionInvalid(f"The graph file {path} is no JSON: {error}.", field="graph") from None


def _mapping(value: Any, where: str) -> Region:
    if not isinstance(value, dict):
        raise OptionInvalid(f"{where} must be a JSON object: a region, or regions by id.", field="graph")
    return value


def _is_region(content: Region) -> bool:
    return isinstance(content.get("objects"), list)


def _failure(question: Question, error: RpcFailed | RequestInvalid | OSError) -> Failure:
    if isinstance(error, RpcFailed):
        return Failure(
            name=question.name,
            reason=error.reason,
            message=error.message,
            violations=tuple(asdict(violation) for violation in error.violations),
        )
    if isinstance(error, RequestInvalid):
        violation = {"field": error.field, "description": error.message}
        return Failure(
            name=question.name, reason="REQUEST_INVALID", message=error.message, violations=(violation,)
        )
    return Failure(name=question.name, reason="FILE_UNREADABLE", message=error.strerror or str(error))


def _tell(failure: Failure) -> None:
    fields = ", ".join(violation["field"] for violation in failure.violations)
    where = f" ({fields})" if fields and fields not in failure.message else ""
    print(f"saaa: {failure.name}: {failure.message}{where}", file=sys.stderr, flush=True)


def _summary(question: Question, analysis: Analysis) -> str:
    lines = [question.name]
    for prediction in analysis.predictions:
        lines.append(f"  {prediction.probability:7.2%}  {prediction.label}")
    for attribution in analysis.attributions:
        best = sorted(attribution.concepts, key=lambda concept: -concept.density)[:3]
        seen = ", ".join(f"{concept.node.name} x{concept.density:.1f}" for concept in best)
        lines.append(f"  {attribution.target.label} because of ({attribution.method}): {seen or 'no graph'}")
    for caption in analysis.captions:
        lines.append(f'  "{caption.text}"')
    if analysis.graph is not None:
        lines.append(f"  graph: {analysis.graph_source}, {len(analysis.graph.objects)} objects")
    return "\n".join(lines)


def _document(answers: Sequence[tuple[Question, Analysis]], failures: Sequence[Failure]) -> dict[str, Any]:
    images = []
    for question, analysis in answers:
        entry = analysis.to_json(file=str(question.photo))
        images.append({**entry, "region_id": question.region_id} if question.region_id else entry)
    return {"images": images, "failures": [asdict(failure) for failure in failures]}


def _write(out: Path, answers: Sequence[tuple[Question, Analysis]], failures: Sequence[Failure]) -> None:
    entries = [
        ReportEntry(file=question.name, image_bytes=question.photo.read_bytes(), analysis=analysis)
        for question, analysis in answers
    ]
    entries += [
        ReportEntry(file=failure.name, image_bytes=b"", error=f"{failure.reason}: {failure.message}")
        for failure in failures
    ]
    try:
        page = write_report(out, entries)
    except OSError as error:
        raise OptionInvalid(
            f"The report cannot be written to {out}: {error.strerror}.", field="out"
        ) from None
    print(f"report: {page}", file=sys.stderr)
