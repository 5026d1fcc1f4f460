"""Manifests of training that were broken on purpose, one fault each: all are refused, for the reason that was sown."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.check.manifests import Manifests, Object
from deploy.check.rules import problems
from tests.deploy.breaking import Break, broken, one
from tests.deploy.conftest import schema_problems


def job(m: Manifests) -> Any:
    return one(m, "Job", "saaa-egdd")


def job_pod(m: Manifests) -> Any:
    return job(m)["spec"]["template"]["spec"]


def argument(m: Manifests, before: str, after: str) -> None:
    container = job_pod(m)["containers"][0]
    container["args"] = [word.replace(before, after) for word in container["args"]]


def too_few_pods(m: Manifests) -> None:
    job(m)["spec"]["parallelism"] = 1


def nameless_pods(m: Manifests) -> None:
    job(m)["spec"]["completionMode"] = "NonIndexed"


def short_meeting_place(m: Manifests) -> None:
    argument(m, ".$(NAMESPACE).svc.cluster.local", "")


def no_subdomain(m: Manifests) -> None:
    del job_pod(m)["subdomain"]


def meets_when_ready(m: Manifests) -> None:
    del one(m, "Service", "saaa-training")["spec"]["publishNotReadyAddresses"]


def no_variable(m: Manifests) -> None:
    job_pod(m)["containers"][0]["env"].pop(0)


def begins_anew(m: Manifests) -> None:
    job_pod(m)["containers"][0]["args"].remove("--go_on")


def drains_count(m: Manifests) -> None:
    job(m)["spec"]["podFailurePolicy"]["rules"].pop(0)


def tries_wrong_options_again(m: Manifests) -> None:
    job(m)["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] = "trainer"


def checkpoints_on_empty_dir(m: Manifests) -> None:
    volume = next(each for each in job_pod(m)["volumes"] if each["name"] == "training")
    del volume["persistentVolumeClaim"]
    volume["emptyDir"] = {"sizeLimit": "1Gi"}


def trainer_writes_models(m: Manifests) -> None:
    one(m, "Job", "saaa-promote")["spec"]["template"]["spec"]["containers"][0]["args"][0] = "ratings"


def misspelt_runtime(m: Manifests) -> None:
    one(m, "TrainingRuntime", "saaa-training")["spec"]["mlPolicy"]["numNode"] = 2


def text_for_nodes(m: Manifests) -> None:
    one(m, "TrainJob", "saaa-egdd")["spec"]["trainer"]["numNodes"] = "two"


def missing_runtime(m: Manifests) -> None:
    one(m, "TrainJob", "saaa-egdd")["spec"]["runtimeRef"]["name"] = "torch"


IN_TRAINING: dict[Break, str] = {
    too_few_pods: "must both be torchrun's --nnodes=2",
    nameless_pods: "completionMode Indexed",
    short_meeting_place: "is not the whole name of its first pod",
    no_subdomain: "subdomain must be saaa-training",
    meets_when_ready: "must be headless",
    no_variable: "lacks the variable JOB_NAME",
    begins_anew: "begins anew",
    drains_count: "must ignore DisruptionTarget",
    tries_wrong_options_again: "exit code of one of its containers",
    checkpoints_on_empty_dir: "output_dir /training/egdd is lost with the pod",
    trainer_writes_models: "models must be mounted read-only",
}
"""What a rule refuses of jobs, and a word of why."""

TRAINER = "dev with training/base and training/trainjob and gpu and training/kueue"


@pytest.mark.parametrize("fault", IN_TRAINING, ids=lambda fault: fault.__name__)
def test_a_rule_of_jobs_refuses(fault: Break, variants: dict[str, list[Object]]) -> None:
    found = problems(broken(variants["dev with training/base"], fault))
    assert [line for line in found if IN_TRAINING[fault] in line], found


def test_a_trainjob_needs_its_runtime_and_its_fields(variants: dict[str, list[Object]], api_server: str) -> None:
    found = problems(broken(variants[TRAINER], missing_runtime))
    assert found == ["TrainJob/saaa-egdd: it needs TrainingRuntime/torch, which is not there"]
    for fault, says in ((misspelt_runtime, "numNode"), (text_for_nodes, "'two'")):
        changed = [new for new in broken(variants[TRAINER], fault) if new not in variants[TRAINER]]
        (said,) = schema_problems(api_server, changed)
        assert says in said
