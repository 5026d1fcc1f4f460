"""`saaa release`: from a measured archive to what callers get, through gates and a canary, or not at all.

Every step can be repeated: a release that was cut off goes on when the same command is given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import yaml

from saaa import archive as archives
from saaa.client import Client
from saaa.client.errors import RpcFailed
from saaa.client.request import AnalyzeOptions
from saaa.errors import ArchiveError, OptionInvalid
from saaa.work import ModelInfo, ModelKind
from serving.commands import manage
from serving.commands.connection import Connection
from serving.commands.graph_files import find_pictures

_LATER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""What says nothing of a version yet: nobody there, not loaded, too busy."""
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is released, and when it may be.

    Raises:
        OptionInvalid: a number outside its range.
    """

    archive: Path
    """The file; it is copied into `models`."""
    report: Path
    """JSON that `saaa-train evaluate ... --archive` wrote about it."""
    gates: Path
    """YAML: figures of the report by name (dots go deeper), each with at_least or at_most."""
    models: Path
    """The folder of archives that the service follows."""
    photos: tuple[Path, ...]
    """Pictures that the canary is asked about."""
    share: float = 0.1
    """Of the requests that name no version: what the canary gets, above 0 and below 1."""
    requests: int = 20
    """How many pictures it is asked about, at least 1."""
    within_s: float = 600.0
    """Seconds in which it must have been loaded and have answered all of them."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise OptionInvalid(f"share is {self.share:g}; give one above 0 and below 1.", field="share")
        if self.requests < 1 or self.within_s <= 0:
            raise OptionInvalid("requests must be at least 1, and within_s above 0.", field="requests")


def run_release(release: Release, service: Connection) -> int:
    """Release an archive.

    Returns:
        0 when it is the default now, 1 when a gate or the canary said no: what was served before still is.

    Raises:
        OptionInvalid: the report is not of this archive, or a file cannot be used, or the version is served already
            and was not released.
        ArchiveError: the archive is unusable or cannot be copied.
    """
    info = archives.info(release.archive, check_weights=True)
    report = _json(release.report)
    if report.get("digest") != info.digest:
        raise OptionInvalid(
            f"{release.report} is not of {release.archive}; measure it by `saaa-train evaluate ... --archive`.",
            field="report",
        )
    figures, missed = judge(report, _gates(release.gates))
    if missed:
        print(f"{info.name} {info.version} is not released:", *missed, sep="\n  ")
        return 1
    photos = find_pictures(release.photos)
    _enter(release, info, figures)
    with service.client(release.within_s) as client:
        fault = _canary(client, release, info, photos)
    if fault:
        _take_back(release.models, info)
        print(f"{info.name} {info.version} is taken back: {fault}")
        return 1
    content = manage.promote(release.models, info.name, info.version)
    print(manage.describe(content))
    return 0


def judge(report: Mapping[str, Any], gates: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, float], list[str]]:
    """Hold a report against gates: the figures asked for, and a sentence for each that falls short."""
    figures, missed = {}, []
    for name, bounds in gates.items():
        value: Any = report
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            missed.append(f"{name} is not in the report")
            continue
        figures[name] = float(value)
        # Written so that what is not a number is missed.
        if "at_least" in bounds and not value >= bounds["at_least"]:
            missed.append(f"{name} is {value:.4g}, at least {bounds['at_least']:g} is asked")
        if "at_most" in bounds and not value <= bounds["at_most"]:
            missed.append(f"{name} is {value:.4g}, at most {bounds['at_most']:g} is asked")
    return figures, missed


def _enter(release: Release, info: ModelInfo, figures: Mapping[str, float]) -> None:
    """Copy the archive into the store, write down what it is and why it came in, and serve it to the canary's share."""
    place = release.models / f"{info.name}-{info.version}.mar"
    record = place.with_suffix(".release.json")
    entry = manage.served(release.models).models.get(info.name)
    if entry is not None and info.version in entry.versions and not record.is_file():
        raise OptionInvalid(
            f"{info.name} {info.version} is served already; build this archive under another version, or promote that "
            "one by `saaa models promote`.",
            field="archive",
        )
    if place.exists() and archives.info(place, check_weights=True).digest != info.digest:
        raise OptionInvalid(
            f"{place} is another archive; a version never changes. Build this one under another version.",
            field="archive",
        )
    told = {
        "model": info.name,
        "version": info.version,
        "digest": info.digest,
        "report_sha256": hashlib.sha256(release.report.read_bytes()).hexdigest(),
        "gates_sha256": hashlib.sha256(release.gates.read_bytes()).hexdigest(),
        "figures": dict(figures),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        # First, so that a release that is cut off here is known for one.
        record.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        if not place.exists():
            aside = place.with_name(f".{place.name}.partial")
            shutil.copyfile(release.archive, aside)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(place)
    except OSError as error:
        raise ArchiveError(f"Cannot write {place}: {error.strerror or error}") from error
    content = manage.load(release.models, Path(place.name))
    if content.models[info.name].default != info.version:
        manage.promote(release.models, info.name, info.version, release.share)


def _canary(client: Client, release: Release, info: ModelInfo, photos: Sequence[Path]) -> str:
    """Ask the service for the new version by name; what is wrong with it, "" for nothing."""
    end = time.monotonic() + release.within_s
    named = f"{info.name}:{info.version}"
    options: AnalyzeOptions = (
        {"classifier": named, "outputs": ("predictions",)}
        if info.kind is ModelKind.EGDD
        else {"captioner": named, "outputs": ("captions",)}
    )
    count = min(release.requests, len(photos))
    for number in range(count):
        photo = photos[number * len(photos) // count]
        why = "no answer"
        while True:
            if (left := end - time.monotonic()) <= 0:
                return f"{number} of {count} pictures were answered in {release.within_s:g} s: {why}"
            try:
                answer = client.analyze(photo, timeout=left, **options)
            except RpcFailed as failure:
                why = failure.message
                if failure.code not in _LATER:
                    return f"{photo}: {why}"
                time.sleep(min(_POLL_S, left))
                continue
            provenance = answer.provenance
            made = provenance.classifier if info.kind is ModelKind.EGDD else provenance.captioner
            if made is None or made.archive_sha256 != info.digest:
                return f"{photo}: another archive answered"
            break
    return ""


def _take_back(folder: Path, info: ModelInfo) -> None:
    """Serve what was served before the release; the archive stays, so that it can be looked at."""
    entry = manage.served(folder).models.get(info.name)
    if entry is None or info.version not in entry.versions:
        return
    if entry.default != info.version:
        manage.promote(folder, info.name, entry.default)  # which ends the canary
    manage.unload(folder, info.name, info.version)


def _gates(path: Path) -> Mapping[str, Mapping[str, float]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionInvalid(f"Cannot read the gates in {path}: {' '.join(str(error).split())}", field="gates") from None
    good = isinstance(found, dict) and all(
        isinstance(bounds, dict)
        and bounds
        and bounds.keys() <= {"at_least", "at_most"}
        and all(isinstance(bound, int | float) for bound in bounds.values())
        for bounds in found.values()
    )
    if not good or not found:
        raise OptionInvalid(f"{path} must hold lines such as `accuracy: {{at_least: 0.8}}`.", field="gates")
    gates: Mapping[str, Mapping[str, float]] = found
    return gates


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionInvalid(f"Cannot read the report {path}: {error}", field="report") from None
    if not isinstance(found, dict):
        raise OptionInvalid(f"{path} is no report of `saaa-train evaluate`.", field="report")
    return found
