"""The built images, run with the rights, limits and mounts that the manifests give them: `make test-images`.

It needs root, the images, and a network of its own, as their ports are the manifests'.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from deploy.check.manifests import Object
from tests.deploy.container_pod import TOOLS, ContainerPod, podman
from tests.deploy.kubelet import Pod
from tests.deploy.outside import of_dev, of_prod, postgresql, replaced

pytestmark = pytest.mark.slow

TAG = os.environ.get("TAG", "dev")
IMAGES = ("facade", "torchserve", "trainer")
LARGEST_BYTES = 150e6
"""Of the facade's layers above its base."""
SLOWEST_S = 30.0
"""From a pod's begin to its readiness, without what loading models takes."""


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    if os.environ.get("SAAA_TEST_IMAGES") != "1":
        pytest.skip("`make test-images` runs the images, in a network of their own")
    for name in IMAGES:
        if subprocess.run([TOOLS, "podman", "image", "exists", f"saaa/{name}:{TAG}"], check=False).returncode:
            pytest.skip(f"there is no image saaa/{name}:{TAG}; `make images` builds it")


def test_the_facade_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = json.loads(podman("image", "inspect", f"saaa/facade:{TAG}"))
    (base,) = json.loads(podman("image", "inspect", told["Annotations"]["org.opencontainers.image.base.name"]))
    assert told["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    above = told["Size"] - base["Size"]
    _say(capsys, f"the facade's layers above {base['Size'] / 1e6:.0f} MB of base: {above / 1e6:.1f} MB")
    assert above <= LARGEST_BYTES


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_of_this_machine_is_in_an_image(name: str) -> None:
    """Neither pip's settings nor wheels; and nobody's files can be written by who runs it."""
    words = ("--user", "0", "--entrypoint", "find", f"saaa/{name}:{TAG}")
    here = ("(", "-name", "pip.conf", "-o", "-name", "uv.toml", "-o", "-name", "*.whl", ")")
    assert podman("run", "--rm", "--network", "none", *words, "/etc", "/opt", "/root", *here) == ""
    assert podman("run", "--rm", "--network", "none", *words, "/opt", "/etc", "/usr", "-user", "10001") == ""


def test_the_trainer_computes() -> None:
    """With the rights that its jobs have."""
    rights = ("--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    program = "import torch, training.egdd; print(float(torch.ones(3) @ torch.ones(3)))"
    assert podman("run", "--rm", *rights, "--entrypoint", "python", f"saaa/trainer:{TAG}", "-c", program) == "3.0"


def test_with_a_claim_no_acknowledged_rating_is_lost(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_models, tmp_path / "saaa-models")
    _measured(lambda: replaced(lambda: _Watched(variants["dev"], tmp_path, TAG), of_dev(tmp_path)), capsys)


def test_with_postgresql_no_acknowledged_rating_is_lost(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_models, tmp_path / "saaa-models")
    with postgresql(5432) as url:
        outside = of_prod(tmp_path, url)
        _measured(lambda: replaced(lambda: _Watched(variants["prod"], tmp_path, TAG, outside.secrets), outside), capsys)


class _Watched(ContainerPod):
    """Remembers how long the models took to load, and looks at what the kernel says of its processes."""

    loading_s = 0.0

    def _begin(self) -> None:
        super()._begin()
        log = self.whole_log("torchserve")
        begin, end = (re.search(rf"^(\S+) .*{text}", log, re.M) for text in ("loading models: 0 of", "is ready"))
        assert begin is not None, log
        assert end is not None, log
        self.loading_s = (datetime.fromisoformat(end[1]) - datetime.fromisoformat(begin[1])).total_seconds()
        for name in ("facade", "torchserve"):
            process = podman("container", "inspect", "--format", "{{.State.Pid}}", self._called(name))
            status = Path(f"/proc/{process}/status").read_text()
            told = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
            assert set(told["Uid"] + told["Gid"]) == {"10001"}
            assert told["CapEff"] == told["CapBnd"] == ["0" * 16]
            assert (told["NoNewPrivs"], told["Seccomp"]) == (["1"], ["2"])
            assert self.execute(name, ["touch", "/opt/written"]) != 0
            assert self.execute(name, ["touch", "/tmp/written"]) == 0
            assert self.execute(name, ["rm", "/tmp/written"]) == 0


def _measured(run: Callable[[], list[tuple[Pod, float]]], capsys: pytest.CaptureFixture[str]) -> None:
    for pod, end_s in run():
        assert isinstance(pod, _Watched)
        ready, others = pod.seconds["ready"], pod.seconds["ready"] - pod.loading_s
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in pod.seconds.items())
        ended = f"; ended in {end_s:.1f} s of {pod.spec['terminationGracePeriodSeconds']}" if end_s else ""
        # How busy the machine is decides, too: told, and not asserted.
        _say(
            capsys,
            f"ready after {ready:.1f} s, {pod.loading_s:.1f} of them loading models ({steps}){ended}; {others:.1f} s "
            f"without loading {'meet' if others <= SLOWEST_S else 'MISS'} the gate of {SLOWEST_S:g} s, at a load of "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        )


def _say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")
