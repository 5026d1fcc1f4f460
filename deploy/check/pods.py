"""Rules of what is in a pod: ports, probes, resources, rights, stores, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from deploy.check.manifests import Manifests, Object, containers, name_of, pod_template
from serving.backends.process import TorchServeOptions
from serving.settings import FacadeSettings

USER = 10001
"""Who everything runs as."""
_UNITS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{f"{unit}i": Decimal(1024**power) for power, unit in enumerate("KMG", 1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")
_MARGIN_S = 5
"""The least that is left of the grace period when all has had its time."""
_KEPT = ("ratings", "journal", "output_dir", "out", "output")
"""Options that name files or folders nobody may lose."""


def ports(manifests: Manifests) -> Iterator[str]:
    """Ports are 1 to 65535, each once in a pod, and those of the options that say who listens."""
    for where, container in _all(manifests):
        for port in container.get("ports", ()):
            if not 1 <= port["containerPort"] <= 65535:
                yield f"{where}: {port['containerPort']} is no port"
            if not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", port.get("name", "")):
                yield f"{where}: port {port['containerPort']} needs a name of at most 15 characters"
    for workload in manifests.workloads():
        numbers = [port["containerPort"] for c in containers(workload) for port in c.get("ports", ())]
        for number in sorted({each for each in numbers if numbers.count(each) > 1}):
            yield f"{name_of(workload)}: port {number} is there twice"


def probes(manifests: Manifests) -> Iterator[str]:
    """Whoever listens is asked whether it has started and is ready, at ports of its own; the facade also whether it is
    alive, which is a matter of the process and not of models."""
    for where, container in _all(manifests):
        known = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            if probe is None:
                if known and (kind != "livenessProbe" or container["args"][0] == "serve"):
                    yield f"{where}: it listens, and has no {kind}"
                continue
            port = next((probe[way]["port"] for way in ("grpc", "httpGet", "tcpSocket") if way in probe), None)
            if port is not None and port not in known and port not in known.values():
                yield f"{where}: its {kind} asks port {port}, which it does not have"
            if (
                kind == "livenessProbe"
                and container["args"][0] == "serve"
                and probe.get("grpc", {}).get("service") != "alive"
            ):
                yield f"{where}: its livenessProbe must ask for the service alive, which no model can fail"


def resources(manifests: Manifests) -> Iterator[str]:
    """Everybody asks for CPU and memory and has a limit of memory; no request is above its limit."""
    for where, container in _all(manifests):
        given = container.get("resources", {})
        requests, limits = given.get("requests", {}), given.get("limits", {})
        for name in ("cpu", "memory"):
            if name not in requests:
                yield f"{where}: it requests no {name}"
        if "memory" not in limits:
            yield f"{where}: it has no limit of memory"
        for name in requests.keys() & limits.keys():
            if quantity(requests[name]) > quantity(limits[name]):
                yield f"{where}: it requests {requests[name]} of {name}, above its limit {limits[name]}"


def rights(manifests: Manifests) -> Iterator[str]:
    """What the pod security standard restricted asks for, and a root file system that nobody writes to."""
    for workload in manifests.workloads():
        spec, where = pod_template(workload)["spec"], name_of(workload)
        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") != USER:
            yield f"{where}: it must run as user {USER}, not as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{where}: it must have the seccomp profile RuntimeDefault"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where}: it must not mount a token of the API server"
        if not spec.get("serviceAccountName"):
            yield f"{where}: it needs a service account of its own"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield f"{where}: {field} is not for us"
        if any("hostPath" in volume for volume in spec.get("volumes", ())):
            yield f"{where}: it mounts a path of the node"
    for where, container in _all(manifests):
        context = container.get("securityContext", {})
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield f"{where}: it must forbid privilege escalation"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where}: its root file system must be read-only"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("capabilities", {}).get("add"):
            yield f"{where}: it must drop all capabilities"
        if re.search(r":latest$|^[^:@]+$", container["image"]):
            yield f"{where}: its image {container['image']} names no version"


def mounts(manifests: Manifests) -> Iterator[str]:
    """Mounted volumes are there and used; the models read-only; what must last is on a claim."""
    for workload in manifests.workloads():
        where = name_of(workload)
        volumes = {volume["name"]: volume for volume in pod_template(workload)["spec"].get("volumes", ())}
        mounted = [mount for container in containers(workload) for mount in container.get("volumeMounts", ())]
        for name in sorted({mount["name"] for mount in mounted} - volumes.keys()):
            yield f"{where}: there is no volume {name} to mount"
        for name in sorted(volumes.keys() - {mount["name"] for mount in mounted}):
            yield f"{where}: nobody mounts the volume {name}"
        for container in containers(workload):
            for mount in container.get("volumeMounts", ()):
                if mount["name"] == "models" and not mount.get("readOnly") and container["args"][0] != "release":
                    yield f"{where}: the models must be mounted read-only"
        for name, volume in volumes.items():
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{where}: the emptyDir {name} needs a sizeLimit"
        for container in containers(workload):
            if "--print_config" in container["args"]:
                continue  # it writes nothing
            for option, value in settings(manifests, workload, container).items():
                if option not in _KEPT or not str(value).startswith("/"):
                    continue
                volume = volumes.get(_volume_of(container, str(value)), {})
                if "persistentVolumeClaim" not in volume:
                    yield f"{where}: {option} {value} is lost with the pod; put it on a claim"


def models_checked(manifests: Manifests) -> Iterator[str]:
    """The store's digests are checked before anything loads from it."""
    for workload in manifests.workloads():
        order = [container for container in containers(workload) if container["args"][:1] != ["serve"]]
        for place, container in enumerate(order):
            if container["args"][:1] == ["torchserve"] and not any(
                before["args"][:2] == ["models", "check"] for before in order[:place]
            ):
                yield f"{name_of(workload)}: nothing checks the models before {container['name']} loads them"


