"""What a kubelet does with a pod: the order of its containers, their options, secrets, volumes, probes, and its end.

All of it is read from the built manifests. How a container runs is its subclasses': as a process of this machine, or
in an image.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.check.manifests import Manifests, Object

SERVING = health_pb2.HealthCheckResponse.SERVING
PATIENT = 300.0
"""Seconds for a probe: the manifests' own are what a pod gets on a machine of its own."""
LOOK_S = 0.2

Secrets = Mapping[str, Mapping[str, bytes]]
"""Name -> key -> content."""


class Pod(ABC):
    """One life of the facade's pod; a context manager, in which it is ready, and after which it has never been.

    Args:
        objects: the built overlay.
        claims: folder with a folder for each claim, which outlive the pod.
        secrets: what the operator has made.
    """

    def __init__(self, objects: list[Object], claims: Path, secrets: Secrets | None = None) -> None:
        self.manifests = Manifests(objects)
        deployment = self.manifests.get("Deployment", "saaa-facade")
        assert deployment is not None
        self.spec: Any = deployment["spec"]["template"]["spec"]
        self._claims, self._secrets = claims, secrets or {}
        # A short path: TorchServe's sockets are in there.
        self.ends = Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp"))
        """Folder of all that ends with the pod."""
        self.seconds: dict[str, float] = {}
        """Seconds until each container had started, from the pod's begin; "ready" for the pod."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _begin(self) -> None:
        begin = time.monotonic()
        self.create()
        for container in self.spec["initContainers"]:
            name = container["name"]
            self.start(name)
            if container.get("restartPolicy") == "Always":
                self._wait(name, "startupProbe")
            else:
                assert self.ended(name, PATIENT) == 0, self.log(name)
            self.seconds[name] = time.monotonic() - begin
        for container in self.spec["containers"]:
            self.start(container["name"])
            self._wait(container["name"], "startupProbe")
            self.seconds[container["name"]] = time.monotonic() - begin
        for container in self.spec["containers"]:
            self._wait(container["name"], "readinessProbe")
        self.seconds["ready"] = time.monotonic() - begin

    def end(self) -> float:
        """As the kubelet ends it: preStop, SIGTERM to the containers, then to the sidecars; all within the grace.

        Returns:
            The seconds it took.
        """
        begin = time.monotonic()
        end = begin + self.spec["terminationGracePeriodSeconds"]
        for container in self.spec["containers"]:
            time.sleep(container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        sidecars = [each for each in self.spec["initContainers"] if each.get("restartPolicy") == "Always"]
        for container in (*self.spec["containers"], *reversed(sidecars)):
            code = self.stop(container["name"], end - time.monotonic())
            assert code == 0, f"{container['name']} ended with {code}: {self.log(container['name'])}"
        return time.monotonic() - begin

    def probe(self, name: str, kind: str) -> bool:
        """Ask once."""
        probe = self.container(name)[kind]
        if "exec" in probe:
            return self.execute(name, probe["exec"]["command"]) == 0
        with grpc.insecure_channel(self.address(probe["grpc"]["port"])) as channel:
            message = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
            try:
                return bool(health_pb2_grpc.HealthStub(channel).Check(message, timeout=2).status == SERVING)
            except grpc.RpcError:
                return False

    def _wait(self, name: str, kind: str) -> None:
        end = time.monotonic() + PATIENT
        while not self.probe(name, kind):
            assert self.ended(name, 0) is None, self.log(name)
            assert time.monotonic() < end, self.log(name)
            time.sleep(LOOK_S)

    def container(self, name: str) -> Any:
        """As it is written in the manifest."""
        return next(c for c in (*self.spec["initContainers"], *self.spec["containers"]) if c["name"] == name)

    def environment(self, name: str) -> dict[str, str]:
        """A container's variables."""
        found = {}
        for variable in self.container(name).get("env", ()):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == "metadata.name"
                found[variable["name"]] = "pod"
            elif "secretKeyRef" in source:
                secret = source["secretKeyRef"]
                found[variable["name"]] = self._secrets[secret["name"]][secret["key"]].decode()
            else:
                found[variable["name"]] = variable["value"]
        return found

    def expanded(self, name: str, text: str) -> str:
        """With a container's variables in the place of $(NAME)."""
        environment = self.environment(name)
        return re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], text)

    def arguments(self, name: str) -> list[str]:
        """A container's command line."""
        return [self.expanded(name, word) for word in self.container(name)["args"]]

    def folder(self, name: str, mount: Mapping[str, str]) -> Path:
        """The folder that a container's mount shows."""
        volume = next(each for each in self.spec["volumes"] if each["name"] == mount["name"])
        if "persistentVolumeClaim" in volume:
            below = self.expanded(name, mount.get("subPath", mount.get("subPathExpr", "")))
            folder = self._claims / volume["persistentVolumeClaim"]["claimName"] / below
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        content: dict[str, bytes] = {}
        if "configMap" in volume:
            options = self.manifests.get("ConfigMap", volume["configMap"]["name"])
            assert options is not None
            content = {file: self.option_file(name, text).encode() for file, text in options["data"].items()}
        elif "secret" in volume:
            content = dict(self._secrets[volume["secret"]["secretName"]])
        else:
            assert "emptyDir" in volume
        folder = self.ends / (f"{name}-{mount['name']}" if content else mount["name"])
        folder.mkdir(exist_ok=True)
        for file, data in content.items():
            (folder / file).write_bytes(data)
        return folder

    def option_file(self, name: str, text: str) -> str:
        """A file of options as this container can read it."""
        return text

    def log(self, name: str) -> str:
        """The end of what a container has said."""
        return self.whole_log(name)[-3000:]

    def remove(self) -> None:
        """As when the node is lost: nobody drains, and all that ends with the pod is gone."""
        self.kill()
        # TorchServe's guard clears up at the same time.
        while self.ends.exists():
            shutil.rmtree(self.ends, ignore_errors=True)

    @abstractmethod
    def create(self) -> None:
        """What the containers share."""

    @abstractmethod
    def start(self, name: str) -> None:
        """Start a container."""

    @abstractmethod
    def ended(self, name: str, seconds: float) -> int | None:
        """The code with which a container ended; None if it has not within the seconds."""

    @abstractmethod
    def stop(self, name: str, seconds: float) -> int | None:
        """SIGTERM, and SIGKILL after the seconds; the code with which it ended."""

    @abstractmethod
    def kill(self) -> None:
        """Kill everything that was started."""

    @abstractmethod
    def execute(self, name: str, words: list[str]) -> int:
        """Run a command in a container; its exit code."""

    @abstractmethod
    def address(self, port: int) -> str:
        """Where a port of the manifests is."""

    @abstractmethod
    def whole_log(self, name: str) -> str:
        """All that a container has said."""
