"""Manifests that are broken on purpose, one fault each: the parts of them that a fault takes hold of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from deploy.check.manifests import Manifests, Object

Break = Callable[[Manifests], None]


def one(manifests: Manifests, kind: str, name: str = "saaa-facade") -> Any:
    found = manifests.get(kind, name)
    assert found is not None
    return found


def pod(manifests: Manifests) -> Any:
    return one(manifests, "Deployment")["spec"]["template"]["spec"]


def facade(manifests: Manifests) -> Any:
    return pod(manifests)["containers"][0]


def torchserve(manifests: Manifests) -> Any:
    return pod(manifests)["initContainers"][1]


def config(manifests: Manifests, file: str, before: str, after: str) -> None:
    data = next(each for each in manifests.of("ConfigMap") if file in each["data"])["data"]
    assert before in data[file]
    data[file] = data[file].replace(before, after)


def add(manifests: Manifests, **thing: Any) -> None:
    assert isinstance(manifests.objects, list)
    manifests.objects.append(thing)


def broken(objects: list[Object], fault: Break) -> list[Object]:
    copied = copy.deepcopy(objects)
    fault(Manifests(copied))
    return copied
