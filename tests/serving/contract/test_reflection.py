"""Reflection over real gRPC, in both versions, as a tool without a copy of the contract reads it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from tests.serving.pixel_backend import Caller, PixelBackend, calling, photo

VERSIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
SERVICES = {
    "saaa.v1.AnalysisService",
    "saaa.v1.FeedbackService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    *VERSIONS,
}


async def reflect(caller: Caller, version: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    method = caller.channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method(iter([reflection_pb2.ServerReflectionRequest(**question)]))
    response = await call.read()
    call.cancel()
    return response


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_service_is_named_and_described(version: str) -> None:
    async with calling(PixelBackend()) as caller:
        listed = await reflect(caller, version, list_services="")
        assert {service.name for service in listed.list_services_response.service} == SERVICES
        for name in SERVICES:
            answer = await reflect(caller, version, file_containing_symbol=name)
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(data)
                for data in answer.file_descriptor_response.file_descriptor_proto
            ]
            assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}
        unknown = await reflect(caller, version, file_containing_symbol="saaa.v1.Nothing")
        assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_told_is_enough_to_call(version: str) -> None:
    async with calling(PixelBackend()) as caller:
        answer = await reflect(caller, version, file_containing_symbol="saaa.v1.AnalysisService")
        pool = descriptor_pool.DescriptorPool()
        # Told in the order of dependence, the asked-for file first.
        for data in reversed(answer.file_descriptor_response.file_descriptor_proto):
            pool.AddSerializedFile(data)
        method = pool.FindServiceByName("saaa.v1.AnalysisService").methods_by_name["Analyze"]
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = caller.channel.unary_unary(
            "/saaa.v1.AnalysisService/Analyze",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        assert (await call(request(image=photo()))).predictions[0].label == "red"


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_can_be_switched_off(version: str) -> None:
    async with calling(PixelBackend(), reflection=False) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await reflect(caller, version, list_services="")
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
