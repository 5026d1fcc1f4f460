"""What `kubectl kustomize` makes of a folder, and how to look things up in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from deploy.check.tools import DEPLOY, run

Object = dict[str, Any]

OVERLAYS = ("dev", "prod")
ADDED: tuple[tuple[str, ...], ...] = (
    ("dev", "components/monitoring"),
    ("dev", "components/model-image"),
    ("dev", "components/split"),
    ("prod", "components/gateway"),
    ("prod", "components/model-image"),
    ("prod", "components/split"),
    ("dev", "training/base"),
    ("prod", "training/base", "training/secured"),
    ("dev", "training/base", "components/gpu", "training/kueue"),
    ("dev", "training/base", "training/trainjob", "components/gpu", "training/kueue"),
)
"""Overlays and the components that are built onto them; monitoring and keda are in prod already."""
JOBS = ("Job", "CronJob", "TrainingRuntime")
"""What makes pods that end."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", *JOBS)


class Broken(Exception):
    """kustomize cannot build a folder; the message is its own."""


def build(folder: Path) -> list[Object]:
    """Build a kustomization.

    Raises:
        Broken: it cannot be built.
        ToolMissing: there is no kubectl.
    """
    done = run("kubectl", "kustomize", "--load-restrictor=LoadRestrictionsRootOnly", folder)
    if done.returncode or not done.stdout.strip():
        raise Broken(done.stderr.strip() or f"{folder} builds nothing")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def build_with(overlay: str, *components: str) -> list[Object]:
    """Build an overlay with more components, by their folders, as an operator would write it."""
    base = DEPLOY / "overlays" / overlay
    told = yaml.safe_load((base / "kustomization.yaml").read_text())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            # What a component adds has neither namespace nor tag yet.
            **{key: told[key] for key in ("namespace", "images")},
            "resources": [os.path.relpath(base, folder.resolve())],
            "components": [os.path.relpath(DEPLOY / component, folder.resolve()) for component in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return build(folder)


def variants() -> dict[str, list[Object]]:
    """Everything that can be applied, by its name such as "dev with split": the overlays, and with more components."""
    found = {overlay: build(DEPLOY / "overlays" / overlay) for overlay in OVERLAYS}
    for overlay, *added in ADDED:
        words = " and ".join(path.removeprefix("components/") for path in added)
        found[f"{overlay} with {words}"] = build_with(overlay, *added)
    return found


def name_of(thing: Object) -> str:
    """How a thing is called in what is told of it: Kind/name."""
    return f"{thing.get('kind', '?')}/{thing.get('metadata', {}).get('name', '?')}"


def pod_template(workload: Object) -> Object:
    """The pod template of a workload."""
    spec: Object = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if workload["kind"] == "TrainingRuntime":
        (replicated,) = spec["template"]["spec"]["replicatedJobs"]
        spec = replicated["template"]["spec"]
    template: Object = spec["template"]
    return template


def containers(workload: Object) -> list[Object]:
    """All containers of a workload's pods, those that initialise first."""
    spec = pod_template(workload)["spec"]
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


class Manifests:
    """A built kustomization.

    Args:
        objects: what was built.
    """

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects

    @cached_property
    def by_kind(self) -> Mapping[str, list[Object]]:
        """All of a kind."""
        kinds: dict[str, list[Object]] = {}
        for each in self.objects:
            kinds.setdefault(each["kind"], []).append(each)
        return kinds

    def of(self, *kinds: str) -> Iterator[Object]:
        """All of these kinds."""
        for kind in kinds:
            yield from self.by_kind.get(kind, ())

    def get(self, kind: str, name: str) -> Object | None:
        """One by its name; None where there is none."""
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def workloads(self) -> Iterator[Object]:
        """Whatever makes pods."""
        return self.of(*WORKLOADS)

    def selected(self, labels: Mapping[str, str]) -> list[Object]:
        """The workloads whose pods have all of these labels."""
        return [each for each in self.workloads() if matches(labels, pod_labels(each))]


def pod_labels(workload: Object) -> Mapping[str, str]:
    """The labels of a workload's pods."""
    labels: Mapping[str, str] = pod_template(workload).get("metadata", {}).get("labels", {})
    return labels


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have all that a selector asks for."""
    return selector.items() <= labels.items()
