"""A folder of archives: what is to be served."""

from __future__ import annotations

from pathlib import Path

from saaa import archive
from saaa.errors import ArchiveError, StartFailed
from saaa.work import ModelInfo


def find_archives(folder: Path | str) -> tuple[tuple[Path, ModelInfo], ...]:
    """Check every `.mar` file of a folder, in order of their names.

    Raises:
        StartFailed: no such folder, none in it, an unusable one, or two of the same model and version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StartFailed(f"The model folder {folder} does not exist; name one that holds .mar archives.")
    try:
        found = tuple((path, archive.info(path, check_weights=True)) for path in sorted(folder.glob("*.mar")))
    except ArchiveError as error:
        raise StartFailed(f"Cannot serve {error.message}") from error
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
