"""Manifests of the service broken on purpose, one fault each: all are refused, for the reason that was sown."""

from __future__ import annotations

import copy

import pytest

from deploy.check.manifests import Manifests, Object
from deploy.check.rules import problems
from tests.deploy.breaking import Break, add, broken, config, facade, one, pod, torchserve


def foreign_selector(m: Manifests) -> None:
    one(m, "Deployment")["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = "front"


def missing_target_port(m: Manifests) -> None:
    one(m, "Service", "saaa")["spec"]["ports"][0]["targetPort"] = "http"


def port_out_of_range(m: Manifests) -> None:
    facade(m)["ports"][2]["containerPort"] = 70000


def probe_elsewhere(m: Manifests) -> None:
    facade(m)["readinessProbe"]["grpc"]["port"] = 50053


def liveness_of_models(m: Manifests) -> None:
    facade(m)["livenessProbe"]["grpc"]["service"] = "saaa.v1.AnalysisService"


def no_readiness(m: Manifests) -> None:
    del facade(m)["readinessProbe"]


def least_above_most(m: Manifests) -> None:
    one(m, "ScaledObject")["spec"]["minReplicaCount"] = 30


def scales_nothing(m: Manifests) -> None:
    one(m, "ScaledObject")["spec"]["scaleTargetRef"]["name"] = "saaa-front"


def own_replicas(m: Manifests) -> None:
    one(m, "Deployment")["spec"]["replicas"] = 3


def two_scalers(m: Manifests) -> None:
    add(
        m,
        apiVersion="autoscaling/v2",
        kind="HorizontalPodAutoscaler",
        metadata={"name": "saaa-other", "namespace": "saaa"},
        spec={"scaleTargetRef": one(m, "ScaledObject")["spec"]["scaleTargetRef"], "minReplicas": 2, "maxReplicas": 4},
    )


def unevictable(m: Manifests) -> None:
    one(m, "PodDisruptionBudget")["spec"]["maxUnavailable"] = 0


def job_for_ever(m: Manifests) -> None:
    template = {"metadata": {"labels": {"app.kubernetes.io/part-of": "saaa"}}, "spec": copy.deepcopy(pod(m))}
    template["spec"]["restartPolicy"] = "Always"
    add(
        m,
        apiVersion="batch/v1",
        kind="Job",
        metadata={"name": "saaa-job", "namespace": "saaa"},
        spec={"template": template},
    )


def missing_config(m: Manifests) -> None:
    pod(m)["volumes"][-1 - next(i for i, v in enumerate(reversed(pod(m)["volumes"])) if "configMap" in v)]["configMap"][
        "name"
    ] = "saaa-config"


def missing_secret(m: Manifests) -> None:
    facade(m)["env"].append({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "saaa-key", "key": "key"}}})


def missing_account(m: Manifests) -> None:
    pod(m)["serviceAccountName"] = "saaa"


def policy_of_another_port(m: Manifests) -> None:
    one(m, "NetworkPolicy", "saaa-callers")["spec"]["ingress"][0]["ports"][0]["port"] = 8080


def open_to_all(m: Manifests) -> None:
    del one(m, "NetworkPolicy", "saaa-callers")["spec"]["ingress"][0]["from"]


def nothing_denied(m: Manifests) -> None:
    one(m, "NetworkPolicy", "saaa-default-deny")["spec"]["policyTypes"] = ["Ingress"]


def bad_name(m: Manifests) -> None:
    one(m, "PodDisruptionBudget")["metadata"]["name"] = "Saaa_Facade"


def request_above_limit(m: Manifests) -> None:
    facade(m)["resources"]["requests"]["memory"] = "2Gi"


def no_memory_limit(m: Manifests) -> None:
    del torchserve(m)["resources"]["limits"]


def runs_as_root(m: Manifests) -> None:
    pod(m)["securityContext"]["runAsUser"] = 0


def writable_root(m: Manifests) -> None:
    torchserve(m)["securityContext"]["readOnlyRootFilesystem"] = False


def token_mounted(m: Manifests) -> None:
    pod(m)["automountServiceAccountToken"] = True


def no_tag(m: Manifests) -> None:
    facade(m)["image"] = "saaa/facade:latest"


def writable_models(m: Manifests) -> None:
    next(mount for mount in torchserve(m)["volumeMounts"] if mount["name"] == "models")["readOnly"] = False


def journal_on_empty_dir(m: Manifests) -> None:
    state = next(volume for volume in pod(m)["volumes"] if volume["name"] == "state")
    del state["persistentVolumeClaim"]
    state["emptyDir"] = {"sizeLimit": "1Gi"}


