"""A small real gRPC server whose answers the tests choose."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import analysis_pb2_grpc

SERVICE = "saaa.v1.AnalysisService"
ACCEPTED = ("accepted", "1")


@dataclass
class Service(analysis_pb2_grpc.AnalysisServiceServicer):
    """Answers every call with `response`, or refuses with `code`, `message` and `details`.

    The first calls fail with `failures`, one each. Items of a stream are answered two by two, the second first; one
    whose image is b"bad" with an error.
    """

    response: pb.AnalyzeResponse = field(default_factory=pb.AnalyzeResponse)
    listing: list[pb.Model] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    message: str = ""
    details: list[Any] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    time_remaining: list[float] = field(default_factory=list)
    failures: list[grpc.StatusCode] = field(default_factory=list)
    trailing: tuple[tuple[str, str], ...] = ()
    uploads: list[tuple[pb.UploadHeader, list[bytes]]] = field(default_factory=list)

    def _receive(self, request: Any, context: grpc.ServicerContext) -> None:
        self._note(request, context)
        self._let_in(context)

    def _note(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.time_remaining.append(context.time_remaining())

    def _let_in(self, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(self.trailing)
        if self.failures:
            context.abort(self.failures.pop(0), "not now")
        if self.code is None:
            return
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))

    def Analyze(self, request: Any, context: grpc.ServicerContext) -> pb.AnalyzeResponse:  # noqa: N802
        self._receive(request, context)
        return self.response

    def AnalyzeStream(self, requests: Any, context: grpc.ServicerContext) -> Iterator[pb.AnalyzeStreamResponse]:  # noqa: N802
        self._let_in(context)
        context.send_initial_metadata((ACCEPTED,))
        held = None
        for item in requests:
            self._note(item, context)
            answer = pb.AnalyzeStreamResponse(item_id=item.item_id)
            if item.request.image == b"bad":
                answer.error.code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
                answer.error.message = "no picture"
                answer.error.details.add().Pack(error_details_pb2.ErrorInfo(reason="IMAGE_REJECTED", domain="saaa"))
            else:
                answer.response.request_id = item.request.image.decode()
            if held is None:
                held = answer
            else:
                yield answer
                yield held
                held = None
        if held is not None:
            yield held

    def AnalyzeUpload(self, requests: Any, context: grpc.ServicerContext) -> pb.AnalyzeUploadResponse:  # noqa: N802
        first = next(requests)
        self._receive(first, context)
        context.send_initial_metadata((ACCEPTED,))
        self.uploads.append((first.header, [piece.chunk for piece in requests]))
        return pb.AnalyzeUploadResponse(response=self.response)

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> pb.ListModelsResponse:  # noqa: N802
        self._receive(request, context)
        return pb.ListModelsResponse(models=self.listing)

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> pb.GetModelResponse:  # noqa: N802
        self._receive(request, context)
        return pb.GetModelResponse(model=self.listing[0])


@dataclass
class Server:
    address: str
    service: Service
    health: health.HealthServicer

    def set_health(self, status: str) -> None:
        self.health.set(SERVICE, health_pb2.HealthCheckResponse.ServingStatus.Value(status))


@pytest.fixture
def server() -> Iterator[Server]:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    grpc_server = grpc.server(futures.ThreadPoolExecutor(4), options=limits)
    service, checks = Service(), health.HealthServicer()
    analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(service, grpc_server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    yield Server(f"127.0.0.1:{port}", service, checks)
    grpc_server.stop(None).wait()


@pytest.fixture
def response() -> pb.AnalyzeResponse:
    """A full answer: two predictions, a 2 x 3 map, a caption of two words over three nodes."""
    lamp = pb.GraphNode(kind=pb.NODE_KIND_OBJECT, id=7, name="lamp")
    red = pb.GraphNode(kind=pb.NODE_KIND_ATTRIBUTE, id=7, attribute_index=0, name="red")
    on = pb.GraphNode(kind=pb.NODE_KIND_RELATIONSHIP, id=1, name="on")
    kitchen = pb.Prediction(label="kitchen", index=3, probability=0.75)
    return pb.AnalyzeResponse(
        request_id="r-1",
        image_width=640,
        image_height=480,
        predictions=[kitchen, pb.Prediction(label="bedroom", index=0, probability=0.1)],
        attributions=[
            pb.Attribution(
                target=pb.AttributionTarget(class_prediction=kitchen),
                method="gradcam",
                grid=pb.Grid(height=2, width=3, values=[0, 0.1, 0.2, 0.3, 0.4, 0.5]),
                region=pb.Region(x=80, y=0, width=480, height=480),
                concepts=[
                    pb.ConceptAttribution(
                        node=lamp,
                        mass=0.25,
                        density=2.5,
                        effect=1.5,
                        effect_definition="shapley",
                        score=0.75,
                        score_definition=pb.SCORE_DEFINITION_EFFECT_SHARE,
                    ),
                    pb.ConceptAttribution(
                        node=on,
                        score_definition=pb.SCORE_DEFINITION_DENSITY_SHARE,
                        gap_mass=0.125,
                        weaker_mass=0,
                    ),
                ],
                faithfulness=[pb.Faithfulness(measure=pb.FAITHFULNESS_MEASURE_DELETION_DROP, value=0.1)],
                concept_agreement=-0.5,
            ),
            pb.Attribution(
                target=pb.AttributionTarget(word=pb.WordTarget(index=1, text="lamp")),
                method="attention",
                grid=pb.Grid(height=1, width=1, values=[1]),
                region=pb.Region(width=640, height=480),
                node_weights=[0.9, 0.1, 0],
                faithfulness=[pb.Faithfulness(measure=pb.FAITHFULNESS_MEASURE_NOT_COMPUTED)],
            ),
            pb.Attribution(
                target=pb.AttributionTarget(node=red),
                method="attention",
                grid=pb.Grid(height=1, width=1, values=[1]),
                region=pb.Region(width=640, height=480),
                node_weights=[0, 1, 0],
                faithfulness=[pb.Faithfulness(measure=pb.FAITHFULNESS_MEASURE_NOT_COMPUTED)],
            ),
        ],
        captions=[
            pb.Caption(
                text="red lamp",
                words=[
                    pb.CaptionWord(text="red", log_probability=-0.5, node_weights=[0.25, 0.5, 0.25]),
                    pb.CaptionWord(text="lamp", log_probability=-0.25, node_weights=[0.9, 0.1, 0.0]),
                ],
                log_probability=-1.0,
            )
        ],
        caption_nodes=[lamp, red, on],
        graph=pb.SceneGraph(
            objects=[
                pb.SceneObject(id=7, name="lamp", attributes=["red"], box=pb.Box(x=1, y=2, width=30, height=40)),
                pb.SceneObject(id=9, name="table", box=pb.Box(x=0, y=100, width=300, height=200)),
            ],
            relationships=[pb.Relationship(id=1, subject_id=7, object_id=9, name="on")],
        ),
        graph_source=pb.GRAPH_SOURCE_REQUEST,
        provenance=pb.Provenance(
            classifier=pb.ModelProvenance(
                name="scenes", version="1.0", archive_sha256="ab" * 32, parameters={"steps": "16"}
            ),
            image_sha256="cd" * 32,
            software_version="0.1.0",
            backend="torchserve",
        ),
        timings=[
            pb.StageTiming(stage="decode", milliseconds=1.5),
            pb.StageTiming(stage="total", milliseconds=9),
        ],
    )
