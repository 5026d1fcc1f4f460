"""Model archives: one deterministic `.mar` file of weights, configuration, card and digests.

An archive is a zip file that TorchServe hosts as it is. Nothing in it is pickled, no code is its own:

- `model.safetensors`: the weights
- `config.json`: format version, kind, name, version, and what is needed to build and feed the model
- `card.json`: data, metrics and recipe, free form
- `handler.py`: the fixed lines of `HANDLERS`, which import the handler of the installed saaa
- `model-config.yaml`: how TorchServe runs it
- `SHA256SUMS`: digests of the members above, in the format of `sha256sum -c`
- `MAR-INF/MANIFEST.json`: what TorchServe's loader reads; it follows from config.json

and, where the model was also compiled into a graph (`saaa.runtime.graph`), all of:

- `graph.xml`, `graph.bin`: OpenVINO's two files of it
- `parity.safetensors`: a few inputs with the eager model's answers, by which a worker checks what it has compiled

The archive's digest is the SHA-256 of SHA256SUMS. Members are stored uncompressed, in this order, with one
fixed time stamp, so equal content gives equal bytes. Reading accepts exactly what `write` makes, in format
`FORMAT` or the one before: an archive cannot bring code, hide a second member, or expand beyond its own size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from saaa.errors import ArchiveError
from saaa.work import DECODE_SCALES, MethodInfo, ModelInfo, ModelKind, TargetKind

FORMAT = 2
OLDEST_FORMAT = max(1, FORMAT - 1)

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
_HEAVY = frozenset({WEIGHTS, *GRAPH_MEMBERS})
_RESERVED = ("format", "kind", "name", "version")
_LOCAL_HEADER_BYTES = 30
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")


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
_SETTINGS = """\
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


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A model at rest."""

    kind: ModelKind
    name: str
    """Starts with a letter or digit; letters, digits, "_", "." and "-", at most 63 characters."""
    version: str
    """Alike, at most 31 characters."""
    config: Mapping[str, Any]
    """config.json without format, kind, name and version (those are the fields above)."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """card.json; any JSON object."""
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Weights by name; any dtype that NumPy and safetensors share."""
    graph: Mapping[str, bytes] = field(default_factory=dict)
    """The members `GRAPH_MEMBERS`, all or none."""
    digest: str = field(default="", compare=False)
    """64 hexadecimal digits, set by `read`; "" before the archive is written."""

    def info(self) -> ModelInfo:
        """Give the model's description; raises `ArchiveError` when config.json lacks a part of it."""
        return _info(self)


def write(path: Path | str, archive: Archive) -> str:
    """Write `archive` to `path`, atomically, replacing what is there.

    Returns:
        The digest.

    Raises:
        ArchiveError: a name or size outside the limits, or content that JSON or safetensors cannot hold.
    """
    from safetensors.numpy import save

    _check_names(archive)
    if clash := [key for key in _RESERVED if key in archive.config]:
        raise ArchiveError(f"config must not contain {', '.join(clash)}: the archive's own fields say it.")
    head = {
        "format": FORMAT,
        "kind": archive.kind.value,
        "name": archive.name,
        "version": archive.version,
    }
    try:
        weights = save({key: np.asarray(value, order="C") for key, value in archive.tensors.items()})
    except Exception as error:  # safetensors raises its own and built-in types
        raise ArchiveError(f"The weights cannot be stored as safetensors: {error}") from error
    if archive.graph and set(archive.graph) != set(GRAPH_MEMBERS):
        raise ArchiveError(f"A graph is {', '.join(GRAPH_MEMBERS)}, not {', '.join(sorted(archive.graph))}.")
    summed = _summed(bool(archive.graph))
    members = {
        WEIGHTS: weights,
        CONFIG: _to_json({**head, **archive.config}, CONFIG),
        CARD: _to_json(archive.card, CARD),
        HANDLER: HANDLERS[archive.kind].encode(),
        SETTINGS: _SETTINGS.encode(),
        **archive.graph,
    }
    _info(archive)
    members[SUMS] = "".join(f"{hashlib.sha256(members[m]).hexdigest()}  {m}\n" for m in summed).encode()
    members[MANIFEST] = _to_json(_manifest(archive.name, archive.version), MANIFEST)
    for member, data in members.items():
        if len(data) > _limit(member):
            raise ArchiveError(f"{member} has {len(data)} bytes; at most {_limit(member)} are allowed.")
    if (total := sum(map(len, members.values()))) > MAX_ARCHIVE_BYTES:
        raise ArchiveError(
            f"The members have {total} bytes; at most {MAX_ARCHIVE_BYTES} are allowed. Leave the graph out."
        )

    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
            for member in (*summed, SUMS, MANIFEST):
                entry = zipfile.ZipInfo(member, _EPOCH)
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                packed.writestr(entry, members[member])
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashlib.sha256(members[SUMS]).hexdigest()


