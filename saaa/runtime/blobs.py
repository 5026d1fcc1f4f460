"""Compiled graphs on disk, so that the next start need not compile them.

A compiled graph is machine code in all but name: it is used only if this very user wrote it, for the same archive,
processor, version and settings, and if its digest is right. What depends on the same lies in one folder, and only the
`MODELS` folders that were used last are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

MODELS = 16
"""Most models kept, each with one precision and one number of threads. One takes about four times its weights."""
_FOLDER = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger(__name__)


class Blobs:
    """One model's compiled graphs in a folder that many models may share.

    Args:
        folder: made when something is kept.
        key: all that a blob depends on, in one line.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._shared = folder
        self._folder = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
        self._key = key

    def load(self, name: str) -> bytes | None:
        """Give what was kept under the name; None if there is nothing that may be used."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    _log.warning("%s was or can be written by somebody else; compiling anew", path)
                    return None
                head, data = json.loads(file.readline(100_000)), file.read()
            sound = head == self._head(name, data)
            os.utime(self._folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            sound = False
        if not sound:
            _log.warning("%s is damaged or of another model; compiling anew", path)
            return None
        return data

    def store(self, name: str, data: bytes) -> None:
        """Keep data under the name, atomically; a folder that cannot be written only costs time."""
        path = self._path(name)
        try:
            self._shared.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(self._head(name, data)).encode() + b"\n")
                    file.write(data)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._prune()
        except OSError as error:
            _log.warning("what was compiled cannot be kept: %s", error)

    def _prune(self) -> None:
        """Remove the folders that were not used for longest; a worker that reads one meanwhile compiles anew."""
        with os.scandir(self._shared) as entries:
            ours = [e for e in entries if _FOLDER.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        for entry in sorted(ours, key=lambda e: e.stat().st_mtime_ns)[:-MODELS]:
            shutil.rmtree(entry.path, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.blob"

    def _head(self, name: str, data: bytes) -> dict[str, str]:
        return {"key": self._key, "name": name, "sha256": hashlib.sha256(data).hexdigest()}
