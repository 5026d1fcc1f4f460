"""Label Studio in a Python environment of its own: its hundred packages and ours would not agree on versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from saaa.errors import StartFailed
from training.annotation.studio_lock import held
from training.stopping import Stop

VERSION = "1.23.2"
PACKAGE = f"label-studio=={VERSION}"
UV = Path(sys.executable).with_name("uv")
"""The installer beside our own Python, where there is one: it takes half a minute, pip three."""
_COMPLETE = "complete"
_LOG = "install.log"
_TOLD = 3
"""Lines of an installer's output that an error quotes."""
_LOOK_S = 0.2


def installed(folder: Path, stop: Stop, package: str = PACKAGE) -> Path:
    """The Python of an environment that has Label Studio; made, or made anew when it was left half-made.

    Args:
        folder: for environments, one a version; several processes may share it.
        stop: ends an installation.
        package: what to install.

    Raises:
        StartFailed: it cannot be installed.
        KeyboardInterrupt: stopped.
    """
    environment = folder / package.replace("==", "-")
    python = environment / "bin" / "python"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / ".lock", wait=stop):
            if not (environment / _COMPLETE).exists():
                print(f"Installing {package} in {environment} (1 GB, some minutes, once)", flush=True)
                shutil.rmtree(environment, ignore_errors=True)
                with (folder / _LOG).open("wb") as log:
                    for command in _commands(environment, python, package):
                        _run(command, log.fileno(), folder / _LOG, stop, package)
                (environment / _COMPLETE).touch()
    except OSError as error:
        raise StartFailed(
            f"{folder} cannot hold Label Studio: {error.strerror or error}; name another folder with --environment."
        ) from error
    return python


def _commands(environment: Path, python: Path, package: str) -> Sequence[Sequence[str]]:
    if UV.exists():
        return (
            [str(UV), "venv", "--quiet", "--no-project", "--python", sys.executable, str(environment)],
            [str(UV), "pip", "install", "--quiet", "--python", str(python), package],
        )
    return (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
    )


def _run(command: Sequence[str], output: int, log: Path, stop: Stop, package: str) -> None:
    # A session of its own: a Ctrl-C is ours to pass on, once.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        while process.poll() is None:
            if stop:
                raise KeyboardInterrupt(f"stopped; {package} is not installed")
            time.sleep(_LOOK_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise StartFailed(
            f"{package} could not be installed: {last_lines(log, _TOLD)}. It comes from the package index that pip and "
            f"uv are set up with, and needs 1 GB of disk; {log} has more. Without it, import label_studio/*.json of "
            "the tasks into a Label Studio of your own."
        )


def last_lines(log: Path, count: int) -> str:
    """The end of a log, on one line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return "no word of why"
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:])[-500:] or "no word of why"
