"""The contract's promises: fresh stubs, a linted interface, nothing taken away from callers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("protos_generate", PROTOS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def protos_copy(tmp_path: Path) -> Path:
    return shutil.copytree(PROTOS, tmp_path / "protos")


def run_buf(generate: ModuleType, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([generate.buf(), *arguments], capture_output=True, text=True, check=False)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_buf_is_the_wheel_of_the_environment(generate: ModuleType) -> None:
    assert generate.buf().parent == Path(sys.executable).parent
    assert run_buf(generate, "--version").stdout.strip() == "1.75.0"


def test_committed_stubs_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, PROTOS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_check_names_a_changed_a_missing_and_a_left_over_stub(generate: ModuleType, tmp_path: Path) -> None:
    for target in generate.TARGETS:
        generate.generate(target, tmp_path)
    assert generate.stale(tmp_path) == []
    stub = tmp_path / "saaa" / "v1" / "analysis_pb2.py"
    stub.write_text(stub.read_text() + "# by hand\n")
    (tmp_path / "saaa" / "packed" / "v1" / "packed_pb2.pyi").unlink()
    (tmp_path / "saaa" / "v1" / "old_pb2.py").write_text("")
    assert generate.stale(tmp_path) == [
        "saaa/packed/v1/packed_pb2.pyi",
        "saaa/v1/analysis_pb2.py",
        "saaa/v1/old_pb2.py",
    ]


def test_lint_passes(generate: ModuleType) -> None:
    done = run_buf(generate, "lint", PROTOS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("  // The word.\n", "", "COMMENT_FIELD"),
        ("OUTPUT_UNSPECIFIED = 0", "OUTPUT_NOTHING = 0", "ENUM_ZERO_VALUE_SUFFIX"),
    ],
)
def test_lint_catches(generate: ModuleType, protos_copy: Path, old: str, new: str, rule: str) -> None:
    edit(protos_copy / "saaa" / "v1" / "analysis.proto", old, new)
    done = run_buf(generate, "lint", protos_copy, "--error-format=json")
    assert done.returncode != 0
    assert rule in done.stdout


def test_nothing_is_broken_against_the_baseline(generate: ModuleType) -> None:
    done = run_buf(generate, "breaking", PROTOS, "--against", PROTOS / "baseline.binpb")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("  float density = 3;\n", "", "FIELD_NO_DELETE"),
        ("  float density = 3;\n", "  double density = 3;\n", "FIELD_SAME_TYPE"),
        ("  rpc GetModel(GetModelRequest) returns (GetModelResponse);\n", "", "RPC_NO_DELETE"),
    ],
)
def test_breaking_check_catches(generate: ModuleType, protos_copy: Path, old: str, new: str, rule: str) -> None:
    edit(protos_copy / "saaa" / "v1" / "analysis.proto", old, new)
    done = run_buf(
        generate, "breaking", protos_copy, "--against", protos_copy / "baseline.binpb", "--error-format=json"
    )
    assert done.returncode != 0
    assert rule in done.stdout


def test_an_added_field_breaks_nothing(generate: ModuleType, protos_copy: Path) -> None:
    edit(
        protos_copy / "saaa" / "v1" / "analysis.proto",
        "  float density = 3;\n",
        "  float density = 3;\n  // A thing to come.\n  float novelty = 99;\n",
    )
    for arguments in (("lint",), ("breaking", "--against", protos_copy / "baseline.binpb")):
        done = run_buf(generate, arguments[0], protos_copy, *arguments[1:])
        assert done.returncode == 0, done.stdout
