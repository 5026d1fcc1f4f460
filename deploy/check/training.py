"""Rules of jobs that torchrun spreads over pods: who is there, where they meet, and that a restart goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from deploy.check.manifests import Manifests, Object, containers, matches, name_of, pod_labels, pod_template

_MEETING = re.compile(r"\$\(JOB_NAME\)-0\.(?P<service>[-a-z0-9]+)\.\$\(NAMESPACE\)\.svc\.cluster\.local:\d+")


def spread(manifests: Manifests) -> Iterator[str]:
    """A Job has an index and a pod for each of torchrun's nodes, all at once."""
    for job, container in _spread(manifests):
        spec, nodes = job["spec"], _option(container, "nnodes")
        if spec.get("completionMode") != "Indexed":
            yield f"{name_of(job)}: its pods need an index to be found by: completionMode Indexed"
        if not nodes == str(spec.get("completions")) == str(spec.get("parallelism")):
            yield f"{name_of(job)}: completions and parallelism must both be torchrun's --nnodes={nodes}"


def meeting(manifests: Manifests) -> Iterator[str]:
    """The pods meet at the first one, by the name that a headless Service gives it before it is ready."""
    for job, container in _spread(manifests):
        where, endpoint = name_of(job), _option(container, "rdzv-endpoint")
        found = _MEETING.fullmatch(endpoint)
        if found is None:
            yield f"{where}: {endpoint} is not the whole name of its first pod"
            continue
        name = found["service"]
        if pod_template(job)["spec"].get("subdomain") != name:
            yield f"{where}: its pods' subdomain must be {name}, where they meet"
        service = (manifests.get("Service", name) or {}).get("spec", {})
        if service.get("clusterIP") != "None" or service.get("publishNotReadyAddresses") is not True:
            yield f"{where}: Service/{name} must be headless, with publishNotReadyAddresses"
        if not matches(service.get("selector", {"": ""}), pod_labels(job)):
            yield f"{where}: Service/{name} does not select its pods"
        told = {each["name"] for each in container.get("env", ())}
        for variable in {"JOB_NAME", "NAMESPACE"} - told:
            yield f"{where}: {container['name']} lacks the variable {variable}, which its arguments name"


def going_on(manifests: Manifests) -> Iterator[str]:
    """Who is started again goes on; a drained node costs no try, wrong options end the Job."""
    for job, container in _spread(manifests):
        if "--go_on" not in container["args"]:
            yield f"{name_of(job)}: without --go_on a restart begins anew"
    for job in manifests.of("Job", "CronJob"):
        spec: Object = job["spec"]["jobTemplate"]["spec"] if job["kind"] == "CronJob" else job["spec"]
        rules = spec.get("podFailurePolicy", {}).get("rules", ())
        ignored = [
            condition["type"] for rule in rules if rule["action"] == "Ignore" for condition in rule["onPodConditions"]
        ]
        if "DisruptionTarget" not in ignored:
            yield f"{name_of(job)}: its podFailurePolicy must ignore DisruptionTarget"
        known = {each["name"] for each in containers(job)}
        watched = {rule["onExitCodes"].get("containerName") for rule in rules if rule["action"] == "FailJob"}
        if not watched or not watched <= known:
            yield f"{name_of(job)}: its podFailurePolicy must end it at an exit code of one of its containers"


def _spread(manifests: Manifests) -> Iterator[tuple[Object, Object]]:
    """Jobs that torchrun spreads, with the container that it is in."""
    for job in manifests.of("Job"):
        for container in containers(job):
            if container.get("command") == ["torchrun"]:
                yield job, container


def _option(container: Object, name: str) -> str:
    """The value of --name=value; "" where there is none."""
    return next((word.partition("=")[2] for word in container["args"] if word.startswith(f"--{name}=")), "")


TRAINING_RULES: Sequence[Callable[[Manifests], Iterator[str]]] = (spread, meeting, going_on)
"""All of them."""
