"""What the checks of `deploy/` share: the tools, and everything that kustomize makes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.check import manifests
from deploy.check.manifests import Object
from deploy.check.tools import ROOT, ToolMissing, run, tool

REQUIRED = os.environ.get("SAAA_DEPLOY_TOOLS_REQUIRED") == "1"
"""Whether a missing tool fails a test instead of skipping it."""


@contextmanager
def tools_needed() -> Iterator[None]:
    """Skips the test, or fails it where tools are required, when a tool is missing."""
    try:
        yield
    except ToolMissing as missing:
        if REQUIRED:
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def variants() -> dict[str, list[Object]]:
    """Everything that can be applied, as kustomize builds it; not to be changed."""
    with tools_needed():
        return manifests.variants()
    raise AssertionError("not reached")


def schema_problems(objects: list[Object]) -> list[str]:
    """What the strict schemas say against objects."""
    with tools_needed():
        done = run("python", "-m", "deploy.check.schema", stdin=json.dumps(objects))
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def api_server() -> Iterator[str]:
    """The address of a stub of an API server."""
    with tools_needed():
        program = tool("python")
    stub = subprocess.Popen(
        [program, "-m", "deploy.check.stub_api"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert stub.stdin is not None
    assert stub.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(stub.stdout.readline())}"
    finally:
        stub.stdin.close()
        stub.wait(timeout=10)
