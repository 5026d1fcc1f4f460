"""The contract over real gRPC, in front of a backend of plain arithmetic."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import grpc
import numpy as np
import pytest

import saaa
from saaa.v1 import analysis_pb2 as pb
from saaa.work import CaptionOptions, Sampling, Work
from tests.serving.pixel_backend import (
    CAPTIONER,
    CLASSIFIER,
    Caller,
    PixelBackend,
    calling,
    link,
    photo,
    refusal,
    thing,
)

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


async def test_makes_a_request_id_when_none_is_given(caller: Caller) -> None:
    first, second = await asyncio.gather(caller.analyze(), caller.analyze())
    assert first.request_id
    assert first.request_id != second.request_id


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
