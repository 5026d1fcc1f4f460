"""The strict schemas of Kubernetes, and the models of the custom resources that we use.

Runs in the environment of the tools, which has the schemas, behind `deploy.check.stub_api`.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from typing import Any

VERSION = "1.37"
"""Of Kubernetes, whose schemas are asked."""
UNKNOWN = ("GRPCRoute", "LocalQueue")
"""Kinds whose schema no Python package brings; `deploy.check.rules` knows their references."""
_MODELS = {
    "ServiceMonitor": ("cloudcoil.models.prometheus_operator.v1", "ServiceMonitor"),
    "PrometheusRule": ("cloudcoil.models.prometheus_operator.v1", "PrometheusRule"),
    "ScaledObject": ("cloudcoil.models.keda.v1alpha1", "ScaledObject"),
}
_TRAINER = {"TrainJob": "TrainerV1alpha1TrainJob", "TrainingRuntime": "TrainerV1alpha1TrainingRuntime"}
_SCALARS = ("IoK8sApimachineryPkgApiResourceQuantity", "IoK8sApimachineryPkgUtilIntstrIntOrString")
"""What Kubeflow's models take for objects, and Kubernetes writes as text or a number."""


def problem(thing: Mapping[str, Any]) -> str:
    """What a schema says against an object; "" where it says nothing."""
    where = f"{thing.get('kind', '?')}/{thing.get('metadata', {}).get('name', '?')}"
    kind = thing.get("kind", "")
    if kind in UNKNOWN:
        return ""
    said = _custom(thing) if kind in _MODELS else _trainer(thing) if kind in _TRAINER else _built_in(thing)
    return f"{where}: {said}" if said else ""


def _built_in(thing: Mapping[str, Any]) -> str:
    try:
        validator = _validator(thing["kind"], thing["apiVersion"])
    except OSError:
        return f"Kubernetes {VERSION} knows no {thing['kind']} of {thing['apiVersion']}"
    return _first(validator, thing)


def _first(validator: Any, thing: Mapping[str, Any]) -> str:
    from jsonschema.exceptions import best_match

    error = best_match(validator.iter_errors(thing))
    return f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}" if error else ""


@functools.cache
def _validator(kind: str, api_version: str) -> Any:
    """`kubernetes_validate.validate` reads all definitions anew for each object; its schemas are asked directly."""
    from jsonschema.validators import Draft202012Validator

    group, _, version = api_version.rpartition("/")
    name = f"{group.partition('.')[0]}-{version}" if group else version
    schema = _read(f"{kind.lower()}-{name}")
    return Draft202012Validator(schema.contents, registry=schema @ _definitions())


@functools.cache
def _definitions() -> Any:
    from referencing import Registry

    return (_read("_definitions") @ Registry()).crawl()


def _read(name: str) -> Any:
    from kubernetes_validate.utils import schema_contents
    from referencing import Resource

    path = f"kubernetes-json-schema/v{VERSION}.0-local-strict/{name}.json"
    return Resource.from_contents(schema_contents(path, VERSION))


def _trainer(thing: Mapping[str, Any]) -> str:
    """By the schemas of Kubeflow's models: the models themselves refuse every quantity."""
    return _first(_trainer_validator(thing["kind"]), thing)


@functools.cache
def _trainer_validator(kind: str) -> Any:
    from jsonschema.validators import Draft202012Validator

    models = importlib.import_module("kubeflow_trainer_api.models")
    schema = getattr(models, _TRAINER[kind]).model_json_schema(by_alias=True)
    parts = schema["$defs"]
    for name in parts.keys() & set(_SCALARS):
        parts[name] = {"type": ["string", "number"]}
    for each in (schema, *parts.values()):
        if "properties" in each:
            each["additionalProperties"] = False
    return Draft202012Validator(schema)


def _custom(thing: Mapping[str, Any]) -> str:
    module, name = _MODELS[thing["kind"]]
    model: Any = getattr(importlib.import_module(module), name)
    try:
        read = model.model_validate(thing)
    except ValueError as error:
        return " ".join(str(error).split())
    # A misspelt key is ignored by the model, and so lost on the way through it.
    kept = json.loads(read.model_dump_json(by_alias=True, exclude_none=True))
    return next(_lost(thing, kept, ""), "")


def _lost(before: Any, after: Any, path: str) -> Any:
    if isinstance(before, Mapping):
        for key, value in before.items():
            if not isinstance(after, Mapping) or key not in after:
                yield f"{path}{key}: no such field"
            else:
                yield from _lost(value, after[key], f"{path}{key}.")
    elif isinstance(before, list):
        for index, value in enumerate(before):
            yield from _lost(value, after[index], f"{path}{index}.")
