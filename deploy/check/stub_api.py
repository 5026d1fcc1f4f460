"""A stand-in for an API server, for the real kubectl: it speaks the wire protocol and knows the schemas, nothing more.

Runs in the environment of the tools: `python -m deploy.check.stub_api` prints its port and answers until its standard
input ends.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from deploy.check.schema import VERSION, problem

_CLUSTER = {"Namespace", "PriorityClass"}
_GROUPS: dict[str, tuple[str, ...]] = {
    "v1": ("ConfigMap", "Namespace", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob", "Job"),
    "gateway.networking.k8s.io/v1": ("GRPCRoute",),
    "keda.sh/v1alpha1": ("ScaledObject",),
    "kueue.x-k8s.io/v1beta2": ("LocalQueue",),
    "monitoring.coreos.com/v1": ("PrometheusRule", "ServiceMonitor"),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "scheduling.k8s.io/v1": ("PriorityClass",),
    "trainer.kubeflow.org/v1alpha1": ("TrainJob", "TrainingRuntime"),
}


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("s") else f"{name}s"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stored: dict[str, Any]

    def do_GET(self) -> None:
        """Discovery, and objects by their path."""
        path = urlsplit(self.path).path
        group = path.removeprefix("/apis/").removeprefix("/api/")
        if path == "/version":
            major, _, minor = VERSION.partition(".")
            self._answer(200, {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0"})
        elif path == "/api":
            self._answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            self._answer(
                200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g) for g in _GROUPS if "/" in g]}
            )
        elif path.count("/") <= 3 and group in _GROUPS:
            resources = [_resource(kind) for kind in _GROUPS[group]]
            self._answer(
                200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
            )
        elif path in self.stored:
            self._answer(200, self.stored[path])
        else:
            self._refuse(404, "NotFound", f"{path} not found")

    def do_PATCH(self) -> None:
        """Server-side apply: what the schema takes is stored, unless this is a dry run."""
        address = urlsplit(self.path)
        thing = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        if said := problem(thing):
            self._refuse(422, "Invalid", said)
            return
        thing["metadata"] |= {"uid": str(uuid.uuid4()), "resourceVersion": "1"}
        if "dryRun" not in parse_qs(address.query):
            self.stored[address.path] = thing
        self._answer(200, thing)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self._answer(code, status | {"code": code})

    def _answer(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _group(group_version: str) -> dict[str, Any]:
    group, _, version = group_version.rpartition("/")
    told = {"groupVersion": group_version, "version": version}
    return {"name": group, "versions": [told], "preferredVersion": told}


def _resource(kind: str) -> dict[str, Any]:
    verbs = ["create", "get", "list", "patch"]
    return {"name": _plural(kind), "singularName": "", "namespaced": kind not in _CLUSTER, "kind": kind, "verbs": verbs}


def main() -> None:
    """Answer on a free port of loopback until standard input ends."""
    _Handler.stored = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
