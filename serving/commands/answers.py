"""What `saaa analyze --out` was answered so far, so that the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from saaa.client.models import Model
from saaa.client.reading import read_analysis
from saaa.client.request import AnalyzeOptions
from saaa.client.results import Analysis
from saaa.errors import OptionInvalid

FILE_NAME = "answers.jsonl"
"""One answer a line, in the order in which they came."""


class Answers:
    """A file of answers; a context manager.

    An answer counts for the same image bytes, graph, options and served archives, whatever the photo is called. A line
    that cannot be read, such as one that was cut off, is no answer.

    Args:
        folder: made when absent.
        options: what is asked about every photo.
        models: what the service serves.

    Raises:
        OptionInvalid: the folder cannot be written.
    """

    def __init__(self, folder: Path, options: AnalyzeOptions, models: Sequence[Model]) -> None:
        served = sorted((model.name, model.version, model.archive_sha256) for model in models)
        self._asked = _digest([dict(options), served])
        self._file: IO[str]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = _read(folder / FILE_NAME)
            self._file = (folder / FILE_NAME).open("a", encoding="utf-8")
        except OSError as error:
            raise OptionInvalid(f"The answers cannot be kept in {folder}: {error.strerror}.", field="out") from None

    def find(self, photo: Path, graph: Mapping[str, Any] | None) -> Analysis | None:
        """The answer about this photo, or None."""
        if not self._known:
            return None
        try:
            image_sha256 = hashlib.sha256(photo.read_bytes()).hexdigest()
        except OSError:
            # Asking about it tells why.
            return None
        return self._known.get(self._key(image_sha256, graph))

    def add(self, graph: Mapping[str, Any] | None, analysis: Analysis) -> None:
        """Keep an answer."""
        key = self._key(analysis.provenance.image_sha256, graph)
        self._file.write(json.dumps({"key": key, "analysis": analysis.to_json()}) + "\n")
        self._file.flush()

    def _key(self, image_sha256: str, graph: Mapping[str, Any] | None) -> str:
        return _digest([image_sha256, graph, self._asked])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def _read(path: Path) -> dict[str, Analysis]:
    if not path.exists():
        return {}
    known: dict[str, Analysis] = {}
    cut_off = False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            cut_off = not line.endswith("\n")
            try:
                entry = json.loads(line)
                known[entry["key"]] = read_analysis(entry["analysis"])
            except (KeyError, TypeError, ValueError):
                continue
    if cut_off:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return known