def loopback(manifests: Manifests) -> Iterator[str]:
    """A TorchServe in the facade's pod is a native sidecar without a port: nobody else reaches it."""
    for workload in manifests.workloads():
        kinds = {container["args"][0]: container for container in containers(workload)}
        if {"serve", "torchserve"} <= kinds.keys():
            sidecar = kinds["torchserve"]
            if sidecar.get("restartPolicy") != "Always":
                yield f"{name_of(workload)}: TorchServe must be an initContainer with restartPolicy Always"
            listens = settings(manifests, workload, sidecar).get("host", "127.0.0.1")
            if sidecar.get("ports") or listens != "127.0.0.1":
                yield f"{name_of(workload)}: TorchServe beside a facade stays on loopback"


def ending(manifests: Manifests) -> Iterator[str]:
    """The grace period covers preStop, the facade's leave and drain, then TorchServe; no answer outlasts the drain."""
    for workload in manifests.workloads():
        spec, where = pod_template(workload)["spec"], name_of(workload)
        needed = _MARGIN_S
        for container in containers(workload):
            told = settings(manifests, workload, container)
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if container["args"][:1] == ["serve"]:
                if not sleep:
                    yield f"{where}: {container['name']} needs a preStop sleep, for balancers to hear of its end"
                needed += sleep + told["leave_s"] + told["drain_s"]
                if told["max_deadline_s"] > told["drain_s"]:
                    yield f"{where}: max_deadline_s {told['max_deadline_s']} is above drain_s {told['drain_s']}"
            if container["args"][:1] == ["torchserve"]:
                needed += told["stop_timeout_s"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if grace < needed:
            yield f"{where}: its grace of {grace} s is less than the {needed} s that its end may take"


def started(manifests: Manifests) -> Iterator[str]:
    """The startup probe waits as long as the models may take."""
    for workload in manifests.workloads():
        for container in containers(workload):
            if container["args"][:1] == ["torchserve"]:
                probe = container.get("startupProbe", {})
                most = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
                longest = settings(manifests, workload, container)["start_timeout_s"]
                if most <= longest:
                    yield f"{name_of(workload)}: models may take {longest} s to load, the startupProbe gives {most} s"


def settings(manifests: Manifests, workload: Object, container: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a container's program runs with: of the file that --config names, then of its own arguments."""
    arguments: list[str] = container.get("args", [])
    defaults = {"serve": FacadeSettings, "torchserve": TorchServeOptions}.get(arguments[0])
    found: dict[str, Any] = vars(defaults()).copy() if defaults else {}
    for place, word in enumerate(arguments):
        if word == "--config":
            found |= _config_file(manifests, workload, container, arguments[place + 1])
        elif word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = yaml.safe_load(value) if value else True
    return found


def quantity(text: str | int | float) -> Decimal:
    """A quantity of Kubernetes as a number.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(text))
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _UNITS[found[2]]


def _config_file(manifests: Manifests, workload: Object, container: Mapping[str, Any], path: str) -> dict[str, Any]:
    volumes = {volume["name"]: volume for volume in pod_template(workload)["spec"].get("volumes", ())}
    config = volumes.get(_volume_of(container, path), {}).get("configMap", {}).get("name", "")
    content = (manifests.get("ConfigMap", config) or {}).get("data", {}).get(path.rpartition("/")[2])
    return yaml.safe_load(content) if content else {}


def _volume_of(container: Mapping[str, Any], path: str) -> str:
    """The volume that a path of a container is on; "" where it is on none."""
    mounts = [m for m in container.get("volumeMounts", ()) if f"{path}/".startswith(f"{m['mountPath'].rstrip('/')}/")]
    return str(max(mounts, key=lambda mount: len(mount["mountPath"]))["name"]) if mounts else ""


def _all(manifests: Manifests) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for workload in manifests.workloads():
        for container in containers(workload):
            yield f"{name_of(workload)}.{container['name']}", container


POD_RULES: Sequence[Callable[[Manifests], Iterator[str]]] = (
    ports,
    probes,
    resources,
    rights,
    mounts,
    models_checked,
    loopback,
    ending,
    started,
)
"""All of them."""
