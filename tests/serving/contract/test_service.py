"""The contract over real gRPC, in front of a backend of plain arithmetic."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import saaa
from saaa.errors import BackendFailed
from saaa.v1 import analysis_pb2 as pb
from saaa.work import CaptionOptions, ItemResult, Sampling, Work, WorkBatch
from serving.settings import FacadeSettings, LaneSettings
from tests.serving.pixel_backend import (
    CAPTIONER,
    CLASSIFIER,
    QUICK,
    Caller,
    PixelBackend,
    Refusal,
    calling,
    link,
    photo,
    plain,
    refusal,
    thing,
)


@pytest.fixture
def backend() -> PixelBackend:
    return PixelBackend()


@pytest.fixture
async def caller(backend: PixelBackend) -> AsyncIterator[Caller]:
    async with calling(backend) as caller:
        yield caller


GRAPH = pb.SceneGraph(objects=[thing(7, (20, 10, 20, 10), "bright", "square"), thing(9)], relationships=[link(3, 7, 9)])


async def test_answers_everything_with_a_graph(caller: Caller) -> None:
    image = photo()
    answer = await caller.analyze(image, graph=GRAPH, request_id="mine")
    assert answer.request_id == "mine"
    assert (answer.image_width, answer.image_height) == (80, 40)
    assert [prediction.label for prediction in answer.predictions] == ["red", "green", "blue"]
    assert sum(prediction.probability for prediction in answer.predictions) == pytest.approx(1, abs=1e-6)
    (attribution,) = answer.attributions
    assert attribution.target.class_prediction == answer.predictions[0]
    assert attribution.method == "brightness"
    assert (attribution.grid.height, attribution.grid.width, len(attribution.grid.values)) == (4, 4, 16)
    region = attribution.region
    assert (region.x, region.y, region.width, region.height) == (0, 0, 80, 40)
    names = [concept.node.name for concept in attribution.concepts]
    assert names == ["thing 7", "bright", "square", "thing 9", "near"]
    assert attribution.concepts[0].density > 2
    (caption,) = answer.captions
    assert caption.text == "nodes 5"
    assert [word.text for word in caption.words] == ["nodes", "5"]
    assert [node.name for node in answer.caption_nodes] == ["thing 7", "bright", "square", "thing 9", "near"]
    assert all(len(word.node_weights) == len(answer.caption_nodes) for word in caption.words)
    assert answer.graph == GRAPH
    assert answer.graph_source == pb.GRAPH_SOURCE_REQUEST
    provenance = answer.provenance
    assert provenance.image_sha256 == hashlib.sha256(image).hexdigest()
    assert (provenance.backend, provenance.software_version) == ("pixels", saaa.__version__)
    assert provenance.classifier.archive_sha256 == CLASSIFIER.digest
    assert provenance.classifier.parameters["method"] == "brightness"
    assert provenance.captioner.archive_sha256 == CAPTIONER.digest
    assert provenance.captioner.parameters["beam_width"] == "3"
    stages = {timing.stage: timing.milliseconds for timing in answer.timings}
    assert set(stages) == {"decode", "classify", "caption", "total"}
    assert stages["total"] >= stages["classify"] > 0


async def test_proposes_a_graph_without_one(caller: Caller, backend: PixelBackend) -> None:
    answer = await caller.analyze()
    assert answer.graph_source == pb.GRAPH_SOURCE_PROPOSED
    box = answer.graph.objects[0].box
    # The bright square covers 20..40 x 10..20.
    assert (box.x, box.y, box.width, box.height) == (20, 10, 20, 10)
    assert answer.captions[0].text == f"nodes {len(answer.caption_nodes)}"
    assert answer.attributions[0].concepts[0].node.name == answer.graph.objects[0].name
    assert "propose" in {timing.stage for timing in answer.timings}
    assert [batch.work for batch in backend.batches] == [Work.EXPLAIN, Work.CAPTION]


async def test_boxes_reach_the_captioner_in_pixels_of_its_input(caller: Caller, backend: PixelBackend) -> None:
    await caller.analyze(graph=GRAPH, outputs=[pb.OUTPUT_CAPTIONS])
    (batch,) = backend.batches
    graph = batch.items[0].graph
    assert graph is not None
    np.testing.assert_allclose(graph.boxes[0], [4, 4, 8, 8])


@pytest.mark.parametrize(
    ("outputs", "works", "shown"),
    [
        ([pb.OUTPUT_PREDICTIONS], [Work.PREDICT], (3, 0, 0, False)),
        ([pb.OUTPUT_ATTRIBUTIONS], [Work.EXPLAIN], (0, 1, 0, True)),
        ([pb.OUTPUT_CAPTIONS], [Work.EXPLAIN, Work.CAPTION], (0, 0, 1, True)),
        ([pb.OUTPUT_UNSPECIFIED], [Work.EXPLAIN, Work.CAPTION], (3, 1, 1, True)),
    ],
)
async def test_only_what_is_asked_for(
    caller: Caller,
    backend: PixelBackend,
    outputs: list[int],
    works: list[Work],
    shown: tuple[int, int, int, bool],
) -> None:
    answer = await caller.analyze(outputs=outputs)
    assert [batch.work for batch in backend.batches] == works
    counts = len(answer.predictions), len(answer.attributions), len(answer.captions), answer.HasField("graph")
    assert counts == shown
    assert answer.provenance.HasField("captioner") == bool(answer.captions)


async def test_options_are_followed(caller: Caller, backend: PixelBackend) -> None:
    answer = await caller.analyze(
        graph=GRAPH,
        top_k=2,
        attribution=pb.AttributionOptions(method="integrated_gradients", classes=["blue", "1"], steps=5),
        caption=pb.CaptionOptions(beam_width=4, count=2, max_words=1),
        classifier=pb.ModelSelector(name="colours"),
        captioner=pb.ModelSelector(name="words", version="2"),
    )
    assert len(answer.predictions) == 2
    assert [entry.target.class_prediction.label for entry in answer.attributions] == ["blue", "green"]
    (faith,) = answer.attributions[0].faithfulness
    assert (faith.measure, faith.value) == (pb.FAITHFULNESS_MEASURE_COMPLETENESS_GAP, pytest.approx(0.01))
    assert dict(answer.provenance.classifier.parameters) == {"method": "integrated_gradients", "steps": "5"}
    assert [caption.text for caption in answer.captions] == ["nodes", "nodes"]
    explain = next(batch for batch in backend.batches if batch.work is Work.EXPLAIN)
    assert explain.explain.steps == 5
    assert explain.items[0].targets == (2, 1)


async def test_captions_are_drawn_when_asked_for(caller: Caller, backend: PixelBackend) -> None:
    answer = await caller.analyze(
        graph=GRAPH,
        outputs=[pb.OUTPUT_CAPTIONS],
        caption=pb.CaptionOptions(count=10, length_penalty=0.5, sampling=pb.Sampling(temperature=0.5, seed=2**64 - 1)),
    )
    (batch,) = backend.batches
    sampling = Sampling(temperature=0.5, seed=2**64 - 1)
    assert batch.caption == CaptionOptions(count=10, length_penalty=0.5, sampling=sampling)
    assert dict(answer.provenance.captioner.parameters) == {
        "temperature": "0.5",
        "top_p": "1.0",
        "seed": str(2**64 - 1),
        "length_penalty": "0.5",
        "count": "10",
        "max_words": "12",
        "max_nodes": "5",
    }


async def test_a_graph_beyond_the_captioner_is_refused_unless_no_caption_is_wanted(
    caller: Caller, backend: PixelBackend
) -> None:
    graph = pb.SceneGraph(objects=[thing(number) for number in range(6)])
    told = await refusal(caller.analyze(graph=graph))
    assert (told.code, set(told.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"graph"})
    assert "6 nodes" in told.fields["graph"]
    assert "at most 5" in told.fields["graph"]
    assert backend.batches == []
    answer = await caller.analyze(graph=graph, outputs=[pb.OUTPUT_ATTRIBUTIONS])
    assert len(answer.attributions[0].concepts) == 6


async def test_makes_a_request_id_when_none_is_given(caller: Caller) -> None:
    first, second = await asyncio.gather(caller.analyze(), caller.analyze())
    assert first.request_id
    assert first.request_id != second.request_id


def _graph(**changes: Any) -> dict[str, Any]:
    return {"graph": pb.SceneGraph(**{"objects": [thing(1), thing(2)], **changes})}


BAD = {
    "no image": ({"image": b""}, {"image"}),
    "no picture": ({"image": b"definitely not a picture"}, {"image"}),
    "cut off": ({"image": photo()[:-40]}, {"image"}),
    "text after PNG magic": ({"image": photo()[:8] + b"hello" * 20}, {"image"}),
    "too many bytes": ({"image": bytes(21 * 2**20)}, {"image"}),
    "top_k zero": ({"top_k": 0}, {"top_k"}),
    "top_k huge": ({"top_k": 5000}, {"top_k"}),
    "unknown output": ({"outputs": [77]}, {"outputs[0]"}),
    "unknown method": ({"attribution": pb.AttributionOptions(method="astrology")}, {"attribution.method"}),
    "unknown class": (
        {"attribution": pb.AttributionOptions(classes=["red", "puce", "3", "-1"])},
        {"attribution.classes[1]", "attribution.classes[2]", "attribution.classes[3]"},
    ),
    "too many classes": ({"attribution": pb.AttributionOptions(classes=["0"] * 17)}, {"attribution"}),
    "no steps": ({"attribution": pb.AttributionOptions(steps=0)}, {"attribution.steps"}),
    "too many steps": ({"attribution": pb.AttributionOptions(steps=65)}, {"attribution.steps"}),
    "no beam": ({"caption": pb.CaptionOptions(beam_width=0)}, {"caption.beam_width"}),
    "wide beam": ({"caption": pb.CaptionOptions(beam_width=11)}, {"caption.beam_width"}),
    "more captions than beams": ({"caption": pb.CaptionOptions(beam_width=2, count=3)}, {"caption.count"}),
    "no captions": ({"caption": pb.CaptionOptions(count=0)}, {"caption.count"}),
    "beam of drawn captions": (
        {"caption": pb.CaptionOptions(beam_width=2, sampling=pb.Sampling())},
        {"caption.beam_width"},
    ),
    "too many drawn captions": ({"caption": pb.CaptionOptions(count=11, sampling=pb.Sampling())}, {"caption.count"}),
    "drawn from nothing": (
        {"caption": pb.CaptionOptions(sampling=pb.Sampling(temperature=0, top_k=0, top_p=0))},
        {"caption.sampling.temperature", "caption.sampling.top_k", "caption.sampling.top_p"},
    ),
    "sampling that is no number": (
        {"caption": pb.CaptionOptions(sampling=pb.Sampling(temperature=math.nan, top_p=math.inf))},
        {"caption.sampling.temperature", "caption.sampling.top_p"},
    ),
    "length penalty": ({"caption": pb.CaptionOptions(length_penalty=-1)}, {"caption.length_penalty"}),
    "no words": ({"caption": pb.CaptionOptions(max_words=0)}, {"caption.max_words"}),
    "many words": ({"caption": pb.CaptionOptions(max_words=51)}, {"caption.max_words"}),
    "long request id": ({"request_id": "x" * 129}, {"request_id"}),
    "odd request id": ({"request_id": "a\nb"}, {"request_id"}),
    "selector without a name": ({"classifier": pb.ModelSelector(version="1")}, {"classifier.name"}),
    "empty graph": ({"graph": pb.SceneGraph()}, {"graph.objects"}),
    "box missing": (_graph(objects=[pb.SceneObject(id=1, name="x")]), {"graph.objects[0].box"}),
    "boxes outside": (
        _graph(objects=[thing(1), thing(2, (70, 0, 11, 5)), thing(3, (0, 39, 5, 2))]),
        {"graph.objects[1].box.width", "graph.objects[2].box.height"},
    ),
    "box empty": (_graph(objects=[thing(1), thing(2, (0, 0, 0, 5))]), {"graph.objects[1].box.width"}),
    "box negative": (_graph(objects=[thing(1, (-1, 0, 4, 5))]), {"graph.objects[0].box.x"}),
    "name empty": (
        _graph(objects=[pb.SceneObject(id=1, box=pb.Box(width=1, height=1))]),
        {"graph.objects[0].name"},
    ),
    "attribute empty": (_graph(objects=[thing(1, (0, 0, 5, 5), "")]), {"graph.objects[0].attributes[0]"}),
    "ids twice": (_graph(objects=[thing(1), thing(1)]), {"graph.objects[1].id"}),
    "dangling": (_graph(relationships=[link(1, 1, 5)]), {"graph.relationships[0].object_id"}),
    "to itself": (_graph(relationships=[link(1, 1, 1)]), {"graph.relationships[0].object_id"}),
    "too many nodes": (_graph(objects=[thing(number) for number in range(101)]), {"graph"}),
    "several at once": (
        {
            "image": b"",
            "top_k": 0,
            "attribution": pb.AttributionOptions(method="astrology", steps=99),
            **_graph(objects=[thing(1, (-1, 0, 4, 5)), thing(2, (0, 0, 5, 0))]),
        },
        {
            "image",
            "top_k",
            "attribution.method",
            "attribution.steps",
            "graph.objects[0].box.x",
            "graph.objects[1].box.height",
        },
    ),
    "options and an unknown model": (
        {"top_k": 0, "classifier": pb.ModelSelector(name="nobody")},
        {"top_k", "classifier.name"},
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_told_field_by_field(caller: Caller, backend: PixelBackend, case: str) -> None:
    fields, expected = BAD[case]
    told = await refusal(caller.analyze(**fields))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(told.fields) == expected
    assert told.reason in {"IMAGE_REJECTED", "SCENE_GRAPH_ERROR", "OPTION_INVALID", "REQUEST_INVALID"}
    assert all(len(description) > 10 for description in told.fields.values())
    assert backend.batches == []


UNKNOWN = {
    "classifier": ({"classifier": pb.ModelSelector(name="nobody")}, "classifier.name"),
    "kind": ({"classifier": pb.ModelSelector(name="words")}, "classifier.name"),
    "captioner": ({"captioner": pb.ModelSelector(name="nobody")}, "captioner.name"),
    "version": ({"captioner": pb.ModelSelector(name="words", version="9")}, "captioner.version"),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_unknown_model_is_not_found(caller: Caller, case: str) -> None:
    fields, expected = UNKNOWN[case]
    told = await refusal(caller.analyze(**fields))
    assert (told.code, told.reason, set(told.fields)) == (
        grpc.StatusCode.NOT_FOUND,
        "MODEL_NOT_FOUND",
        {expected},
    )


async def test_one_bad_image_leaves_the_others_of_its_batch_alone(caller: Caller, backend: PixelBackend) -> None:
    backend.seconds = 0.1
    white = plain((255, 255, 255))
    outputs = [pb.OUTPUT_PREDICTIONS]
    calls = [caller.analyze(image, outputs=outputs) for image in [photo(), photo(), photo(), white, photo((0, 0, 250))]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    told = Refusal(results.pop(3))
    assert (told.code, told.reason, set(told.fields)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REJECTED",
        {"image"},
    )
    assert [answer.predictions[0].label for answer in results] == ["red", "red", "red", "blue"]


async def test_no_captioner_means_no_captions_unless_asked_for() -> None:
    async with calling(PixelBackend(CLASSIFIER)) as caller:
        answer = await caller.analyze()
        assert answer.predictions
        assert not answer.captions
        assert answer.graph_source == pb.GRAPH_SOURCE_PROPOSED
        told = await refusal(caller.analyze(outputs=[pb.OUTPUT_CAPTIONS]))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.NOT_FOUND, {"outputs"})


async def test_captioner_alone_needs_a_graph() -> None:
    async with calling(PixelBackend(CAPTIONER)) as caller:
        answer = await caller.analyze(graph=GRAPH)
        assert answer.captions
        assert not answer.predictions
        told = await refusal(caller.analyze())
        assert (told.code, set(told.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"graph"})
        told = await refusal(caller.analyze(graph=GRAPH, outputs=[pb.OUTPUT_PREDICTIONS]))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.NOT_FOUND, {"outputs"})


async def test_lists_and_describes_models(caller: Caller) -> None:
    models = (await caller.stub.ListModels(pb.ListModelsRequest())).models
    assert [(model.name, model.version, model.ready) for model in models] == [
        ("colours", "1", True),
        ("words", "2", True),
    ]
    model = (await caller.stub.GetModel(pb.GetModelRequest(name="colours"))).model
    assert model == models[0]
    assert list(model.classes) == ["red", "green", "blue"]
    assert model.attribution_methods[0].name == "brightness"
    assert model.limits.max_graph_nodes == 100
    assert [model.max_nodes for model in models] == [0, 5]
    assert model.card_json == CLASSIFIER.card_json
    for request, field in (
        (pb.GetModelRequest(name="nobody"), "name"),
        (pb.GetModelRequest(), "name"),
        (pb.GetModelRequest(name="words", version="1"), "version"),
    ):
        told = await refusal(caller.stub.GetModel(request))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.NOT_FOUND, {field})


async def test_full_lane_says_when_to_come_back() -> None:
    backend = PixelBackend(CLASSIFIER)
    backend.seconds = 0.4
    lane = LaneSettings(max_batch=1, first_estimate_s=0.4)
    async with calling(backend, FacadeSettings(port=0, predict=lane)) as caller:
        outputs = [pb.OUTPUT_PREDICTIONS]
        running = [asyncio.create_task(caller.analyze(outputs=outputs)) for _ in range(4)]
        await asyncio.sleep(0.2)
        told = await refusal(caller.analyze(outputs=outputs, timeout=0.8))
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LANE_FULL")
        assert told.retry_s is not None
        assert 0 < told.retry_s < 3
        await asyncio.gather(*running)


class Held(PixelBackend):
    """Explains nothing until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        if batch.work is Work.EXPLAIN:
            await self.open.wait()
        return await super().run(batch, timeout=timeout)


