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
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from saaa.archive_content import Archive, check_names
from saaa.archive_members import (
    CARD,
    CONFIG,
    GRAPH,
    GRAPH_MEMBERS,
    GRAPH_WEIGHTS,
    HANDLER,
    HANDLERS,
    HEAVY,
    MANIFEST,
    MAX_ARCHIVE_BYTES,
    MAX_MEMBER_BYTES,
    PARITY,
    SETTINGS,
    SETTINGS_TEXT,
    SUMS,
    WEIGHTS,
    from_json,
    manifest,
    most_bytes,
    read_folder,
    read_zip,
    summed_members,
    to_json,
)
from saaa.errors import ArchiveError
from saaa.work import ModelInfo, ModelKind

__all__ = [
    "FORMAT",
    "GRAPH",
    "GRAPH_WEIGHTS",
    "MAX_MEMBER_BYTES",
    "OLDEST_FORMAT",
    "PARITY",
    "Archive",
    "info",
    "read",
    "write",
]

FORMAT = 2
OLDEST_FORMAT = max(1, FORMAT - 1)

_RESERVED = ("format", "kind", "name", "version")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: Path | str, archive: Archive) -> str:
    """Write `archive` to `path`, atomically, replacing what is there.

    Returns:
        The digest.

    Raises:
        ArchiveError: a name or size outside the limits, or content that JSON or safetensors cannot hold.
    """
    from safetensors.numpy import save

    check_names(archive)
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
    summed = summed_members(bool(archive.graph))
    members = {
        WEIGHTS: weights,
        CONFIG: to_json({**head, **archive.config}, CONFIG),
        CARD: to_json(archive.card, CARD),
        HANDLER: HANDLERS[archive.kind].encode(),
        SETTINGS: SETTINGS_TEXT.encode(),
        **archive.graph,
    }
    archive.info()  # is complete
    members[SUMS] = "".join(f"{hashlib.sha256(members[m]).hexdigest()}  {m}\n" for m in summed).encode()
    members[MANIFEST] = to_json(manifest(archive.name, archive.version), MANIFEST)
    for member, data in members.items():
        if len(data) > most_bytes(member):
            raise ArchiveError(f"{member} has {len(data)} bytes; at most {most_bytes(member)} are allowed.")
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
    skipped = frozenset() if with_weights else HEAVY
    try:
        members, graph = read_folder(path, skipped) if path.is_dir() else read_zip(path, skipped)
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


def _parse(members: Mapping[str, bytes], graph: bool) -> Archive:
    config = from_json(members[CONFIG], CONFIG)
    version = config.get("format")
    if type(version) is not int or not OLDEST_FORMAT <= version <= FORMAT:
        raise ArchiveError(
            f"format {version!r} is unknown; this saaa reads formats {OLDEST_FORMAT} to {FORMAT}. "
            "Use a matching saaa or build the archive again."
        )
    _check_sums(members, summed_members(graph))
    try:
        kind = ModelKind(config.get("kind"))
    except ValueError:
        raise ArchiveError(f"kind {config.get('kind')!r} is unknown; it must be egdd or ega.") from None
    archive = Archive(
        kind=kind,
        name=config.get("name", ""),
        version=config.get("version", ""),
        config={key: value for key, value in config.items() if key not in _RESERVED},
        card=from_json(members[CARD], CARD),
        digest=hashlib.sha256(members[SUMS]).hexdigest(),
    )
    check_names(archive)
    if members[HANDLER] != HANDLERS[kind].encode():
        raise ArchiveError(f"{HANDLER} is not the one that saaa writes; archives carry no code of their own.")
    if from_json(members[MANIFEST], MANIFEST) != manifest(archive.name, archive.version):
        raise ArchiveError(f"{MANIFEST} does not match {CONFIG}.")
    archive.info()  # is complete
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
