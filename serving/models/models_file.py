"""`models.yaml`: which versions of which models a folder of archives serves, and to whom.

It lies beside the archives. Commands edit it (`serving.commands.manage`), services follow it
(`serving.backends.reconcile`); it is replaced whole, so that nobody ever reads half of one. A folder without it serves
all its archives, each model in its highest version.

    format: 1
    models:
      scenes:
        default: '1'                          # what a request gets that names no version
        canary: {version: '2', share: 0.1}    # but one request in ten gets this; may be absent
        versions:
          '1': {archive: scenes-1.mar, digest: <SHA-256 of its SHA256SUMS>}
          '2': {archive: scenes-2.mar, digest: <...>, pinned: true}    # unload refuses it; may be absent
    history:                                  # newest last; what `rollback` goes back to
    - {at: '2026-11-23T12:00:00Z', model: scenes, change: load 2, before: <the model's entry, or null>}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from saaa.errors import OptionInvalid

FILE_NAME = "models.yaml"
FORMAT = 1
MAX_BYTES = 2**20
MAX_HISTORY = 50
_HEAD = "# Written by `saaa models`; every service of this folder follows it.\n"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a model."""

    archive: str
    """File name in the folder."""
    digest: str
    """What the archive must be: SHA-256 of its SHA256SUMS member, 64 hexadecimal digits."""
    pinned: bool = False
    """Whether callers were promised that it stays: it is not unloaded."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model."""

    default: str
    """The version of a request that names none."""
    versions: Mapping[str, Version]
    canary: str = ""
    """The version that some of these requests get instead; empty is none."""
    share: float = 0.0
    """How many of them, above 0 and below 1 with a canary."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was done to one model."""

    at: str
    """When, in UTC as ISO 8601."""
    model: str
    change: str
    """In words."""
    before: Entry | None
    """The model's entry before; None when it was not served."""


@dataclass(frozen=True, kw_only=True)
class ModelsFile:
    """The whole file."""

    models: Mapping[str, Entry] = field(default_factory=dict)
    history: tuple[Change, ...] = ()


