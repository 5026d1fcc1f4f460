"""Server reflection: what is served, and its messages, for tools that have no copy of the contract.

grpcio-reflection speaks v1alpha only, and newer tools ask v1 first. The two differ in their package's name alone, so
the same servicer answers under both.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

ALPHA_NAME: str = reflection.SERVICE_NAME
"""The service that grpcio-reflection brings."""
V1_NAME = ALPHA_NAME.replace("v1alpha", "v1")
"""The one that it lacks."""


def add_reflection(names: Sequence[str], server: grpc.aio.Server) -> None:
    """Serve reflection, v1alpha and v1.

    Args:
        names: full names of the services to tell of; reflection adds itself.
        server: not started yet.
    """
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*names, ALPHA_NAME, V1_NAME))
    handlers = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, handlers) for name in (ALPHA_NAME, V1_NAME)]
    )


def _describe_v1() -> None:
    """Make v1 describe itself too: the file of v1alpha under the other name, in the pool that reflection reads."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(V1_NAME)
    except KeyError:
        alpha = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
        text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
        file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
        pool.AddSerializedFile(file.SerializeToString())
