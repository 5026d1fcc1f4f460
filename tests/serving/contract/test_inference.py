"""The Open Inference Protocol over real gRPC."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import grpc
import numpy as np
import pytest

import saaa
from saaa.v1 import analysis_pb2 as pb
from saaa.work import Work
from serving.contract.oip import open_inference_pb2 as oip
from serving.contract.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serving.settings import RequestLimits
from tests.serving.pixel_backend import CLASSES, CLASSIFIER, Caller, PixelBackend, calling, photo, plain, refusal

RED, BLUE = photo((200, 20, 20)), photo((20, 20, 200), (40, 40))


def stub(caller: Caller) -> Any:
    return GRPCInferenceServiceStub(caller.channel)


def infer_request(*images: bytes, raw: bool = False, outputs: Any = (), **fields: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="colours", **fields)
    given = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    if raw:
        request.raw_input_contents.append(b"".join(struct.pack("<I", len(image)) + image for image in images))
    else:
        given.contents.bytes_contents.extend(images)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def tensors(answer: oip.ModelInferResponse) -> dict[str, Any]:
    """The outputs as arrays and texts, whatever form they came in."""
    found: dict[str, Any] = {}
    for place, output in enumerate(answer.outputs):
        raw = answer.raw_output_contents[place] if answer.raw_output_contents else None
        if output.datatype == "FP32":
            values = output.contents.fp32_contents if raw is None else np.frombuffer(raw, "<f4")
            found[output.name] = np.array(values, np.float32).reshape(output.shape)
        else:
            texts = list(output.contents.bytes_contents)
            while raw:
                (length,) = struct.unpack_from("<I", raw)
                texts.append(raw[4 : 4 + length])
                raw = raw[4 + length :]
            assert list(output.shape) == [len(texts)]
            found[output.name] = [text.decode() for text in texts]
    return found


async def test_health_and_metadata(caller: Caller, backend: PixelBackend) -> None:
    ask = stub(caller)
    assert (await ask.ServerLive(oip.ServerLiveRequest())).live
    assert (await ask.ServerReady(oip.ServerReadyRequest())).ready
    assert (await ask.ModelReady(oip.ModelReadyRequest(name="words", version="2"))).ready
    server = await ask.ServerMetadata(oip.ServerMetadataRequest())
    assert (server.name, server.version) == ("saaa", saaa.__version__)
    model = await ask.ModelMetadata(oip.ModelMetadataRequest(name="colours"))
    assert (model.name, list(model.versions), model.platform) == ("colours", ["1"], "saaa_egdd")
    shapes = {entry.name: (entry.datatype, list(entry.shape)) for entry in (*model.inputs, *model.outputs)}
    assert shapes == {
        "image": ("BYTES", [-1]),
        "probabilities": ("FP32", [-1, 3]),
        "labels": ("BYTES", [-1]),
        "map": ("FP32", [-1, -1]),
    }
    assert model.properties["archive_sha256"] == CLASSIFIER.digest
    assert json.loads(model.properties["classes"]) == list(CLASSES)
    captioner = await ask.ModelMetadata(oip.ModelMetadataRequest(name="words"))
    assert (captioner.platform, len(captioner.inputs)) == ("saaa_ega", 0)
    unknown = await refusal(ask.ModelReady(oip.ModelReadyRequest(name="colours", version="9")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    backend.down = True
    async with asyncio.timeout(10):
        while (await ask.ServerReady(oip.ServerReadyRequest())).ready:
            await asyncio.sleep(0.01)
    assert not (await ask.ModelReady(oip.ModelReadyRequest(name="colours"))).ready


async def test_before_the_backend_was_ever_reached() -> None:
    backend = PixelBackend()
    backend.down = True
    async with calling(backend) as caller:
        ask = stub(caller)
        assert (await ask.ServerLive(oip.ServerLiveRequest())).live
        assert not (await ask.ServerReady(oip.ServerReadyRequest())).ready
        assert not (await ask.ModelReady(oip.ModelReadyRequest(name="colours"))).ready
        assert (await refusal(ask.ModelInfer(infer_request(RED)))).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("flat", [False, True])
async def test_probabilities_and_labels_are_those_of_analyze(caller: Caller, raw: bool, flat: bool) -> None:
    request = infer_request(RED, BLUE, raw=raw, id="mine")
    if not flat:
        request.inputs[0].shape[:] = [2, 1]
    answer = await stub(caller).ModelInfer(request)
    assert (answer.model_name, answer.model_version, answer.id) == ("colours", "1", "mine")
    assert answer.parameters["archive_sha256"].string_param == CLASSIFIER.digest
    assert bool(answer.raw_output_contents) is raw
    found = tensors(answer)
    assert list(found) == ["probabilities", "labels"]
    assert found["labels"] == ["red", "blue"]
    assert found["probabilities"].shape == (2, 3)
    for row, image in zip(found["probabilities"], (RED, BLUE), strict=True):
        alone = await caller.analyze(image, outputs=[pb.OUTPUT_PREDICTIONS])
        by_index = {prediction.index: prediction.probability for prediction in alone.predictions}
        np.testing.assert_array_equal(row, np.array([by_index[index] for index in range(3)], np.float32))


@pytest.mark.parametrize("raw", [False, True])
async def test_the_map_on_request(caller: Caller, backend: PixelBackend, raw: bool) -> None:
    ask = stub(caller)
    asked = pb.AttributionOptions(method="integrated_gradients", classes=["green"])
    alone = (await caller.analyze(RED, outputs=[pb.OUTPUT_ATTRIBUTIONS], attribution=asked)).attributions[0]
    request = infer_request(RED, raw=raw)
    request.parameters["map"].bool_param = True
    request.parameters["method"].string_param = "integrated_gradients"
    request.parameters["class"].string_param = "green"
    answer = await ask.ModelInfer(request)
    found = tensors(answer)
    assert list(found) == ["probabilities", "labels", "map"]
    np.testing.assert_array_equal(found["map"], np.array(alone.grid.values, np.float32).reshape(4, 4))
    assert answer.parameters["method"].string_param == "integrated_gradients"
    output = answer.outputs[2]
    assert json.loads(output.parameters["classes"].string_param) == ["green"]
    assert json.loads(output.parameters["regions"].string_param) == [[0, 0, 80, 40]]
    # Two images: one map each, of each one's own class.
    answer = await ask.ModelInfer(infer_request(RED, BLUE, raw=raw, outputs=["map"]))
    assert tensors(answer)["map"].shape == (2, 4, 4)
    assert json.loads(answer.outputs[0].parameters["classes"].string_param) == ["red", "blue"]
    # Without a map nothing is explained.
    backend.batches.clear()
    await ask.ModelInfer(infer_request(RED, outputs=["labels"]))
    assert [batch.work for batch in backend.batches] == [Work.PREDICT]


async def test_more_classes_than_analyze_returns() -> None:
    async with calling(PixelBackend(), limits=RequestLimits(max_top_k=2)) as caller:
        assert tensors(await stub(caller).ModelInfer(infer_request(RED)))["probabilities"].shape == (1, 3)
        assert (await refusal(caller.analyze(RED, top_k=3))).fields.keys() == {"top_k"}


def changed(**changes: Any) -> oip.ModelInferRequest:
    request = infer_request(RED)
    for name, value in changes.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        elif name == "inputs":
            request.inputs.extend([request.inputs[0]] * value)
        elif name in ("name", "datatype"):
            setattr(request.inputs[0], name, value)
        elif name == "raw":
            request.raw_input_contents.append(value)
        else:
            request.parameters[name].string_param = value
    return request


def only_raw(raw: bytes, count: int = 1) -> oip.ModelInferRequest:
    request = infer_request(RED, raw=True)
    request.raw_input_contents[0] = raw
    request.inputs[0].shape[:] = [count]
    return request


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (oip.ModelInferRequest(model_name="nobody"), grpc.StatusCode.NOT_FOUND, "model_name"),
        (oip.ModelInferRequest(model_name="words"), grpc.StatusCode.NOT_FOUND, "model_name"),
        (infer_request(RED, model_version="9"), grpc.StatusCode.NOT_FOUND, "model_version"),
        (oip.ModelInferRequest(model_name="colours"), grpc.StatusCode.INVALID_ARGUMENT, "inputs"),
        (changed(inputs=1), grpc.StatusCode.INVALID_ARGUMENT, "inputs"),
        (changed(name="input-0"), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0]"),
        (changed(datatype="FP32"), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0]"),
        (changed(shape=[2]), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(shape=[1, 2]), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(shape=[]), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(shape=[0]), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(shape=[-1]), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(raw=b""), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents"),
        (only_raw(b"\x01\0\0"), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents"),
        (only_raw(b"\x05\0\0\0abc"), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents"),
        (only_raw(b"\0\0\0\0" * 10**6), grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents"),
        (only_raw(b"\x01\0\0\0a", 2), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (changed(map="yes"), grpc.StatusCode.INVALID_ARGUMENT, "parameters[map]"),
        (changed(temperature="1"), grpc.StatusCode.INVALID_ARGUMENT, "parameters[temperature]"),
        (infer_request(RED, outputs=["scores"]), grpc.StatusCode.INVALID_ARGUMENT, "outputs"),
        (infer_request(*[RED] * 17), grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].shape"),
        (infer_request(RED, b"no picture"), grpc.StatusCode.INVALID_ARGUMENT, "image"),
        (infer_request(RED, plain((255, 255, 255))), grpc.StatusCode.INVALID_ARGUMENT, "image"),
        (infer_request(RED, id="x" * 129), grpc.StatusCode.INVALID_ARGUMENT, "request_id"),
    ],
)
async def test_right_codes_for_wrong_requests(
    caller: Caller, request_: oip.ModelInferRequest, code: grpc.StatusCode, field: str
) -> None:
    refused = await refusal(stub(caller).ModelInfer(request_))
    assert refused.code is code
    assert list(refused.fields) == [field]


async def test_a_method_that_the_model_lacks(caller: Caller) -> None:
    request = infer_request(RED, outputs=["map"])
    request.parameters["method"].string_param = "magic"
    assert (await refusal(stub(caller).ModelInfer(request))).fields.keys() == {"attribution.method"}
