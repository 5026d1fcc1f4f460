"""The Open Inference Protocol, version 2, in front of the classifiers: for clients that know no other."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np

import saaa
from saaa.errors import OptionInvalid
from saaa.work import AUTO_METHOD, ExplainOptions, ModelInfo, ModelKind
from serving.analysis.analysis import Analysis
from serving.contract.oip import open_inference_pb2 as oip
from serving.contract.oip import open_inference_pb2_grpc
from serving.interceptors.base import current_call
from serving.models.catalog import Catalog
from serving.requests import AnalysisRequest, AnalysisResult, Output, Prediction, Selector
from serving.settings import FacadeSettings
from serving.violations import Violations

INFERENCE_NAME: str = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
"""The service's full name, as health and reflection know it."""

IMAGE, PROBABILITIES, LABELS, MAP = "image", "probabilities", "labels", "map"
"""The tensors."""
_OUTPUTS = (PROBABILITIES, LABELS, MAP)
_PARAMETERS = {"map": "bool_param", "method": "string_param", "class": "string_param"}

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The protocol's methods.

    Args:
        analysis: answers requests.
        catalog: the served models.
        settings: limits and deadlines.
    """

    def __init__(self, analysis: Analysis, catalog: Catalog, settings: FacadeSettings) -> None:
        self._analysis = analysis
        self._catalog = catalog
        self._settings = settings

    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:  # noqa: N802
        """Whether the service is there."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:  # noqa: N802
        """Whether every served model can answer."""
        models = self._catalog.models
        return oip.ServerReadyResponse(ready=bool(models) and all(map(self._catalog.is_ready, models)))

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:  # noqa: N802
        """Whether one model can answer."""
        if not self._catalog.known:
            return oip.ModelReadyResponse(ready=False)
        info = self._catalog.find(request.name, request.version)
        return oip.ModelReadyResponse(ready=self._catalog.is_ready(info))

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """What the server is."""
        return oip.ServerMetadataResponse(name="saaa", version=saaa.__version__)

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """One model's tensors."""
        self._catalog.require_known()
        info = self._catalog.find(request.name, request.version)
        answer = oip.ModelMetadataResponse(
            name=info.name,
            versions=[other.version for other in self._catalog.models if other.name == info.name],
            platform=f"saaa_{info.kind.name.lower()}",
            properties={
                "version": info.version,
                "archive_sha256": info.digest,
                "input_size": str(info.input_size),
            },
        )
        if info.kind is ModelKind.EGDD:
            answer.properties["classes"] = json.dumps(info.classes, ensure_ascii=False)
            answer.inputs.add(name=IMAGE, datatype="BYTES", shape=[-1])
            answer.outputs.add(name=PROBABILITIES, datatype="FP32", shape=[-1, len(info.classes)])
            answer.outputs.add(name=LABELS, datatype="BYTES", shape=[-1])
            answer.outputs.add(name=MAP, datatype="FP32", shape=[-1, -1])
        return answer

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:  # noqa: N802
        """What a classifier says of images; the images of one request are answered together or not at all."""
        self._catalog.require_known()
        question = _read(request, self._catalog, self._settings)
        call = current_call()
        asked = AnalysisRequest(
            image=b"",
            outputs=frozenset({Output.PREDICTIONS, Output.ATTRIBUTIONS} if question.map else {Output.PREDICTIONS}),
            top_k=None,
            explain=ExplainOptions(method=question.method),
            classes=(question.target,) if question.target else (),
            classifier=Selector(name=question.info.name, version=question.info.version),
            request_id=request.id or (call.request_id if call else ""),
        )
        timeout = self._settings.timeout(context.time_remaining())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._analysis.analyze(replace(asked, image=image), timeout))
                    for image in question.images
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return _write(request, question, [task.result() for task in tasks])


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What a request asks for."""

    info: ModelInfo
    images: tuple[bytes, ...]
    outputs: tuple[str, ...]
    method: str = AUTO_METHOD
    target: str = ""
    """The class to explain; empty is the most probable one."""

    @property
    def map(self) -> bool:
        return MAP in self.outputs


def _read(request: oip.ModelInferRequest, catalog: Catalog, settings: FacadeSettings) -> _Question:
    """Raises `SaaaError` with everything that is wrong with the request's form."""
    info = catalog.find(
        request.model_name, request.model_version, kind=ModelKind.EGDD, field="model_name", request_id=request.id
    )
    violations = Violations()
    parameters: dict[str, Any] = {}
    for name, value in request.parameters.items():
        kind = _PARAMETERS.get(name)
        violations.check(
            kind is not None and value.WhichOneof("parameter_choice") == kind,
            f"parameters[{name}]",
            "The parameters are map (bool), method and class (strings).",
        )
        parameters[name] = getattr(value, kind or "string_param")
    wanted = tuple(dict.fromkeys(output.name for output in request.outputs))
    for name in wanted:
        violations.check(name in _OUTPUTS, "outputs", f"There is no output {name!a}; use {', '.join(_OUTPUTS)}.")
    if not wanted:
        wanted = _OUTPUTS if parameters.get("map") else _OUTPUTS[:2]
    elif parameters.get("map") and MAP not in wanted:
        wanted = (*wanted, MAP)
    images: tuple[bytes, ...] = ()
    with violations.catch():
        images = _read_images(request)
    most = settings.limits.max_stream_in_flight
    violations.check(
        len(images) <= most, "inputs[0].shape", f"There are {len(images)} images, at most {most} are taken at once."
    )
    violations.raise_any()
    return _Question(
        info=info,
        images=images,
        outputs=wanted,
        method=parameters.get("method") or AUTO_METHOD,
        target=parameters.get("class", ""),
    )