def read(folder: Path) -> ModelsFile | None:
    """Read the file of a folder of archives; None when there is none.

    Raises:
        OptionInvalid: it cannot be read, or is not as it must be; `field` says where.
    """
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OptionInvalid(f"{path} has more than {MAX_BYTES} bytes; that is no list of models.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionInvalid(f"{path} cannot be read: {error}.") from error
    try:
        return parse(text)
    except OptionInvalid as error:
        raise OptionInvalid(f"{path}: {error.field}: {error.message}", field=error.field) from None


def parse(text: str) -> ModelsFile:
    """Understand the file's text; raises `OptionInvalid` with the path of what is wrong in `field`."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionInvalid(f"It is no YAML: {' '.join(str(error).split())}", field="file") from None
    top = _fields(document, "file", {"format": int, "models": dict}, {"history": list})
    if top["format"] != FORMAT:
        raise OptionInvalid(f"This saaa knows format {FORMAT}, not {top['format']}.", field="format")
    models = {_name(name, "models"): _entry(value, f"models.{name}") for name, value in top["models"].items()}
    history = top.get("history", [])
    return ModelsFile(models=models, history=tuple(_change(value, f"history[{i}]") for i, value in enumerate(history)))


def to_text(content: ModelsFile) -> str:
    """The file's text: `parse` of it is `content`."""
    document = {
        "format": FORMAT,
        "models": {name: _plain(entry) for name, entry in sorted(content.models.items())},
        "history": [
            {
                "at": change.at,
                "model": change.model,
                "change": change.change,
                "before": _plain(change.before) if change.before else None,
            }
            for change in content.history[-MAX_HISTORY:]
        ],
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def edit(folder: Path, change: Callable[[ModelsFile | None], ModelsFile]) -> ModelsFile:
    """Replace the file by what `change` makes of it; edits at the same time wait for each other.

    Raises:
        OptionInvalid: the folder or the file cannot be read or written; and whatever `change` raises.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OptionInvalid(f"The model folder {folder} cannot be opened: {error.strerror}.", field="models") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = change(read(folder))
        # What is written can be read again, whoever made it.
        parse(text := to_text(content))
        try:
            _replace(folder / FILE_NAME, text)
            os.fsync(handle)
        except OSError as error:
            raise OptionInvalid(f"{folder / FILE_NAME} cannot be written: {error.strerror}.") from error
        return content
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _plain(entry: Entry) -> dict[str, Any]:
    plain: dict[str, Any] = {"default": entry.default}
    if entry.canary:
        plain["canary"] = {"version": entry.canary, "share": entry.share}
    plain["versions"] = {
        name: {"archive": v.archive, "digest": v.digest} | ({"pinned": True} if v.pinned else {})
        for name, v in entry.versions.items()
    }
    return plain


def _entry(value: object, where: str) -> Entry:
    fields = _fields(value, where, {"default": str, "versions": dict}, {"canary": dict})
    versions = {
        _name(name, f"{where}.versions"): _version(v, f"{where}.versions.{name}")
        for name, v in fields["versions"].items()
    }
    canary, share = "", 0.0
    if "canary" in fields:
        part = _fields(fields["canary"], f"{where}.canary", {"version": str, "share": float}, {})
        canary, share = part["version"], part["share"]
        if not 0 < share < 1:
            raise OptionInvalid(f"{share} is no share; give one above 0 and below 1.", field=f"{where}.canary.share")
    named = {"default": fields["default"]} | ({"canary": canary} if "canary" in fields else {})
    for what, version in named.items():
        if version not in versions:
            raise OptionInvalid(f"{version!r} is not one of the versions listed.", field=f"{where}.{what}")
    if canary == fields["default"]:
        raise OptionInvalid("The canary is the default version; leave it out.", field=f"{where}.canary")
    return Entry(default=fields["default"], versions=versions, canary=canary, share=share)


def _version(value: object, where: str) -> Version:
    fields = _fields(value, where, {"archive": str, "digest": str}, {"pinned": bool})
    name = fields["archive"]
    if not name or name != Path(name).name or name.startswith("."):
        raise OptionInvalid(f"{name!r} is no file name; archives lie in the folder itself.", field=f"{where}.archive")
    if not _DIGEST.fullmatch(fields["digest"]):
        raise OptionInvalid("A digest has 64 hexadecimal digits.", field=f"{where}.digest")
    return Version(archive=name, digest=fields["digest"], pinned=fields.get("pinned", False))


def _change(value: object, where: str) -> Change:
    fields = _fields(value, where, {"at": str, "model": str, "change": str}, {"before": dict})
    before = fields.get("before")
    return Change(
        at=fields["at"],
        model=fields["model"],
        change=fields["change"],
        before=None if before is None else _entry(before, f"{where}.before"),
    )


def _name(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise OptionInvalid(f"{value!r} must be text; put it in quotes.", field=where)
    return value


def _fields(value: object, where: str, needed: Mapping[str, type], possible: Mapping[str, type]) -> dict[str, Any]:
    """The fields of one mapping of the document, by name; those that are null are left out."""
    if not isinstance(value, dict):
        raise OptionInvalid(f"It must have the fields {', '.join(needed)}.", field=where)
    known = {**needed, **possible}
    found = {}
    for name, content in value.items():
        kind = known.get(name)
        if kind is None:
            raise OptionInvalid(f"{name!r} is not known; there are {', '.join(known)}.", field=where)
        if content is None and name in possible:
            continue
        if kind is float and type(content) is int:
            content = float(content)
        if type(content) is not kind:
            quotes = "; put it in quotes" if kind is str else ""
            raise OptionInvalid(f"{content!r} must be {_WORDS[kind]}{quotes}.", field=f"{where}.{name}")
        found[name] = content
    for name in needed:
        if name not in found:
            raise OptionInvalid(f"{name} is missing.", field=where)
    return found


_WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}
