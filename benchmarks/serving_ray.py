"""The model in Ray Serve behind its gRPC proxy, for `benchmarks.serving`; runs in its environment."""

from __future__ import annotations

import os
import signal
from typing import Any

os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # of a busy machine

import grpc
import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from benchmarks.serving_model import Model, told

SERVICE = "bench.Model"


def add_servicer(servicer: Any, server: Any) -> None:
    """What generated code would do: one method of BytesValue to BytesValue."""
    method = grpc.unary_unary_rpc_method_handler(
        servicer.Classify,
        request_deserializer=BytesValue.FromString,
        response_serializer=BytesValue.SerializeToString,
    )
    handlers = {"Classify": method}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class One:
    """One image a forward."""

    def __init__(self, archive: str, threads: int) -> None:
        self.model = Model(archive, threads)

    def Classify(self, request: BytesValue) -> BytesValue:  # noqa: N802
        """A JPEG in, JSON out."""
        return BytesValue(value=self.model.answers([request.value])[0])


class Batched(One):
    """Gathers what comes together."""

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def gathered(self, requests: list[bytes]) -> list[bytes]:
        """One forward."""
        return self.model.answers(requests)

    async def Classify(self, request: BytesValue) -> BytesValue:  # type: ignore[override]  # noqa: N802
        """A JPEG in, JSON out."""
        return BytesValue(value=await self.gathered(request.value))


def main() -> None:
    """Serve until killed."""
    options = told()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, configure_logging=False)
    functions = ["benchmarks.serving_ray.add_servicer"]
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=options.ports[1]),
        grpc_options=gRPCOptions(port=options.ports[0], grpc_servicer_functions=functions),
    )
    deployed = serve.deployment(Batched if options.batch > 1 else One).options(
        num_replicas=options.workers, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1}
    )
    serve.run(deployed.bind(options.archive, options.threads), name="bench", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
