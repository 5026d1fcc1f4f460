"""The programs that the checks run; `make deploy-tools` puts them under `.deploy-tools/`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
DEPLOY = ROOT / "deploy"
TOOLS = Path(os.environ.get("SAAA_DEPLOY_TOOLS", ROOT / ".deploy-tools"))
"""`env/` is an environment of Python packages, `debian/` what came out of Debian packages; `images/` is for images."""
_PLACES = ("env/bin", "debian/usr/bin", "checkov/bin", "images/debian/usr/bin")


class ToolMissing(Exception):
    """A program is not there; the message says how to get it."""


def tool(name: str) -> Path:
    """Find a program.

    Raises:
        ToolMissing: it is not there.
    """
    for place in _PLACES:
        if (path := TOOLS / place / name).exists():
            return path
    raise ToolMissing(f"{name} is not in {TOOLS.name}/; `make deploy-tools` fetches it")


def run(
    name: str,
    *arguments: str | Path,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program in the checkout to its end; its exit code is the caller's to judge.

    Args:
        name: the program.
        arguments: of its command line.
        stdin: what it reads.
        environment: variables besides ours.
        timeout: seconds after which it is killed.

    Raises:
        ToolMissing: it is not there.
    """
    command: Sequence[str | Path] = (tool(name), *arguments)
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        timeout=timeout,
        check=False,
    )