def read(path: Path | str) -> Archive:
    """Read an archive, or the folder that TorchServe unpacked one into, and check all of it.

    Raises:
        ArchiveError: missing, unreadable, of an unknown format, damaged, or not as `write` makes it.
    """
    from safetensors.numpy import load

    archive, members = _read(Path(path), with_weights=True)
    try:
        tensors = load(members[WEIGHTS])
    except Exception as error:  # safetensors raises its own and built-in types
        raise ArchiveError(f"{path}: {WEIGHTS} cannot be read: {error}") from error
    return Archive(
        kind=archive.kind,
        name=archive.name,
        version=archive.version,
        config=archive.config,
        card=archive.card,
        tensors=tensors,
        graph={member: members[member] for member in GRAPH_MEMBERS if member in members},
        digest=archive.digest,
    )


def info(path: Path | str, *, check_weights: bool = False) -> ModelInfo:
    """Describe an archive without building anything; raises as `read`.

    Args:
        path: as for `read`.
        check_weights: also read the weights, and the graph, and compare their digests.
    """
    archive, _ = _read(Path(path), with_weights=check_weights)
    return archive.info()


def _read(path: Path, *, with_weights: bool) -> tuple[Archive, dict[str, bytes]]:
    skipped = frozenset() if with_weights else _HEAVY
    try:
        members, graph = _read_folder(path, skipped) if path.is_dir() else _read_zip(path, skipped)
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error.message}") from None
    except FileNotFoundError:
        raise ArchiveError(f"{path}: there is no such archive.") from None
    # zipfile raises NotImplementedError at a compression, RuntimeError at an encryption, that it does not know.
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{path}: the archive cannot be read ({error}); copy or build it again.") from error
    try:
        return _parse(members, graph), members
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error.message}") from None


