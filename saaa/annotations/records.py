"""Records of an export, one by one, so that a broken one costs no other.

An export is a JSON array of records, or JSON lines. It comes from outside: nothing here evaluates, opens or follows
anything that it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import DataError

MAX_BYTES = 512 * 2**20
"""Of a file."""
MAX_RECORD = 16 * 2**20
"""Characters of one record: the facade's hold a whole map; the published ones have 2500."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class Record:
    """One record: its number in the file, counted from 1, and its content, or why it has none."""

    number: int
    content: dict[str, Any] | None
    fault: str = ""


def read_records(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[Record]:
    """Read an export.

    Args:
        path: the file.
        max_bytes: refuse larger ones, before they fill the memory.

    Raises:
        DataError: it cannot be read, is too large, or is empty.
    """
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise DataError(
                f"{path} has {size / 2**20:.0f} MiB; at most {max_bytes / 2**20:.0f} are read. Split it into parts."
            )
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise DataError(f"{path} is empty; give an export of answers.")
    parts = _elements(text) if text.lstrip().startswith("[") else _lines(text)
    for number, (part, fault) in enumerate(parts, 1):
        yield Record(number, None, fault) if fault else _record(number, part)


def _record(number: int, text: str) -> Record:
    if len(text) > MAX_RECORD:
        return Record(number, None, f"it has {len(text)} characters; at most {MAX_RECORD} are read")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Record(number, None, f"it is no JSON: {str(error)[:100]}")
    if not isinstance(content, dict):
        return Record(number, None, f"it is a {type(content).__name__}, no JSON object")
    return Record(number, content)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):  # not splitlines: other line ends may stand inside a string
        if line.strip():
            yield line, ""


def _elements(text: str) -> Iterator[tuple[str, str]]:
    """The texts of a JSON array's elements, found by their brackets alone: (text, "") or ("", what is wrong)."""
    depth, start = 0, 0
    end = -1
    for token in _TOKEN.finditer(text):
        mark = token.group()[0]
        if mark in "[{":
            depth += 1
            if depth == 1:
                start = token.end()
        elif (mark == "," and depth == 1) or (mark in "]}" and depth == 1):
            part = text[start : token.start()]
            if part.strip() or mark == ",":
                yield part, ""
            start = token.end()
        if mark in "]}":
            depth -= 1
            if depth == 0:
                end = token.end()
                break
    if end < 0:
        yield "", f"the file breaks off, or a bracket is missing: nothing can be read after character {start}"
    elif text[end:].strip():
        yield "", f"there is more after the end of the list, at character {end}"
