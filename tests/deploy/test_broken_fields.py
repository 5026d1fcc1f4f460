"""Fields of manifests that were broken on purpose: what the schemas of Kubernetes and of its extensions refuse."""

from __future__ import annotations

import pytest

from deploy.check.manifests import Manifests, Object
from tests.deploy.breaking import Break, broken, facade, one
from tests.deploy.conftest import schema_problems


def misspelt(m: Manifests) -> None:
    context = facade(m)["securityContext"]
    context["readOnlyRootFileSystem"] = context.pop("readOnlyRootFilesystem")


def text_for_number(m: Manifests) -> None:
    one(m, "Deployment")["spec"]["revisionHistoryLimit"] = "five"


def removed_version(m: Manifests) -> None:
    one(m, "PodDisruptionBudget")["apiVersion"] = "policy/v1beta1"


def misspelt_custom(m: Manifests) -> None:
    one(m, "ScaledObject")["spec"]["minReplicasCount"] = 2


def incomplete_custom(m: Manifests) -> None:
    del one(m, "ServiceMonitor")["spec"]["selector"]


BY_SCHEMA: dict[Break, str] = {
    misspelt: "readOnlyRootFileSystem",
    text_for_number: "revisionHistoryLimit",
    removed_version: "policy/v1beta1",
    misspelt_custom: "minReplicasCount",
    incomplete_custom: "selector",
}
"""What the schemas refuse, and a word of why."""


@pytest.mark.parametrize("fault", BY_SCHEMA, ids=lambda fault: fault.__name__)
def test_a_schema_refuses(fault: Break, variants: dict[str, list[Object]], api_server: str) -> None:
    changed = [new for new in broken(variants["prod"], fault) if new not in variants["prod"]]
    found = schema_problems(api_server, changed)
    assert [line for line in found if BY_SCHEMA[fault] in line], found
