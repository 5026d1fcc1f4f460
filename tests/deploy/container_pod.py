"""A pod in the built images: podman with the rights, limits and mounts that the manifest gives each container."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from deploy.check.manifests import Object
from deploy.check.pods import quantity
from deploy.check.tools import DEPLOY
from tests.deploy.kubelet import Pod, Secrets

TOOLS = DEPLOY / "images" / "tools.sh"


def podman(*words: str | Path) -> str:
    """What it printed on both channels.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        [TOOLS, "podman", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"podman {words}: {done.stdout}"
    return done.stdout.strip()


class ContainerPod(Pod):
    """See `Pod`. It is in the network that the test is in, which should be one of its own.

    Args:
        objects: see there.
        claims: see there.
        tag: of the images.
        secrets: see there.
    """

    def __init__(self, objects: list[Object], claims: Path, tag: str, secrets: Secrets | None = None) -> None:
        super().__init__(objects, claims, secrets)
        self._tag = tag

    def create(self) -> None:
        shared = "ipc,net,pid" if self.spec.get("shareProcessNamespace") else "ipc,net"
        podman("pod", "create", "--name", self.ends.name, "--network", "host", "--share", shared)
        podman("pod", "start", self.ends.name)

    def start(self, name: str) -> None:
        container = self.container(name)
        image = f"{container['image'].partition(':')[0]}:{self._tag}"
        podman("run", "--detach", "--pod", self.ends.name, "--name", self._called(name), "--pull", "never",
               *self._rights(name), *self._mounts(name),
               *(f"--env={key}={value}" for key, value in self.environment(name).items()),
               image, *self.arguments(name))  # fmt: skip

    def _rights(self, name: str) -> list[str]:
        """Of the manifest; what it does not ask for is podman's own, as it is the kubelet's."""
        pod, container = self.spec["securityContext"], self.container(name)
        own, given = container["securityContext"], container["resources"]
        assert pod["seccompProfile"]["type"] == "RuntimeDefault"  # podman's default, too
        return [
            f"--user={pod['runAsUser']}:{pod['runAsGroup']}",
            f"--read-only={json.dumps(own['readOnlyRootFilesystem'])}",
            "--read-only-tmpfs=false",
            *(f"--cap-drop={each}" for each in own["capabilities"]["drop"]),
            *([] if own["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]),
            f"--memory={int(quantity(given['limits']['memory']))}b",
            f"--cpu-shares={int(1024 * quantity(given['requests']['cpu']))}",
        ]

    def _mounts(self, name: str) -> list[str]:
        found = []
        for mount in self.container(name)["volumeMounts"]:
            folder = self.folder(name, mount)
            self._give(folder)
            found.append(f"--volume={folder}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}")
        return found

    def _give(self, folder: Path) -> None:
        """To the pod's fsGroup, as the kubelet does."""
        group = self.spec["securityContext"]["fsGroup"]
        for path in (folder, *folder.rglob("*")):
            os.chown(path, -1, group)
            path.chmod(0o2775 if path.is_dir() else 0o640 if path.stat().st_uid == 0 else 0o660)

    def ended(self, name: str, seconds: float) -> int | None:
        if seconds:
            podman("wait", self._called(name))
        state = json.loads(podman("container", "inspect", "--format", "{{json .State}}", self._called(name)))
        return None if state["Running"] else int(state["ExitCode"])

    def stop(self, name: str, seconds: float) -> int | None:
        podman("stop", "--time", str(int(seconds)), self._called(name))
        return self.ended(name, 0)

    def kill(self) -> None:
        podman("pod", "rm", "--force", "--ignore", "--time", "0", self.ends.name)

    def execute(self, name: str, words: list[str]) -> int:
        done = subprocess.run([TOOLS, "podman", "exec", self._called(name), *words], capture_output=True, check=False)
        return done.returncode

    def address(self, port: int) -> str:
        return f"127.0.0.1:{port}"

    def whole_log(self, name: str) -> str:
        return podman("logs", "--timestamps", self._called(name))

    def _called(self, name: str) -> str:
        return f"{self.ends.name}-{name}"
