"""The pod of the dev overlay, run by its own arguments, options and probes as processes of this machine.

What its volumes are is a folder each, where an emptyDir's ends with the pod and a claim's stays. Images and the
kubelet are not part of this.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.check.manifests import Manifests, Object
from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import analysis_pb2_grpc, feedback_pb2_grpc
from serving.commands import starting
from tests.serving.contract.test_feedback import request as rating
from tests.serving.pixel_backend import photo

SERVING = health_pb2.HealthCheckResponse.SERVING
_PORT = re.compile(r"\b(50051|50052|9100|7070)\b")


def free_ports() -> list[int]:
    """Four; the last has a free neighbour, for management."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            numbers = [int(each.getsockname()[1]) for each in taken]
            held.enter_context(socket.create_server(("127.0.0.1", numbers[3] + 1)))
            return numbers
    raise AssertionError("not reached")


class Pod:
    """One life of the pod.

    Args:
        objects: the built overlay.
        claims: folder with a folder for each claim.
        ends: folder for all that ends with the pod.
    """

    def __init__(self, objects: list[Object], claims: Path, ends: Path) -> None:
        self._manifests = Manifests(objects)
        (deployment,) = self._manifests.of("Deployment")
        self.spec: Any = deployment["spec"]["template"]["spec"]
        self._claims, self._ends = claims, ends
        self._ports = dict(zip(("50051", "50052", "9100", "7070"), map(str, free_ports()), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def port(self, number: int) -> str:
        return f"127.0.0.1:{self._ports[str(number)]}"

    def container(self, name: str) -> Any:
        return next(c for c in (*self.spec["initContainers"], *self.spec["containers"]) if c["name"] == name)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        container = self.container(name)
        arguments = [self._here(name, word) for word in container["args"]]
        environment = {**os.environ, "TMPDIR": self._here(name, "/tmp"), "OMP_NUM_THREADS": "1"}
        with (self._ends / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.commands.cli", *arguments], env=environment, stdout=log, stderr=log
            )
        self._processes[name] = process
        return process

    def probe(self, name: str, kind: str) -> bool:
        """Ask once, as the kubelet does."""
        probe = self.container(name)[kind]
        if "exec" in probe:
            return (
                subprocess.run([self._here(name, word) for word in probe["exec"]["command"]], check=False).returncode
                == 0
            )
        with grpc.insecure_channel(self.port(probe["grpc"]["port"])) as channel:
            message = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
            try:
                return bool(health_pb2_grpc.HealthStub(channel).Check(message, timeout=2).status == SERVING)
            except grpc.RpcError:
                return False

    def wait(self, name: str, kind: str) -> None:
        end = time.monotonic() + 300
        while not self.probe(name, kind):
            assert self._processes[name].poll() is None, self.log(name)
            assert time.monotonic() < end, self.log(name)
            time.sleep(0.2)

    def log(self, name: str) -> str:
        return (self._ends / f"{name}.log").read_text()[-3000:]

    def kill(self) -> None:
        """The node is lost: nobody drains, and what ends with the pod is gone."""
        for process in self._processes.values():
            process.kill()
            process.wait(30)
        # TorchServe's guard clears up at the same time.
        while self._ends.exists():
            shutil.rmtree(self._ends, ignore_errors=True)

    def _here(self, name: str, text: str) -> str:
        """A word of the manifests with this machine's paths and ports."""
        text = _PORT.sub(lambda found: self._ports[found[1]], text.replace("0.0.0.0", "127.0.0.1"))
        mounts = {mount["mountPath"]: mount for mount in self.container(name)["volumeMounts"]}
        # All at once: a folder that stands for one may lie below what is called like another.
        paths = rf"(?<![\w/])({'|'.join(map(re.escape, mounts))})(?=[/\s]|$)"
        return re.sub(paths, lambda found: str(self._folder(name, mounts[found[1]])), text)

    def _folder(self, name: str, mount: Any) -> Path:
        volume = next(each for each in self.spec["volumes"] if each["name"] == mount["name"])
        if "configMap" in volume:
            folder = self._ends / f"{name}-config"
            if not folder.exists():
                folder.mkdir()
                content = self._manifests.get("ConfigMap", volume["configMap"]["name"])
                assert content is not None
                for file, options in content["data"].items():
                    (folder / file).write_text(self._here(name, options))
            return folder
        if "emptyDir" in volume:
            folder = self._ends / mount["name"]
        else:
            below = mount.get("subPath", mount.get("subPathExpr", ""))
            folder = self._claims / volume["persistentVolumeClaim"]["claimName"] / below.replace("$(POD_NAME)", "pod")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@contextlib.contextmanager
def pod(objects: list[Object], claims: Path) -> Iterator[Pod]:
    """A pod that serves, with a short path for TorchServe's sockets."""
    ends = Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp"))
    made = Pod(objects, claims, ends)
    try:
        assert made.start("check-models").wait(120) == 0, made.log("check-models")
        made.start("torchserve")
        made.wait("torchserve", "startupProbe")
        made.start("facade")
        made.wait("facade", "startupProbe")
        made.wait("facade", "readinessProbe")
        yield made
    finally:
        made.kill()


@pytest.mark.slow
def test_the_pod_serves_drains_and_its_replacement_has_lost_no_rating(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_models, tmp_path / "saaa-models", dirs_exist_ok=True)
    with pod(variants["dev"], tmp_path) as first:
        with grpc.insecure_channel(first.port(50051)) as channel:
            analysis = analysis_pb2_grpc.AnalysisServiceStub(channel)  # type: ignore[no-untyped-call]
            answer = analysis.Analyze(pb.AnalyzeRequest(image=photo(), request_id="seen"), timeout=60)
            assert answer.predictions
            assert answer.captions
            feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
            feedback.RecordRating(rating("kept"), timeout=30)
        assert first.probe("facade", "livenessProbe")
    with pod(variants["dev"], tmp_path) as second:
        with grpc.insecure_channel(second.port(50051)) as channel:
            analysis = analysis_pb2_grpc.AnalysisServiceStub(channel)  # type: ignore[no-untyped-call]
            assert analysis.Analyze(pb.AnalyzeRequest(image=photo()), timeout=60).predictions
        ended(second)
    kept = exported(tmp_path / "saaa-state" / "ratings" / "ratings.db")
    assert [line["request_id"] for line in kept] == ["kept"]
    journal = (tmp_path / "saaa-state" / "journals" / "pod" / "journal.jsonl").read_text()
    assert '"seen"' in journal


def ended(pod: Pod) -> None:
    """As the kubelet ends it: the containers, then the sidecars, within the grace period."""
    end = time.monotonic() + pod.spec["terminationGracePeriodSeconds"]
    for name in ("facade", "torchserve"):
        process = pod._processes[name]
        process.send_signal(signal.SIGTERM)
        assert process.wait(end - time.monotonic()) == 0, pod.log(name)
    assert not list(pod._ends.glob("torchserve-work/*")), "TorchServe left files"


def exported(database: Path) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-m", "serving.commands.cli", "ratings", "export", str(database)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_changed_archive_stops_the_pod_before_anything_loads(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path
) -> None:
    store = tmp_path / "saaa-models"
    shutil.copytree(tiny_models, store)
    broken = next(store.glob("*.mar"))
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    with pytest.raises(AssertionError, match=re.escape(broken.name)), pod(variants["dev"], tmp_path):
        pass


def test_the_options_of_the_manifests_are_options(
    variants: dict[str, list[Object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every overlay and component: read by the program that gets them."""
    for objects in variants.values():
        manifests = Manifests(objects)
        (config,) = [each for each in manifests.of("ConfigMap") if "facade.yaml" in each["data"]]
        for deployment in manifests.of("Deployment"):
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                if container["args"][0] != "serve":
                    continue
                (tmp_path / "facade.yaml").write_text(config["data"]["facade.yaml"])
                words = [word.replace("/etc/saaa", str(tmp_path)) for word in container["args"][1:]]
                words = [word.replace("$(RATINGS_URL)", "postgresql://saaa@db/saaa") for word in words]
                assert starting.run("serve", [*words, "--print_config"]) == 0
                told = yaml.safe_load(capsys.readouterr().out)
                assert (told["host"], told["drain_s"]) == ("0.0.0.0", 55)