def ratings_on_empty_dir(m: Manifests) -> None:
    facade(m)["args"][-1] = "--ratings=/tmp/ratings.db"


def ratings_in_a_shared_file(m: Manifests) -> None:
    facade(m)["args"].append("--ratings=/state/ratings.db")


def password_in_the_manifest(m: Manifests) -> None:
    facade(m)["args"].append("--ratings=postgresql://saaa:secret@db/saaa")


def unchecked_models(m: Manifests) -> None:
    pod(m)["initContainers"].reverse()


def torchserve_on_the_network(m: Manifests) -> None:
    torchserve(m)["args"].append("--host=0.0.0.0")


def torchserve_with_a_port(m: Manifests) -> None:
    torchserve(m)["ports"] = [{"name": "inference", "containerPort": 7070}]


def torchserve_ends(m: Manifests) -> None:
    del torchserve(m)["restartPolicy"]


def short_grace(m: Manifests) -> None:
    pod(m)["terminationGracePeriodSeconds"] = 30


def longer_drain(m: Manifests) -> None:
    config(m, "facade.yaml", "drain_s: 55", "drain_s: 80")


def no_pre_stop(m: Manifests) -> None:
    del facade(m)["lifecycle"]


def answers_after_the_drain(m: Manifests) -> None:
    config(m, "facade.yaml", "max_deadline_s: 50", "max_deadline_s: 600")


def impatient_startup(m: Manifests) -> None:
    torchserve(m)["startupProbe"]["failureThreshold"] = 3


def weak_namespace(m: Manifests) -> None:
    one(m, "Namespace", "saaa")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"


BY_RULE: dict[Break, str] = {
    foreign_selector: "does not select its own pods",
    missing_target_port: "has no port http",
    port_out_of_range: "70000 is no port",
    probe_elsewhere: "asks port 50053",
    liveness_of_models: "must ask for the service alive",
    no_readiness: "has no readinessProbe",
    least_above_most: "30 replicas at least and 20 at most",
    scales_nothing: "saaa-front, which is not there",
    own_replicas: "it sets replicas",
    two_scalers: "scales saaa-facade already",
    unevictable: "it lets no pod go",
    job_for_ever: "a Job's restartPolicy",
    missing_config: "ConfigMap/saaa-config, which is not there",
    missing_secret: "Secret/saaa-key, which is not there",
    missing_account: "ServiceAccount/saaa, which is not there",
    policy_of_another_port: "has no port 8080",
    open_to_all: "it lets everybody in",
    nothing_denied: "denies its pods everything by default",
    bad_name: "is no name that Kubernetes takes",
    request_above_limit: "above its limit",
    no_memory_limit: "no limit of memory",
    runs_as_root: "not as root",
    writable_root: "must be read-only",
    token_mounted: "must not mount a token",
    no_tag: "names no version",
    writable_models: "models must be mounted read-only",
    journal_on_empty_dir: "journal /state/journal.jsonl is lost with the pod",
    ratings_on_empty_dir: "ratings /tmp/ratings.db is lost with the pod",
    ratings_in_a_shared_file: "several facades would write to /state/ratings.db",
    password_in_the_manifest: "must be a variable from a Secret",
    unchecked_models: "nothing checks the models",
    torchserve_on_the_network: "stays on loopback",
    torchserve_with_a_port: "stays on loopback",
    torchserve_ends: "initContainer with restartPolicy Always",
    short_grace: "grace of 30 s",
    longer_drain: "grace of 95 s",
    no_pre_stop: "needs a preStop sleep",
    answers_after_the_drain: "is above drain_s",
    impatient_startup: "the startupProbe gives 6 s",
    weak_namespace: "pod security standard restricted",
}
"""What the schemas let pass and a rule refuses, and a word of why."""


@pytest.mark.parametrize("fault", BY_RULE, ids=lambda fault: fault.__name__)
def test_a_rule_refuses(fault: Break, variants: dict[str, list[Object]]) -> None:
    found = problems(broken(variants["prod"], fault))
    assert [line for line in found if BY_RULE[fault] in line], found


def test_a_file_of_ratings_is_not_written_by_the_old_pod_and_the_new(variants: dict[str, list[Object]]) -> None:
    def rolls(m: Manifests) -> None:
        del one(m, "Deployment")["spec"]["strategy"]

    (found,) = problems(broken(variants["dev"], rolls))
    assert "several facades would write to /ratings/ratings.db" in found
