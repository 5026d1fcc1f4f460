"""What is asked wrongly is refused over real gRPC, field by field, before any work is done for it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import grpc
import pytest

from saaa.v1 import analysis_pb2 as pb
from tests.serving.pixel_backend import QUICK, Caller, PixelBackend, Refusal, link, photo, refusal, thing


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


async def test_message_beyond_all_limits_is_refused_and_the_service_goes_on(caller: Caller) -> None:
    told = await refusal(caller.analyze(bytes(QUICK.max_message_bytes + 1)))
    assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await caller.analyze()).predictions


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
