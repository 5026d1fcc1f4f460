"""The house as ARCHITECTURE.md draws it: import directions, and what runs without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "captum", "safetensors", "h5py", "tqdm"}:
            raise ImportError(f"{name} is not part of the bare install")

sys.meta_path.insert(0, Refuse())
import saaa.client, saaa.report, saaa.archive, saaa.wire, saaa.proposal, saaa.concepts
import serving.commands.cli, serving.server
import serving.backends.torchserve, serving.backends.process, serving.backends.local
"""


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_client_and_facade_need_no_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_file_names_a_registry_or_a_machine() -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    hosts = ["://" + host for host in ("pypi.", "files.pythonhosted.", "registry.npmjs.", "deb.debian.")]
    for name in filter(None, files):
        path = PROJECT / name
        if not path.is_file():
            continue  # removed, not committed yet
        content = path.read_bytes()
        assert not any(host.encode() in content for host in hosts), name
