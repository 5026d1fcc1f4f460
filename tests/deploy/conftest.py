"""What the checks of `deploy/` share: the tools, and everything that kustomize makes."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.check import manifests
from deploy.check.manifests import Object
from deploy.check.tools import ROOT, ToolMissing, tool

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


def schema_problems(api_server: str, objects: list[Object]) -> list[str]:
    """What the stub's schemas say against objects, without kubectl in between."""
    found = []
    for each in objects:
        request = urllib.request.Request(f"{api_server}/any?dryRun=All", json.dumps(each).encode(), method="PATCH")
        try:
            urllib.request.urlopen(request, timeout=120).close()
        except urllib.error.HTTPError as refused:
            found.append(str(json.load(refused)["message"]))
    return found
