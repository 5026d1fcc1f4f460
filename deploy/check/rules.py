"""What an API server, a scheduler or a kubelet would refuse, or run otherwise than meant: rules beyond the schemas.

A rule takes the manifests and yields what is wrong, a line each. Their table is `RULES`; rules of the pods' own
contents are in `deploy.check.pods`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploy.check.manifests import (
    JOBS,
    WORKLOADS,
    Manifests,
    Object,
    containers,
    matches,
    name_of,
    pod_labels,
    pod_template,
)
from deploy.check.pods import POD_RULES, settings
from deploy.check.training import TRAINING_RULES

Rule = Callable[[Manifests], Iterator[str]]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_IN_THE_CLUSTER = {"system-cluster-critical", "system-node-critical"}
SECRETS_FROM_OUTSIDE = "saaa/secrets-from-outside"
"""Annotation of a workload: the secrets that the operator makes, and that no manifest holds."""


def names(manifests: Manifests) -> Iterator[str]:
    """Names are RFC 1123's, a Service's RFC 1035's, and nothing is there twice."""
    seen: set[tuple[str, str]] = set()
    for each in manifests.objects:
        name, key = each["metadata"]["name"], (each["kind"], each["metadata"]["name"])
        if not (_LABEL_NAME if each["kind"] == "Service" else _NAME).fullmatch(name):
            yield f"{name_of(each)}: {name!r} is no name that Kubernetes takes"
        if key in seen:
            yield f"{name_of(each)} is there twice"
        seen.add(key)


