"""A folder of archives: what is to be served, as `models.yaml` says where there is one."""

from __future__ import annotations

from pathlib import Path

from saaa import archive
from saaa.errors import ArchiveError, OptionInvalid, StartFailed
from saaa.work import ModelInfo
from serving.models.models_file import FILE_NAME, Version, read


def find_archives(folder: Path | str) -> tuple[tuple[Path, ModelInfo], ...]:
    """Check every archive that a folder serves: those of its `models.yaml`, else all, in order of their file names.

    Raises:
        StartFailed: no such folder, none in it, an unusable one, two of the same model and version, or `models.yaml`
            is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StartFailed(f"The model folder {folder} does not exist; name one that holds .mar archives.")
    try:
        listed = read(folder)
    except OptionInvalid as error:
        raise StartFailed(f"Cannot serve what is listed in {error.message}") from error
    try:
        if listed is None:
            found = tuple((path, archive.info(path, check_weights=True)) for path in sorted(folder.glob("*.mar")))
        else:
            wanted = ((n, v, version) for n, entry in listed.models.items() for v, version in entry.versions.items())
            found = tuple(
                sorted(
                    ((folder / version.archive, check(folder, n, v, version)) for n, v, version in wanted), key=_path
                )
            )
    except ArchiveError as error:
        raise StartFailed(f"Cannot serve {error.message}") from error
    if not found and listed is not None:
        raise StartFailed(f"{folder / FILE_NAME} lists no model; `saaa models load` adds one.")
    if not found:
        raise StartFailed(f"The model folder {folder} holds no .mar archive; `saaa-train archive` makes them.")
    seen: dict[tuple[str, str], Path] = {}
    for path, info in found:
        other = seen.setdefault((info.name, info.version), path)
        if other is not path:
            raise StartFailed(
                f"{other.name} and {path.name} in {folder} both hold {info.name} {info.version}; remove one."
            )
    return found


def check(folder: Path, name: str, version: str, wanted: Version) -> ModelInfo:
    """Check the archive of one version, weights and all, before anybody loads it.

    Raises:
        ArchiveError: missing, damaged, of another model, or not the one whose digest is wanted.
    """
    path = folder / wanted.archive
    info = archive.info(path, check_weights=True)
    if (info.name, info.version) != (name, version):
        raise ArchiveError(f"{path}: it holds {info.name} {info.version}, not {name} {version}.")
    if info.digest != wanted.digest:
        raise ArchiveError(
            f"{path}: its digest is {info.digest}, but {wanted.digest} was loaded; put the archive back, or give the "
            "new one another version."
        )
    return info


def _path(item: tuple[Path, ModelInfo]) -> Path:
    return item[0]
