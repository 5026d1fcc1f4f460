"""Regenerate every protobuf stub of the project, or check that the committed ones are fresh.

    python protos/generate.py             writes the stubs
    python protos/generate.py --check     writes nothing; exits 1 and names the stubs that are not fresh
    python protos/generate.py --baseline  moves the baseline of the breaking check (for a release, on purpose)

The one place that says which `.proto` becomes which package. Needs the `dev` extra (grpcio-tools, buf-bin).
"""

from __future__ import annotations

import argparse
import importlib.resources
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
BASELINE = PROTOS / "baseline.binpb"


@dataclass(frozen=True)
class Target:
    """One folder of `.proto` files and the Python package that its stubs form."""

    source: str
    """Folder below `protos/`."""
    package: str
    """Folder of the package below the project's root; also the import path inside the stubs."""
    services: bool
    """Whether to write `_pb2_grpc.py` as well."""

    def files(self) -> list[Path]:
        return sorted((PROTOS / self.source).glob("*.proto"))


TARGETS = (
    Target("saaa/v1", "saaa/v1", services=True),
    Target("saaa/packed/v1", "saaa/packed/v1", services=False),
    # The few messages of TorchServe that we call. They keep TorchServe's file and package names.
    Target("torchserve", "serving/backends/ts", services=True),
    # The Open Inference Protocol, with the names that its clients know.
    Target("inference", "serving/contract/oip", services=True),
)


def generate(target: Target, out: Path) -> None:
    """Write the stubs of `target` below `out`; its package folder is made when absent.

    Raises:
        SystemExit: the compiler refused a file; its message went to standard error.
    """
    if not target.files():
        return
    (out / target.package).mkdir(parents=True, exist_ok=True)
    # The virtual path makes the stubs import each other by the package's name, wherever the .proto files lie.
    arguments = [
        f"-I{target.package}={PROTOS / target.source}",
        f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        # For google/rpc/status.proto.
        f"-I{PROTOS}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        *([f"--grpc_python_out={out}"] if target.services else []),
        *(f"{target.package}/{file.name}" for file in target.files()),
    ]
    done = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def stale(root: Path = ROOT) -> list[str]:
    """Name every stub below `root` that differs from a fresh one, is missing, or has no `.proto` any more."""
    with tempfile.TemporaryDirectory() as folder:
        fresh_root = Path(folder)
        for target in TARGETS:
            generate(target, fresh_root)
        fresh = _stubs(fresh_root)
        committed = _stubs(root)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def _stubs(root: Path) -> dict[str, bytes]:
    found = {}
    for target in TARGETS:
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py"):
            for path in (root / target.package).glob(pattern):
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def buf() -> Path:
    """The `buf` command of the environment's buf-bin wheel, never another program of that name."""
    return Path(sys.executable).parent / "buf"


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the protobuf stubs.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="write nothing; exit 1 when a stub is stale")
    choice.add_argument("--baseline", action="store_true", help="write baseline.binpb from these protos")
    options = parser.parse_args()
    if options.check:
        if names := stale():
            sys.exit(f"stale stubs: {', '.join(names)}; run `python protos/generate.py` and commit them")
    elif options.baseline:
        subprocess.run([buf(), "build", PROTOS, "-o", BASELINE, "--exclude-source-info"], check=True)
    else:
        for target in TARGETS:
            generate(target, ROOT)


if __name__ == "__main__":
    main()