async def test_slow_explanations_do_not_starve_predictions() -> None:
    backend = Held()
    async with calling(backend) as caller:
        explains = [asyncio.create_task(caller.analyze(outputs=[pb.OUTPUT_ATTRIBUTIONS])) for _ in range(12)]
        while not caller.facade.analysis.lanes[Work.EXPLAIN].in_flight:
            await asyncio.sleep(0.005)
        await caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS])
        assert not any(task.done() for task in explains)
        backend.open.set()
        await asyncio.gather(*explains)


async def test_deadline_of_the_service_ends_a_call_without_one(backend: PixelBackend) -> None:
    async with calling(backend, default_deadline_s=0.2) as caller:
        backend.seconds = 1.0
        told = await refusal(caller.stub.Analyze(pb.AnalyzeRequest(image=photo())))
        assert (told.code, told.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_unforeseen_failure_is_opaque(
    caller: Caller, backend: PixelBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.broken = ValueError("the secret path /home/someone")
    told = await refusal(caller.analyze())
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in told.text
    assert told.incident in told.text
    assert told.incident in caplog.text
    assert "the secret path" in caplog.text


async def test_backend_failure_is_internal(caller: Caller, backend: PixelBackend) -> None:
    backend.broken = BackendFailed("the handler failed")
    told = await refusal(caller.analyze())
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "BACKEND_FAILED")


async def test_message_beyond_all_limits_is_refused_and_the_service_goes_on(caller: Caller) -> None:
    told = await refusal(caller.analyze(bytes(QUICK.max_message_bytes + 1)))
    assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await caller.analyze()).predictions


