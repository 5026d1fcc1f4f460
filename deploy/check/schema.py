"""The strict schemas of Kubernetes, and the models of the custom resources that we use.

Runs in the environment of the tools, which has the schemas: `python -m deploy.check.schema` reads a JSON list of
objects and writes a JSON list of problems.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

VERSION = "1.37"
"""Of Kubernetes, whose schemas are asked."""
UNKNOWN = ("GRPCRoute",)
"""Kinds whose schema no Python package brings; `deploy.check.rules` knows their references."""
_MODELS = {
    "ServiceMonitor": ("cloudcoil.models.prometheus_operator.v1", "ServiceMonitor"),
    "PrometheusRule": ("cloudcoil.models.prometheus_operator.v1", "PrometheusRule"),
    "ScaledObject": ("cloudcoil.models.keda.v1alpha1", "ScaledObject"),
}


def problem(thing: Mapping[str, Any]) -> str:
    """What a schema says against an object; "" where it says nothing."""
    where = f"{thing.get('kind', '?')}/{thing.get('metadata', {}).get('name', '?')}"
    kind = thing.get("kind", "")
    if kind in UNKNOWN:
        return ""
    said = _custom(thing) if kind in _MODELS else _built_in(thing)
    return f"{where}: {said}" if said else ""


def _built_in(thing: Mapping[str, Any]) -> str:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(dict(thing), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path)
        return f"{path}: {error.message}"
    except Exception as error:  # a kind or version that no schema knows
        return str(error) or type(error).__name__
    return ""


def _custom(thing: Mapping[str, Any]) -> str:
    import importlib

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


def problems(objects: list[Mapping[str, Any]], ask: Callable[[Mapping[str, Any]], str] = problem) -> list[str]:
    """What the schemas say against objects, a line each."""
    return [said for thing in objects if (said := ask(thing))]


if __name__ == "__main__":
    json.dump(problems(json.load(sys.stdin)), sys.stdout)