def selectors(manifests: Manifests) -> Iterator[str]:
    """A workload selects its own pods, and every other selector selects some."""
    for each in manifests.of("Deployment", "StatefulSet", "DaemonSet"):
        wanted = each["spec"]["selector"].get("matchLabels", {})
        if not wanted or not matches(wanted, pod_labels(each)):
            yield f"{name_of(each)}: its selector does not select its own pods"
    for each in manifests.of("Service"):
        if (selector := each["spec"].get("selector")) and not manifests.selected(selector):
            yield f"{name_of(each)}: its selector selects no pod"
    for each in manifests.of("NetworkPolicy", "PodDisruptionBudget"):
        field = "podSelector" if each["kind"] == "NetworkPolicy" else "selector"
        if not manifests.selected(each["spec"][field].get("matchLabels", {})):
            yield f"{name_of(each)}: its selector selects no pod"
    for each in manifests.of("ServiceMonitor"):
        wanted = each["spec"]["selector"].get("matchLabels", {})
        services = [s for s in manifests.of("Service") if matches(wanted, s["metadata"].get("labels", {}))]
        ports = {port["name"] for service in services for port in service["spec"].get("ports", ())}
        for endpoint in each["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"{name_of(each)}: no selected Service has a port {endpoint['port']}"


def service_ports(manifests: Manifests) -> Iterator[str]:
    """A Service's target ports are the pods', by name or by number."""
    for service in manifests.of("Service"):
        for workload in manifests.selected(service["spec"].get("selector", {})):
            known = _ports(workload)
            for port in service["spec"].get("ports", ()):
                target = port.get("targetPort", port["port"])
                if target not in known and target not in known.values():
                    yield f"{name_of(service)}: {name_of(workload)} has no port {target}"


def scaling(manifests: Manifests) -> Iterator[str]:
    """One scaler for a target that exists, that sets no replicas itself; least above 0 and at most the most."""
    scaled: dict[str, str] = {}
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        spec = each["spec"]
        keda = each["kind"] == "ScaledObject"
        least = spec.get("minReplicaCount" if keda else "minReplicas", 1)
        most = spec.get("maxReplicaCount", 100) if keda else spec["maxReplicas"]
        if not 1 <= least <= most:
            yield f"{name_of(each)}: {least} replicas at least and {most} at most"
        reference = spec["scaleTargetRef"]
        target = manifests.get(reference.get("kind", "Deployment"), reference["name"])
        if target is None:
            yield f"{name_of(each)}: it scales {reference['name']}, which is not there"
        elif "replicas" in target["spec"]:
            yield f"{name_of(target)}: it sets replicas, and {name_of(each)} does, too"
        if other := scaled.get(reference["name"]):
            yield f"{name_of(each)}: {other} scales {reference['name']} already"
        scaled[reference["name"]] = name_of(each)
        fallback = spec.get("fallback", {}).get("replicas", least)
        if not least <= fallback <= most:
            yield f"{name_of(each)}: {fallback} replicas as fallback are not between {least} and {most}"


def disruption(manifests: Manifests) -> Iterator[str]:
    """Every Deployment has one budget, and a budget lets one pod go."""
    for each in manifests.of("Deployment"):
        budgets = [
            b
            for b in manifests.of("PodDisruptionBudget")
            if matches(b["spec"]["selector"]["matchLabels"], pod_labels(each))
        ]
        if len(budgets) != 1:
            yield f"{name_of(each)}: {len(budgets)} PodDisruptionBudgets select its pods; there must be one"
        for budget in budgets:
            spec = budget["spec"]
            if ("minAvailable" in spec) == ("maxUnavailable" in spec):
                yield f"{name_of(budget)}: it needs one of minAvailable and maxUnavailable"
            least = _least_replicas(manifests, each)
            if spec.get("maxUnavailable") in (0, "0%") or spec.get("minAvailable") == "100%":
                yield f"{name_of(budget)}: it lets no pod go"
            elif isinstance(spec.get("minAvailable"), int) and spec["minAvailable"] >= least:
                yield f"{name_of(budget)}: it lets none of {least} pods go"


def jobs(manifests: Manifests) -> Iterator[str]:
    """Jobs end; workloads that serve do not."""
    for each in manifests.workloads():
        policy = pod_template(each)["spec"].get("restartPolicy", "Always")
        job = each["kind"] in JOBS
        if job and policy not in ("Never", "OnFailure"):
            yield f"{name_of(each)}: a Job's restartPolicy is Never or OnFailure, not {policy}"
        if not job and policy != "Always":
            yield f"{name_of(each)}: its restartPolicy is Always, not {policy}"


def references(manifests: Manifests) -> Iterator[str]:
    """What a pod names is there: ConfigMaps, Secrets, claims, service accounts, priority classes."""
    outside: set[str] = set()
    for each in manifests.workloads():
        outside |= set(each["metadata"].get("annotations", {}).get(SECRETS_FROM_OUTSIDE, "").split())
    used: set[str] = set()
    for each in manifests.objects:
        for kind, name in _references(each):
            if kind == "Secret" and name in outside:
                used.add(name)
            elif manifests.get(kind, name) is None and name not in _IN_THE_CLUSTER:
                yield f"{name_of(each)}: it needs {kind}/{name}, which is not there"
    for name in sorted(outside - used):
        yield f"Secret/{name} is asked for from outside, and nothing uses it"


def network(manifests: Manifests) -> Iterator[str]:
    """All pods are denied by default, and what is allowed in goes to ports that they have."""
    policies = list(manifests.of("NetworkPolicy"))
    for each in manifests.workloads():
        if not any(_denies_all(p) and _selects(p, each) for p in policies):
            yield f"{name_of(each)}: no NetworkPolicy denies its pods everything by default"
    for policy in policies:
        for rule in policy["spec"].get("ingress", ()):
            if not rule.get("from"):
                yield f"{name_of(policy)}: it lets everybody in"
            for port in rule.get("ports", ()):
                for each in manifests.workloads():
                    known = _ports(each)
                    if _selects(policy, each) and port["port"] not in known and port["port"] not in known.values():
                        yield f"{name_of(policy)}: {name_of(each)} has no port {port['port']}"


def namespaces(manifests: Manifests) -> Iterator[str]:
    """Everything is in the one namespace that comes with it, which takes restricted pods only."""
    there = {each["metadata"]["name"]: each for each in manifests.of("Namespace")}
    for each in manifests.objects:
        if (space := each["metadata"].get("namespace")) and space not in there:
            yield f"{name_of(each)}: its namespace {space} is not there"
    for each in there.values():
        if each["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name_of(each)}: it must enforce the pod security standard restricted"


def ratings(manifests: Manifests) -> Iterator[str]:
    """A file of ratings has one facade that writes to it, never a second one during an update; a database's URL, which
    may hold a password, comes from a Secret."""
    for each in manifests.of("Deployment"):
        for container in containers(each):
            place = str(settings(manifests, each, container).get("ratings") or "")
            if place.startswith("/"):
                updates = each["spec"].get("strategy", {}).get("type", "RollingUpdate")
                if _most_replicas(manifests, each) > 1 or updates != "Recreate":
                    yield f"{name_of(each)}: several facades would write to {place}; give them a database's URL"
            elif place and place not in _secret_variables(container):
                yield f"{name_of(each)}: the URL of its ratings must be a variable from a Secret"


def _secret_variables(container: Mapping[str, Any]) -> set[str]:
    """As they are named in arguments."""
    return {f"$({each['name']})" for each in container.get("env", ()) if "secretKeyRef" in each.get("valueFrom", {})}


def _ports(workload: Object) -> Mapping[str, int]:
    found = (port for container in containers(workload) for port in container.get("ports", ()))
    return {port["name"]: port["containerPort"] for port in found}


def _least_replicas(manifests: Manifests, workload: Object) -> int:
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        if each["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return int(each["spec"].get("minReplicas", each["spec"].get("minReplicaCount", 1)))
    return int(workload["spec"].get("replicas", 1))


def _most_replicas(manifests: Manifests, workload: Object) -> int:
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        if each["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
            return int(each["spec"].get("maxReplicas", each["spec"].get("maxReplicaCount", 100)))
    return int(workload["spec"].get("replicas", 1))


def _denies_all(policy: Object) -> bool:
    spec = policy["spec"]
    return set(spec["policyTypes"]) == {"Ingress", "Egress"} and not spec.get("ingress") and not spec.get("egress")


def _selects(policy: Object, workload: Object) -> bool:
    return matches(policy["spec"]["podSelector"].get("matchLabels", {}), pod_labels(workload))


def _references(thing: Object) -> Iterator[tuple[str, str]]:
    """(kind, name) of what a thing names."""
    if thing["kind"] == "ServiceMonitor":
        for endpoint in thing["spec"]["endpoints"]:
            if name := endpoint.get("authorization", {}).get("credentials", {}).get("name"):
                yield "Secret", name
    if thing["kind"] == "GRPCRoute":
        for rule in thing["spec"]["rules"]:
            yield from (("Service", backend["name"]) for backend in rule["backendRefs"])
    if thing["kind"] == "TrainJob":
        yield thing["spec"]["runtimeRef"]["kind"], thing["spec"]["runtimeRef"]["name"]
    if thing["kind"] not in WORKLOADS:
        return
    spec = pod_template(thing)["spec"]
    if name := spec.get("serviceAccountName"):
        yield "ServiceAccount", name
    if name := spec.get("priorityClassName"):
        yield "PriorityClass", name
    for volume in spec.get("volumes", ()):
        for field, kind, key in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if field in volume:
                yield kind, volume[field][key]
    for container in containers(thing):
        yield from _environment(container)


def _environment(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            yield "Secret", source["secretKeyRef"]["name"]
        if "configMapKeyRef" in source:
            yield "ConfigMap", source["configMapKeyRef"]["name"]


RULES: Sequence[Rule] = (
    names,
    selectors,
    service_ports,
    scaling,
    disruption,
    jobs,
    references,
    network,
    namespaces,
    ratings,
    *POD_RULES,
    *TRAINING_RULES,
)
"""All of them."""


def problems(objects: Sequence[Object]) -> list[str]:
    """What is wrong with manifests, a line each."""
    manifests = Manifests(objects)
    return [line for rule in RULES for line in rule(manifests)]
