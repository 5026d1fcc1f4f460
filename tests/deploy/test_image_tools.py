"""The unpacked buildah builds, without a registry and a network. The images themselves are `test_images`."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from deploy.check.tools import tool
from tests.deploy.conftest import tools_needed
from tests.deploy.container_pod import TOOLS

RECIPE = """
ARG BASE=nothing
FROM ${BASE} AS build
COPY note /note
FROM ${BASE}
COPY --from=build /note /copied
USER 10001:10001
"""


def buildah(*words: str | Path) -> str:
    done = subprocess.run([TOOLS, "buildah", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recipe_like_ours_is_built(tmp_path: Path) -> None:
    with tools_needed():
        tool("buildah")
    if os.geteuid() != 0:
        pytest.skip("images are built as root")
    name = f"localhost/test-{uuid.uuid4().hex}"
    (tmp_path / "note").write_text("kept")
    (tmp_path / "Dockerfile").write_text(RECIPE)
    try:
        buildah("bud", "--quiet", "--build-arg", "BASE=scratch", "--tag", name, tmp_path)
        told = json.loads(buildah("inspect", "--type", "image", name))
        assert told["OCIv1"]["config"]["User"] == "10001:10001"
        assert len(told["OCIv1"]["rootfs"]["diff_ids"]) == 1
    finally:
        buildah("rmi", name)
