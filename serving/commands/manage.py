"""`saaa models load|unload|promote|rollback`: edits of a folder's `models.yaml`, which the services follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from saaa import archive
from saaa.errors import ArchiveError, ModelNotFound, OptionInvalid
from saaa.work import ModelInfo
from serving.models import models_file
from serving.models.catalog import version_order
from serving.models.models_file import Change, Entry, ModelsFile, Version
from serving.models.store import check, find_archives

Edit = Callable[[ModelsFile], ModelsFile]


def load(folder: Path, path: Path, *, pinned: bool = False) -> ModelsFile:
    """Serve an archive of the folder beside what is served; the first version of a model is its default.

    Raises:
        ArchiveError: it cannot be used.
        OptionInvalid: it lies elsewhere, or its version is another archive's already.
    """
    path = path if path.parent != Path() else folder / path
    if path.parent.resolve() != folder.resolve():
        raise OptionInvalid(f"{path} is not in the model folder {folder}; copy it there first.", field="archive")
    info = archive.info(path, check_weights=True)
    version = Version(archive=path.name, digest=info.digest, pinned=pinned)

    def change(content: ModelsFile) -> ModelsFile:
        entry = content.models.get(info.name)
        if entry is None:
            entry = Entry(default=info.version, versions={})
        known = entry.versions.get(info.version)
        if known is not None and known.digest != info.digest:
            raise OptionInvalid(
                f"{info.name} {info.version} is served from another archive, {known.archive}; a version never "
                "changes. Build this one under another version.",
                field="archive",
            )
        entry = replace(entry, versions=_ordered({**entry.versions, info.version: version}))
        return _changed(content, info.name, f"load {info.version}", entry)

    return _edit(folder, change, besides=info)


def unload(folder: Path, name: str, version: str = "") -> ModelsFile:
    """Serve a version, or a whole model, no longer; its archive stays where it is.

    Raises:
        ModelNotFound: it is not served.
        OptionInvalid: it is the default of others, or pinned.
    """

    def change(content: ModelsFile) -> ModelsFile:
        entry = _entry(content, name, version)
        for each in [version] if version else entry.versions:
            if entry.versions[each].pinned:
                raise OptionInvalid(
                    f"{name} {each} is pinned: its callers were promised that it stays. Load it again without --pin "
                    "to take that back.",
                    field="version",
                )
        left = {key: value for key, value in entry.versions.items() if version and key != version}
        if left and version == entry.default:
            raise OptionInvalid(
                f"{name} {version} is the default; promote another version first ({', '.join(left)}).", field="version"
            )
        kept = None
        if left:
            kept = replace(entry, versions=left)
            if entry.canary == version:
                kept = replace(kept, canary="", share=0.0)
        return _changed(content, name, f"unload {version}".strip(), kept)

    return _edit(folder, change)


def promote(folder: Path, name: str, version: str, share: float | None = None) -> ModelsFile:
    """Make a version the default, or with a share the canary; the versions before stay loaded.

    Args:
        folder: of the archives.
        name: of the model.
        version: one that is served.
        share: None makes it the default and ends the canary; else how many of the requests that name no version get
            it, above 0 and below 1.

    Raises:
        ModelNotFound: it is not served.
        OptionInvalid: the share is none.
    """
    if share is not None and not 0 < share < 1:
        raise OptionInvalid(f"{share} is no share; give one above 0 and below 1, or none for all.", field="share")

    def change(content: ModelsFile) -> ModelsFile:
        entry = _entry(content, name, version)
        if share is None:
            return _changed(content, name, f"promote {version}", replace(entry, default=version, canary="", share=0.0))
        if version == entry.default:
            raise OptionInvalid(f"{name} {version} is the default; a canary is another version.", field="version")
        entry = replace(entry, canary=version, share=share)
        return _changed(content, name, f"promote {version} to {share:g}", entry)

    return _edit(folder, change)


def rollback(folder: Path, name: str) -> ModelsFile:
    """Undo the last change of a model; once more undoes the one before.

    Raises:
        ModelNotFound: nothing is known of any change.
        ArchiveError: an archive that was served before is gone or another one now.
    """

    def change(content: ModelsFile) -> ModelsFile:
        places = [index for index, past in enumerate(content.history) if past.model == name]
        if not places:
            raise ModelNotFound(f"No change of {name} is known; there is nothing to go back to.", field="model")
        before = content.history[places[-1]].before
        now = content.models.get(name)
        for version, wanted in before.versions.items() if before else ():
            if now is None or now.versions.get(version) != wanted:
                check(folder, name, version, wanted)
        rest = content.history[: places[-1]] + content.history[places[-1] + 1 :]
        return ModelsFile(models=_with(content, name, before), history=rest)

    return _edit(folder, change)


def served(folder: Path) -> ModelsFile:
    """What a folder serves, by its file or, without one, by its archives.

    Raises:
        OptionInvalid: the file cannot be used.
        ArchiveError: an archive cannot be, or two are the same version.
    """
    return models_file.read(folder) or _implicit(folder, None)


def describe(content: ModelsFile) -> str:
    """The file in words: one line a version."""
    lines = []
    for name, entry in sorted(content.models.items()):
        for version, held in entry.versions.items():
            notes = ["default"] if version == entry.default else []
            notes += [f"canary {entry.share:g}"] if version == entry.canary else []
            notes += ["pinned"] if held.pinned else []
            lines.append(f"{name} {version}  {held.archive}  {held.digest[:12]}  {', '.join(notes)}".rstrip())
    return "\n".join(lines) or "no model is served"


def run_check(folder: Path) -> int:
    """Check every archive that a folder serves, weights and all, and print what they are.

    Raises:
        StartFailed: one is not what it should be, or nothing is served.
    """
    for path, info in find_archives(folder):
        print(f"{path.name}: {info.name} {info.version}, {info.digest}")
    return 0


def run_edit(action: str, what: str, folder: Path, *, share: float | None, pin: bool) -> int:
    """Do one of the edits and print what is served then.

    Args:
        action: "load", "unload", "promote" or "rollback".
        what: an archive's file name for "load"; else NAME or NAME:VERSION.
        folder: of the archives.
        share: for "promote".
        pin: for "load".

    Raises:
        OptionInvalid, ModelNotFound, ArchiveError: it cannot be done; the file stays as it is.
    """
    name, _, version = what.partition(":")
    if not what or (action == "promote" and not version) or (action == "rollback" and version):
        form = {"load": "ARCHIVE.mar", "unload": "NAME or NAME:VERSION", "promote": "NAME:VERSION", "rollback": "NAME"}
        raise OptionInvalid(f"Say which: saaa models {action} {form[action]} --models FOLDER.", field="what")
    if action == "load":
        content = load(folder, Path(what), pinned=pin)
    elif action == "unload":
        content = unload(folder, name, version)
    elif action == "promote":
        content = promote(folder, name, version, share)
    else:
        content = rollback(folder, name)
    print(describe(content))
    return 0


def _edit(folder: Path, change: Edit, *, besides: ModelInfo | None = None) -> ModelsFile:
    """The first edit of a folder writes down what is served without the file: all archives, less the one to load."""
    return models_file.edit(folder, lambda content: change(content or _implicit(folder, besides)))


def _implicit(folder: Path, besides: ModelInfo | None) -> ModelsFile:
    models: dict[str, dict[str, Version]] = {}
    for path in sorted(folder.glob("*.mar")):
        info = archive.info(path)
        if besides is None or info.digest != besides.digest:
            versions = models.setdefault(info.name, {})
            if info.version in versions:
                raise ArchiveError(f"{path}: another archive of the folder holds {info.name} {info.version} too.")
            versions[info.version] = Version(archive=path.name, digest=info.digest)
    return ModelsFile(
        models={
            name: Entry(default=max(versions, key=version_order), versions=_ordered(versions))
            for name, versions in models.items()
        }
    )


def _changed(content: ModelsFile, name: str, words: str, entry: Entry | None) -> ModelsFile:
    before = content.models.get(name)
    if entry == before:
        return content
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    past = Change(at=at, model=name, change=words, before=before)
    return ModelsFile(models=_with(content, name, entry), history=(*content.history, past))


def _with(content: ModelsFile, name: str, entry: Entry | None) -> dict[str, Entry]:
    rest = {key: value for key, value in content.models.items() if key != name}
    return rest | ({name: entry} if entry is not None else {})


def _entry(content: ModelsFile, name: str, version: str) -> Entry:
    entry = content.models.get(name)
    if entry is None:
        raise ModelNotFound(f"No model {name} is served; there are {', '.join(content.models) or 'none'}.")
    if version and version not in entry.versions:
        raise ModelNotFound(f"The model {name} has no version {version}; load it first ({', '.join(entry.versions)}).")
    return entry


def _ordered(versions: dict[str, Version]) -> dict[str, Version]:
    return {key: versions[key] for key in sorted(versions, key=version_order)}