async def test_work_of_callers_who_left_is_not_computed() -> None:
    backend = PixelBackend(CLASSIFIER)
    backend.seconds = 0.5
    outputs = [pb.OUTPUT_PREDICTIONS]
    one_by_one = LaneSettings(max_batch=1, first_estimate_s=0.01)
    async with calling(backend, FacadeSettings(port=0, predict=one_by_one)) as caller:
        running = asyncio.create_task(caller.analyze(outputs=outputs))
        while not backend.batches:
            await asyncio.sleep(0.01)
        impatient = await asyncio.gather(
            *(caller.analyze(outputs=outputs, timeout=0.3) for _ in range(24)), return_exceptions=True
        )
        assert all(isinstance(result, grpc.aio.AioRpcError) for result in impatient)
        await running
        backend.seconds = 0.0
        await caller.analyze(outputs=outputs)
        assert len(backend.batches) == 2


async def test_no_bad_picture_is_an_accident(caller: Caller, shared_data: Path) -> None:
    folder = shared_data / "bad-images"
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    outputs = [pb.OUTPUT_PREDICTIONS]
    for row in rows:
        image = (folder / row["file"]).read_bytes()
        try:
            await caller.analyze(image, outputs=outputs, timeout=60)
            answered = True
        except grpc.aio.AioRpcError as error:
            told = Refusal(error)
            assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_REJECTED"), row
            assert set(told.fields) == {"image"}
            answered = False
        assert not (answered and row["expected"] == "rejected"), row


async def test_cropping_model_keeps_image_coordinates() -> None:
    models = (replace(CLASSIFIER, resize="crop"), replace(CAPTIONER, resize="crop"))
    backend = PixelBackend(*models)
    inside, outside = thing(1, (20, 0, 20, 20)), thing(2, (70, 0, 10, 10))
    async with calling(backend) as caller:
        answer = await caller.analyze(graph=pb.SceneGraph(objects=[inside, outside]))
    region = answer.attributions[0].region
    # The middle square of 80 x 40.
    assert (region.x, region.y, region.width, region.height) == (20, 0, 40, 40)
    assert answer.attributions[0].concepts[1].mass == 0
    graph = next(batch for batch in backend.batches if batch.work is Work.CAPTION).items[0].graph
    assert graph is not None
    np.testing.assert_allclose(graph.boxes, [[0, 0, 8, 8], [16, 0, 16, 4]])
