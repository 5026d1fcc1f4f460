"""What is in an archive, by name and size, what is the same in all, and how members are read out of a file or folder.

`saaa.archive` says what they are for.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from saaa.errors import ArchiveError
from saaa.work import ModelKind

MAX_WEIGHTS_BYTES = 2_000_000_000
"""Below the size at which zip files change their layout: 500 million float32 weights."""
MAX_ARCHIVE_BYTES = 2_100_000_000
"""Of all members, for the same reason."""
MAX_GRAPH_BYTES = 64 * 2**20
"""Of graph.xml and parity.safetensors."""
MAX_MEMBER_BYTES = 16 * 2**20
"""Of every other member."""

WEIGHTS, CONFIG, CARD, HANDLER, SETTINGS = (
    "model.safetensors",
    "config.json",
    "card.json",
    "handler.py",
    "model-config.yaml",
)
SUMS = "SHA256SUMS"
MANIFEST = "MAR-INF/MANIFEST.json"
GRAPH, GRAPH_WEIGHTS, PARITY = "graph.xml", "graph.bin", "parity.safetensors"
GRAPH_MEMBERS = (GRAPH, GRAPH_WEIGHTS, PARITY)
_SUMMED = (WEIGHTS, CONFIG, CARD, HANDLER, SETTINGS)
_MEMBERS = (*_SUMMED, SUMS, MANIFEST)
HEAVY = frozenset({WEIGHTS, *GRAPH_MEMBERS})
"""What a description does not need."""
_LOCAL_HEADER_BYTES = 30


def _handler(module: str, name: str) -> str:
    return (
        f'"""TorchServe finds the handler here; the code is in the installed package."""\n\n'
        f"from handlers.{module} import {name}\n\n\n"
        f"class Handler({name}):\n"
        f'    """TorchServe takes the one class that this module defines."""\n'
    )


HANDLERS = {ModelKind.EGDD: _handler("egdd", "EgddHandler"), ModelKind.EGA: _handler("ega", "EgaHandler")}

# The facade forms the batches, owns the queue and sets the deadlines, so TorchServe is told to do none of it:
# a request is one whole batch, waits at most 1 ms (0 counts as unset, 100 ms), and a worker that hangs is
# replaced. The keys of parallel execution and devices stay out: naming them switches torchrun or a device on.
SETTINGS_TEXT = """\
minWorkers: 1
maxWorkers: 1
batchSize: 1
maxBatchDelay: 1
responseTimeout: 120
startupTimeout: 300
maxRetryTimeoutInSec: 300
clientTimeoutInMills: 0
jobQueueSize: 64
useJobTicket: false
continuousBatching: false
sequenceBatching: false
asyncCommunication: false
useVenv: false
"""


def manifest(name: str, version: str) -> dict[str, Any]:
    """What MAR-INF/MANIFEST.json says."""
    return {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": name,
            "modelVersion": version,
            "handler": HANDLER,
            "serializedFile": WEIGHTS,
            "configFile": SETTINGS,
        },
        "archiverVersion": "0.12.0",
    }


def summed_members(graph: bool) -> tuple[str, ...]:
    """Those that SHA256SUMS lists, in its order."""
    return (*_SUMMED, *GRAPH_MEMBERS) if graph else _SUMMED


def most_bytes(member: str) -> int:
    """How large a member may be."""
    if member in (WEIGHTS, GRAPH_WEIGHTS):
        return MAX_WEIGHTS_BYTES
    return MAX_GRAPH_BYTES if member in GRAPH_MEMBERS else MAX_MEMBER_BYTES


def to_json(value: Any, member: str) -> bytes:
    """The bytes of a member; the same value gives the same ones. Raises `ArchiveError`."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ArchiveError(f"{member} cannot hold this content: {error}") from error
    return f"{text}\n".encode()


def from_json(data: bytes, member: str) -> dict[str, Any]:
    """The object that a member holds. Raises `ArchiveError`."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{member} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveError(f"{member} must be a JSON object.")
    return value


def read_zip(path: Path, skipped: frozenset[str]) -> tuple[dict[str, bytes], bool]:
    """The members of a file, less those to be skipped, and whether there is a graph.

    Raises:
        ArchiveError: it is not laid out as `saaa.archive.write` does.
        Exception: of the system or of zipfile, whatever is wrong.
    """
    with path.open("rb") as stream, zipfile.ZipFile(stream) as packed:
        entries = packed.infolist()
        _check_layout(entries, packed, stream)
        members = {entry.filename: packed.read(entry) for entry in entries if entry.filename not in skipped}
        return members, any(entry.filename == GRAPH for entry in entries)


def _check_layout(entries: list[zipfile.ZipInfo], packed: zipfile.ZipFile, stream: BinaryIO) -> None:
    """Refuse all but the members that `write` packs, end to end: no room is left for hidden ones."""
    names = [entry.filename for entry in entries]
    expected = (*_MEMBERS, *GRAPH_MEMBERS) if any(member in names for member in GRAPH_MEMBERS) else _MEMBERS
    if missing := [m for m in expected if m not in names]:
        raise ArchiveError(f"{missing[0]} is missing; this is not a complete saaa archive.")
    if extra := [n for n in names if n not in expected]:
        raise ArchiveError(f"unexpected member {extra[0]!r}; an archive holds {', '.join(_MEMBERS)} only.")
    if len(names) != len(expected):
        raise ArchiveError("a member is there twice.")
    offset = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.file_size > most_bytes(entry.filename):
            raise ArchiveError(
                f"{entry.filename} claims {entry.file_size} bytes; {most_bytes(entry.filename)} are allowed."
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ArchiveError(f"{entry.filename} is compressed; saaa archives store their members.")
        if entry.header_offset != offset:
            raise ArchiveError(f"there are bytes before {entry.filename} that belong to no member.")
        offset += _LOCAL_HEADER_BYTES + len(entry.filename) + entry.file_size
    directory = sum(46 + len(entry.filename) for entry in entries)
    if packed.start_dir != offset or stream.seek(0, os.SEEK_END) != offset + directory + 22:
        raise ArchiveError("there are bytes that belong to no member.")


def read_folder(path: Path, skipped: frozenset[str]) -> tuple[dict[str, bytes], bool]:
    """As `read_zip`, of a folder that a file was unpacked into."""
    members = {}
    graph = (path / GRAPH).is_file()
    for member in (*_MEMBERS, *GRAPH_MEMBERS) if graph else _MEMBERS:
        if member in skipped:
            continue
        file = path / member
        if not file.is_file():
            raise ArchiveError(f"{member} is missing; this is not a complete saaa archive.")
        if file.stat().st_size > most_bytes(member):
            raise ArchiveError(f"{member} is larger than {most_bytes(member)} bytes.")
        members[member] = file.read_bytes()
    return members, graph