def _read_zip(path: Path, skipped: frozenset[str]) -> tuple[dict[str, bytes], bool]:
    """The members, less those to be skipped, and whether there is a graph; so too `_read_folder`."""
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
        if entry.file_size > _limit(entry.filename):
            raise ArchiveError(
                f"{entry.filename} claims {entry.file_size} bytes; {_limit(entry.filename)} are allowed."
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ArchiveError(f"{entry.filename} is compressed; saaa archives store their members.")
        if entry.header_offset != offset:
            raise ArchiveError(f"there are bytes before {entry.filename} that belong to no member.")
        offset += _LOCAL_HEADER_BYTES + len(entry.filename) + entry.file_size
    directory = sum(46 + len(entry.filename) for entry in entries)
    if packed.start_dir != offset or stream.seek(0, os.SEEK_END) != offset + directory + 22:
        raise ArchiveError("there are bytes that belong to no member.")


def _read_folder(path: Path, skipped: frozenset[str]) -> tuple[dict[str, bytes], bool]:
    members = {}
    graph = (path / GRAPH).is_file()
    for member in (*_MEMBERS, *GRAPH_MEMBERS) if graph else _MEMBERS:
        if member in skipped:
            continue
        file = path / member
        if not file.is_file():
            raise ArchiveError(f"{member} is missing; this is not a complete saaa archive.")
        if file.stat().st_size > _limit(member):
            raise ArchiveError(f"{member} is larger than {_limit(member)} bytes.")
        members[member] = file.read_bytes()
    return members, graph


def _parse(members: Mapping[str, bytes], graph: bool) -> Archive:
    config = _from_json(members[CONFIG], CONFIG)
    version = config.get("format")
    if type(version) is not int or not OLDEST_FORMAT <= version <= FORMAT:
        raise ArchiveError(
            f"format {version!r} is unknown; this saaa reads formats {OLDEST_FORMAT} to {FORMAT}. "
            "Use a matching saaa or build the archive again."
        )
    _check_sums(members, _summed(graph))
    try:
        kind = ModelKind(config.get("kind"))
    except ValueError:
        raise ArchiveError(f"kind {config.get('kind')!r} is unknown; it must be egdd or ega.") from None
    archive = Archive(
        kind=kind,
        name=config.get("name", ""),
        version=config.get("version", ""),
        config={key: value for key, value in config.items() if key not in _RESERVED},
        card=_from_json(members[CARD], CARD),
        digest=hashlib.sha256(members[SUMS]).hexdigest(),
    )
    _check_names(archive)
    if members[HANDLER] != HANDLERS[kind].encode():
        raise ArchiveError(f"{HANDLER} is not the one that saaa writes; archives carry no code of their own.")
    if _from_json(members[MANIFEST], MANIFEST) != _manifest(archive.name, archive.version):
        raise ArchiveError(f"{MANIFEST} does not match {CONFIG}.")
    _info(archive)
    return archive


def _check_sums(members: Mapping[str, bytes], summed: tuple[str, ...]) -> None:
    sums: dict[str, str] = {}
    for line in members[SUMS].decode("utf-8", "replace").splitlines():
        digest, _, member = line.partition("  ")
        sums[member] = digest
    if tuple(sums) != summed:
        raise ArchiveError(f"{SUMS} must list {', '.join(summed)}, once each and in this order.")
    for member in summed:
        if member in members and hashlib.sha256(members[member]).hexdigest() != sums[member]:
            raise ArchiveError(f"{member} does not match its digest; copy or build the archive again.")


def _check_names(archive: Archive) -> None:
    for what, value, pattern in (("name", archive.name, _NAME), ("version", archive.version, _VERSION)):
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ArchiveError(
                f"{what} {value!r} is not allowed: start with a letter or digit, then letters, digits, "
                f'"_", "." and "-", at most {63 if what == "name" else 31} characters.'
            )


def _manifest(name: str, version: str) -> dict[str, Any]:
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


def _summed(graph: bool) -> tuple[str, ...]:
    return (*_SUMMED, *GRAPH_MEMBERS) if graph else _SUMMED


def _limit(member: str) -> int:
    if member in (WEIGHTS, GRAPH_WEIGHTS):
        return MAX_WEIGHTS_BYTES
    return MAX_GRAPH_BYTES if member in GRAPH_MEMBERS else MAX_MEMBER_BYTES


def _to_json(value: Any, member: str) -> bytes:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ArchiveError(f"{member} cannot hold this content: {error}") from error
    return f"{text}\n".encode()


def _from_json(data: bytes, member: str) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{member} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveError(f"{member} must be a JSON object.")
    return value


def _info(archive: Archive) -> ModelInfo:
    config = archive.config
    try:
        preprocessing = config["preprocessing"]
        size = int(preprocessing["input_size"])
        resize = str(preprocessing["resize"])
        crop = float(preprocessing["crop_fraction"])
        scales = tuple(int(scale) for scale in preprocessing.get("decode_scales", ()))
        margin = float(preprocessing.get("decode_margin", 1))
        classes = tuple(str(c) for c in config.get("classes", ()))
        vocabulary = len(config.get("vocabulary", ()))
        methods = tuple(
            MethodInfo(
                name=str(m["name"]),
                cost_forwards=float(m["cost_forwards"]),
                reference=str(m["reference"]),
                # Archives from before captions could be explained do not say.
                targets=tuple(TargetKind(kind) for kind in m.get("targets", ("class",))),
            )
            for m in config.get("methods", ())
        )
        limits = (int(config.get("max_nodes", 0)), int(config.get("max_words", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"{CONFIG} is incomplete or malformed ({error!r}).") from error
    if not 1 <= size <= 4096 or resize not in ("squash", "crop") or not (math.isfinite(crop) and 0 < crop <= 1):
        raise ArchiveError(
            f"{CONFIG}: preprocessing needs an input_size of 1 to 4096, resize squash or crop, "
            "and a crop_fraction above 0 and at most 1."
        )
    if not set(scales) <= set(DECODE_SCALES) or not 1 <= margin < math.inf:
        raise ArchiveError(f"{CONFIG}: decode_scales are of {DECODE_SCALES}, and decode_margin is at least 1.")
    if archive.kind is ModelKind.EGDD and not (classes and methods):
        raise ArchiveError(f"{CONFIG} of a classifier must list its classes and attribution methods.")
    if archive.kind is ModelKind.EGA and not (vocabulary and min(limits) > 0):
        raise ArchiveError(f"{CONFIG} of a captioner must give its vocabulary, max_nodes and max_words.")
    return ModelInfo(
        name=archive.name,
        version=archive.version,
        kind=archive.kind,
        digest=archive.digest,
        input_size=size,
        resize=resize,
        crop_fraction=crop,
        decode_scales=scales,
        decode_margin=margin,
        classes=classes,
        vocabulary_size=vocabulary,
        max_nodes=limits[0],
        max_words=limits[1],
        methods=methods,
        card_json=json.dumps(archive.card, ensure_ascii=False, sort_keys=True),
    )
