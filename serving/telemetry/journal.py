"""The journal: what was asked and answered, as JSON lines, so that `serving.commands.audit` can make an answer again.

No pixels: images are there by their SHA-256. What callers wrote (graphs, words to score) and what the models said is
there. Two kinds of line:

- "batch": id, time, seconds; `header`, the batch without its pixels as `saaa.wire` packs it, and `results`, its answer,
  both in base64; `pixels_sha256`, of each item's uint8 (size, size, 3)
- "request": request_id, time, caller, image_sha256, image_size, software_version, backend, cached, what was answered in
  short (predictions, captions; method, target and digest of each map), and `models`: name, version, archive_sha256,
  runtime (`saaa.runtime.fingerprint`), parameters, and the batch and the place in it where it was computed

A batch comes before the requests that it served. Lines are flushed to the system as they are written, not to the disk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa import wire
from saaa.errors import DataError, StartFailed
from saaa.scene_graph import Node
from saaa.work import ItemResult, WorkBatch
from serving.interceptors.base import current_call
from serving.observer import Flight, Observer
from serving.requests import AnalysisRequest, AnalysisResult, Attribution, ModelUse, Prediction, Word

MAX_PENDING = 128
"""Most lines that wait for the disk; they hold their batches. What comes beyond is not written."""

log = logging.getLogger(__name__)


class Journal(Observer):
    """Writes from a thread of its own; a disk that is full or slow costs lines, never answers.

    One facade writes one journal.

    Args:
        path: the file, made readable by its owner alone; PATH.1 is the one before it, and so on.
        max_bytes: a file is put aside before it grows beyond this.
        files: most files put aside; the oldest is deleted.
        lost: called, from any thread, for each line that could not be written.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int, lost: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._lost = lost
        self._failing = False
        self._room = threading.Semaphore(MAX_PENDING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._file: _File | None = None

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            StartFailed: it cannot be written.
        """
        try:
            self._file = _File(self._path, self._max_bytes, self._files)
        except OSError as error:
            raise StartFailed(
                f"The journal {self._path} cannot be written ({error.strerror or error}). Name a file with --journal, "
                "in a folder that exists and is yours."
            ) from error

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        """See `Observer`."""
        if not isinstance(outcome, BaseException):
            time, batch, results = _now(), flight.batch, list(outcome)
            self._write(lambda: _batch_line(flight.id, time, batch, results, seconds))

    def answered(self, request: AnalysisRequest, result: AnalysisResult) -> None:
        """See `Observer`."""
        time, call = _now(), current_call()
        caller = call.caller if call else ""
        self._write(lambda: _request_line(time, caller, result))

    async def close(self) -> None:
        """Write what waits, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()

    def _write(self, line: Callable[[], dict[str, Any]]) -> None:
        if self._room.acquire(blocking=False):
            self._thread.submit(self._written, line)
        else:
            self._lose("the disk is too slow")

    def _written(self, line: Callable[[], dict[str, Any]]) -> None:
        """On the thread."""
        try:
            text = json.dumps(line(), ensure_ascii=True, separators=(",", ":"))
            if self._file is not None:
                self._file.write(text.encode() + b"\n")
            self._failing = False
        except Exception as error:
            self._lose(str(error))
        finally:
            self._room.release()

    def _lose(self, why: str) -> None:
        self._lost()
        if not self._failing:
            self._failing = True
            log.error("the journal is losing lines: %s", why)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a journal and of the files put aside, oldest first; a line cut short by a crash is left out.

    Raises:
        DataError: no such file, or it cannot be read.
    """
    aside = sorted(
        (file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdecimal()),
        key=lambda file: -int(file.suffix[1:]),
    )
    try:
        for file in (*aside, path):
            with file.open("rb") as stream:
                for line in stream:
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(entry, dict):
                        yield entry
    except OSError as error:
        raise DataError(f"The journal {path} cannot be read ({error.strerror or error}).") from error


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of one item's pixels, 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


class _File:
    """Takes whole lines; put aside when full; only its owner reads it."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._size = 0
        self._torn = False
        self._open()

    def write(self, line: bytes) -> None:
        """Add one line; raises `OSError` where it is not, or not wholly, written."""
        if self._size and self._size + len(line) > self._max_bytes:
            self._put_aside()
        # What is left of a line that was cut short ends here.
        data = b"\n" + line if self._torn else line
        written = os.write(self._file, data)
        self._size += written
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"

    def _put_aside(self) -> None:
        for number in range(self._files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                _numbered(self._path, number).rename(_numbered(self._path, number + 1))
        self._path.rename(_numbered(self._path, 1))
        os.close(self._file)
        self._open()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _batch_line(name: str, time: str, batch: WorkBatch, results: list[ItemResult], seconds: float) -> dict[str, Any]:
    header, _ = wire.pack_batch(batch)
    return {
        "record": "batch",
        "id": name,
        "time": time,
        "seconds": round(seconds, 6),
        "header": base64.b64encode(header).decode(),
        "results": base64.b64encode(wire.pack_results(results)).decode(),
        "pixels_sha256": [pixels_digest(pixels) for pixels in batch.pixels],
    }


def _request_line(time: str, caller: str, result: AnalysisResult) -> dict[str, Any]:
    return {
        "record": "request",
        "request_id": result.request_id,
        "time": time,
        "caller": caller,
        "image_sha256": result.image_sha256,
        "image_size": list(result.image_size),
        "software_version": result.software_version,
        "backend": result.backend,
        "cached": result.cached,
        "models": [_model(use) for use in (result.classifier, result.captioner) if use is not None],
        "predictions": [{"label": p.label, "probability": p.probability} for p in result.predictions],
        "captions": [" ".join(caption.words) for caption in result.captions],
        "attributions": [_attribution(attribution) for attribution in result.attributions],
    }


def _model(use: ModelUse) -> dict[str, Any]:
    return {
        "name": use.info.name,
        "version": use.info.version,
        "archive_sha256": use.info.digest,
        "runtime": use.info.runtime,
        "parameters": use.parameters,
        "batch": use.seat.flight if use.seat else "",
        "index": use.seat.index if use.seat else 0,
    }


def _attribution(attribution: Attribution) -> dict[str, Any]:
    target = attribution.target
    match target:
        case Prediction():
            name = target.label
        case Node():
            name = target.name
        case Word():
            name = target.text
    values = attribution.map.values.astype("<f4").tobytes()
    return {
        "target": name,
        "kind": attribution.map.kind.value,
        "method": attribution.map.method,
        "map_sha256": hashlib.sha256(values).hexdigest(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