def _read_images(request: oip.ModelInferRequest) -> tuple[bytes, ...]:
    """The images of the one input.

    Raises:
        OptionInvalid: the input is not as `ModelMetadata` says.
    """
    if len(request.inputs) != 1:
        raise OptionInvalid(f"Send one input, {IMAGE}; there are {len(request.inputs)}.", field="inputs")
    (given,) = request.inputs
    if (given.name, given.datatype) != (IMAGE, "BYTES"):
        text = f"The input is {IMAGE} of type BYTES: the content of an image file in each element."
        raise OptionInvalid(text, field="inputs[0]")
    shape = tuple(given.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or shape[0] < 1:
        raise OptionInvalid("The shape is [N] or [N, 1], with N at least 1.", field="inputs[0].shape")
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or given.HasField("contents"):
            text = "Send one raw content for the one input, or the input's own contents; not both."
            raise OptionInvalid(text, field="raw_input_contents")
        images = _split(request.raw_input_contents[0], shape[0])
    else:
        images = tuple(given.contents.bytes_contents)
    if len(images) != math.prod(shape):
        raise OptionInvalid(f"The shape says {shape[0]} images, {len(images)} came.", field="inputs[0].shape")
    return images


def _split(raw: bytes, count: int) -> tuple[bytes, ...]:
    """The elements of raw BYTES, each with its length before it; no more than one above `count` is looked at."""
    elements: list[bytes] = []
    place = 0
    while place < len(raw) and len(elements) <= count:
        if place + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, place)
        elements.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    if place != len(raw):
        text = "Each element is its length in 4 bytes, little-endian, and then so many bytes."
        raise OptionInvalid(text, field="raw_input_contents")
    return tuple(elements)


def _write(
    request: oip.ModelInferRequest, question: _Question, results: list[AnalysisResult]
) -> oip.ModelInferResponse:
    info = question.info
    answer = oip.ModelInferResponse(model_name=info.name, model_version=info.version, id=request.id)
    answer.parameters["archive_sha256"].string_param = info.digest
    raw = bool(request.raw_input_contents)
    for name in question.outputs:
        output = answer.outputs.add(name=name, datatype="BYTES" if name == LABELS else "FP32")
        if name == LABELS:
            labels = [result.predictions[0].label.encode() for result in results]
            output.shape.append(len(labels))
            if raw:
                answer.raw_output_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in labels))
            else:
                output.contents.bytes_contents.extend(labels)
            continue
        if name == PROBABILITIES:
            values = np.zeros((len(results), len(info.classes)), "<f4")
            for row, result in zip(values, results, strict=True):
                for prediction in result.predictions:
                    row[prediction.index] = prediction.probability
        else:
            values = _maps(answer, output, results)
        output.shape.extend(values.shape)
        if raw:
            answer.raw_output_contents.append(values.tobytes())
        else:
            output.contents.fp32_contents.extend(values.ravel().tolist())
    return answer


def _maps(answer: oip.ModelInferResponse, output: Any, results: list[AnalysisResult]) -> np.ndarray[Any, Any]:
    """(H, W) of one image, (N, H, W) of several; which class and which part of the image go with the output."""
    maps = [result.attributions[0] for result in results]
    answer.parameters["method"].string_param = maps[0].map.method
    labels = [made.target.label for made in maps if isinstance(made.target, Prediction)]
    output.parameters["classes"].string_param = json.dumps(labels, ensure_ascii=False)
    output.parameters["regions"].string_param = json.dumps([made.region for made in maps])
    values = np.stack([made.map.values for made in maps]).astype("<f4")
    return values[0] if len(maps) == 1 else values
