"""Ratings over real gRPC: what is asked, answered, kept and refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import math
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.annotations import read_answers
from saaa.client import AsyncClient, Client, RelevanceRating, RpcFailed
from saaa.errors import InvalidInput
from saaa.scene_graph import SceneGraph
from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2 as feedback
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub
from serving.contract.rating_requests import read_rating
from serving.ratings.export import export_file, export_ratings, read_ratings
from serving.requests import RequestInvalid
from serving.settings import RequestLimits
from tests.serving.backends.test_health import health
from tests.serving.pixel_backend import CLASSIFIER, Caller, PixelBackend, calling, link, photo, refusal, thing

NAME = "saaa.v1.FeedbackService"
DIGEST = "ab" * 32
GRAPH = pb.SceneGraph(objects=[thing(7, (20, 10, 20, 10), "bright"), thing(9)], relationships=[link(3, 7, 9)])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "ratings.db"


@pytest.fixture
async def caller(store: Path) -> AsyncIterator[Caller]:
    async with calling(PixelBackend(), ratings=store) as caller:
        yield caller


def model(**changes: Any) -> pb.ModelProvenance:
    return pb.ModelProvenance(**{"name": "m", "version": "1", "archive_sha256": DIGEST, **changes})


def attribution(target: pb.AttributionTarget | None = None, **changes: Any) -> pb.Attribution:
    if target is None:
        target = pb.AttributionTarget(class_prediction=pb.Prediction(label="red", index=0, probability=0.75))
    fields = {
        "target": target,
        "method": "brightness",
        "grid": pb.Grid(height=1, width=2, values=[0.1, -2]),
        "region": pb.Region(width=80, height=40),
    }
    return pb.Attribution(**{**fields, **changes})


def request(request_id: str = "one", **changes: Any) -> feedback.RecordRatingRequest:
    """A valid rating; `about__provenance__...` and the like reach into it."""
    about = feedback.RatedAnalysis(
        provenance=pb.Provenance(classifier=model(), captioner=model(), image_sha256=DIGEST),
        image_width=80,
        image_height=40,
        attribution=attribution(),
        graph=GRAPH,
        graph_source=pb.GRAPH_SOURCE_REQUEST,
        caption="a red thing",
    )
    message = feedback.RecordRatingRequest(
        request_id=request_id,
        about=about,
        relevance=feedback.RelevanceRating(
            content_type=pb.NODE_KIND_OBJECT, content_description="a lamp", relevance=4.5
        ),
    )
    for path, value in changes.items():
        *holders, name = path.split("__")
        inner = message
        for holder in holders:
            inner = getattr(inner, holder)
        if value is None:
            inner.ClearField(name)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(inner, name).CopyFrom(value)
        else:
            setattr(inner, name, value)
    return message


async def record(caller: Caller, message: feedback.RecordRatingRequest) -> feedback.RecordRatingResponse:
    return await FeedbackServiceStub(caller.channel).RecordRating(message, timeout=20)


async def test_what_analyze_answered_and_a_person_said_is_kept(caller: Caller, store: Path, tmp_path: Path) -> None:
    image = photo()
    region = {
        "objects": [{"object_id": 1, "name": "<b>lamp</b>", "attributes": ["réd"], "x": 2, "y": 3, "w": 4, "h": 5}],
        "relationships": [],
    }
    async with AsyncClient(caller.facade.address) as client:
        analysis = await client.analyze(image, words="all", nodes=["object:1"], graph=region)
        kinds = [entry.kind for entry in analysis.attributions]
        assert kinds == ["class", "word", "word", "node"]
        for entry in analysis.attributions:
            rating = RelevanceRating(content_type="relationship", content_description="(lamp, on, table)", relevance=1)
            await client.record_rating(analysis, rating, attribution=entry, annotator="a7")
        recorded = await client.record_rating(analysis, region, consented_image=image, request_id="rationale")
    assert recorded.request_id == "rationale"
    assert abs((datetime.now(UTC) - recorded.recorded_at).total_seconds()) < 60

    kept = list(read_ratings(store, tmp_path / "images"))
    assert [entry["task"] for entry in kept] == ["relevance"] * 4 + ["human_graph"]
    assert [entry["attribution"]["target_kind"] for entry in kept[:4]] == kinds
    first, last = kept[0], kept[-1]
    assert first["format"] == "saaa.rating.v1"
    assert first["annotator"] == "a7"
    assert first["relevance"] == {
        "content_type": "relationship",
        "content_description": "(lamp, on, table)",
        "relevance": 1,
    }
    # The snapshot is what the client saw, to the last digit.
    seen = analysis.attributions[0].to_json()
    assert first["attribution"] == {key: seen[key] for key in first["attribution"]}
    assert {"grid", "region", "method", "target", "target_index", "target_probability"} < first["attribution"].keys()
    assert kept[3]["attribution"]["target_node"] == analysis.attributions[3].to_json()["target_node"]
    assert first["graph"] == {**region, "source": "request"}
    assert first["caption"] == analysis.captions[0].text
    assert first["models"]["classifier"]["archive_sha256"] == CLASSIFIER.digest
    assert first["models"]["classifier"]["parameters"]["method"] == "brightness"
    digest = hashlib.sha256(image).hexdigest()
    assert first["image"] == {"sha256": digest, "width": 80, "height": 40}
    assert last["image"] == {**first["image"], "file": f"{digest}.png"}
    assert (tmp_path / "images" / f"{digest}.png").read_bytes() == image
    assert "attribution" not in last
    assert SceneGraph.from_region(last["human_graph"]).to_region()["objects"] == region["objects"]
    assert last["recorded_at"] == recorded.recorded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def test_the_image_is_kept_only_with_consent(caller: Caller, store: Path, tmp_path: Path) -> None:
    image = photo()
    with_image = {"about__provenance__image_sha256": hashlib.sha256(image).hexdigest().upper()}
    await record(caller, request("no", **with_image))
    (kept,) = read_ratings(store, tmp_path / "images")
    assert "file" not in kept["image"]
    assert not (tmp_path / "images").exists()
    for name in ("yes", "again"):
        await record(caller, request(name, **with_image, consented_image=image))
    assert [("file" in entry["image"]) for entry in read_ratings(store, tmp_path / "images")] == [False, True, True]
    assert len(list((tmp_path / "images").iterdir())) == 1


async def test_a_rating_is_kept_once(caller: Caller, store: Path) -> None:
    first = await record(caller, request())
    await asyncio.sleep(0.01)
    assert await record(caller, request()) == first
    told = await refusal(record(caller, request(relevance__relevance=2)))
    assert (told.code, told.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RATING_CONFLICT")
    image = photo()
    digest = {"about__provenance__image_sha256": hashlib.sha256(image).hexdigest()}
    await record(caller, request("two", **digest))
    told = await refusal(record(caller, request("two", **digest, consented_image=image)))
    assert told.code is grpc.StatusCode.ALREADY_EXISTS
    kept = list(read_ratings(store))
    assert [(entry["request_id"], entry["relevance"]["relevance"]) for entry in kept] == [("one", 4.5), ("two", 4.5)]


async def test_the_same_parameters_in_another_order_are_the_same_rating(caller: Caller) -> None:
    names = [f"p{number}" for number in range(20)]
    answers = [
        await record(caller, request(about__provenance__classifier=model(parameters=dict.fromkeys(order, "1"))))
        for order in (names, names[::-1])
    ]
    assert answers[0] == answers[1]


async def test_many_writers_at_once(caller: Caller, store: Path) -> None:
    names = [f"r{number % 50}" for number in range(100)]  # each twice
    answers = await asyncio.gather(*(record(caller, request(name)) for name in names))
    assert [answer.request_id for answer in answers] == names
    assert answers[:50] == answers[50:]
    assert sorted(entry["request_id"] for entry in read_ratings(store)) == sorted(names[:50])


async def test_a_slow_disk_holds_up_nobody_else(caller: Caller, store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(record(caller, request()))
        assert (await caller.analyze()).predictions
        told = await refusal(record(caller, request("bad", relevance__relevance=0)))
        assert told.code is grpc.StatusCode.INVALID_ARGUMENT
        assert not waiting.done()
        other.execute("ROLLBACK")
    assert (await waiting).request_id == "one"


NODE = pb.AttributionTarget(node=pb.GraphNode(kind=pb.NODE_KIND_OBJECT, id=8))
WORD = pb.AttributionTarget(word=pb.WordTarget(index=1, text="blue"))
FAR_WORD = pb.AttributionTarget(word=pb.WordTarget(index=2**32 - 1, text="red"))
LIKELY = pb.AttributionTarget(class_prediction=pb.Prediction(label="", probability=1.5))
BIG = pb.Grid(height=513, width=512, values=[0.0] * (513 * 512))
BAD = {
    "no id": ({"request_id": ""}, {"request_id"}),
    "long id": ({"request_id": "x" * 129}, {"request_id"}),
    "id of other letters": ({"request_id": "é\n"}, {"request_id"}),
    "long annotator": ({"annotator": "x" * 65}, {"annotator"}),
    "no answer": ({"relevance": None}, {"answer"}),
    "rating too low": ({"relevance__relevance": 0.99}, {"relevance.relevance"}),
    "rating too high": ({"relevance__relevance": 5.01}, {"relevance.relevance"}),
    "rating that is no number": ({"relevance__relevance": math.nan}, {"relevance.relevance"}),
    "rating without end": ({"relevance__relevance": math.inf}, {"relevance.relevance"}),
    "no content type": ({"relevance__content_type": 0}, {"relevance.content_type"}),
    "unknown content type": ({"relevance__content_type": 17}, {"relevance.content_type"}),
    "blank description": ({"relevance__content_description": " \t"}, {"relevance.content_description"}),
    "long description": ({"relevance__content_description": "x" * 201}, {"relevance.content_description"}),
    "no digest": ({"about__provenance__image_sha256": ""}, {"about.provenance.image_sha256"}),
    "short digest": ({"about__provenance__image_sha256": "ab" * 31}, {"about.provenance.image_sha256"}),
    "digest that climbs": ({"about__provenance__image_sha256": "../" * 21 + "a"}, {"about.provenance.image_sha256"}),
    "digest and a line": ({"about__provenance__image_sha256": DIGEST + "\n"}, {"about.provenance.image_sha256"}),
    "archive digest": (
        {"about__provenance__captioner": model(archive_sha256="g" * 64)},
        {"about.provenance.captioner.archive_sha256"},
    ),
    "model without a name": ({"about__provenance__classifier__name": ""}, {"about.provenance.classifier.name"}),
    "many parameters": (
        {"about__provenance__classifier": model(parameters={str(number): "" for number in range(65)})},
        {"about.provenance.classifier.parameters"},
    ),
    "long parameter": (
        {"about__provenance__classifier": model(parameters={"a": "x" * 1001})},
        {"about.provenance.classifier.parameters"},
    ),
    "no model": ({"about__provenance__classifier": None}, {"about.provenance.classifier"}),
    "no size": (
        {"about__image_width": 0, "about__image_height": 0, "about__graph": None},
        {"about.image_width", "about.image_height"},
    ),
    "huge image": ({"about__image_width": 2**32 - 1, "about__image_height": 2**32 - 1}, {"about.image_width"}),
    "no map": ({"about__attribution": None}, {"about.attribution"}),
    "no target": ({"about__attribution__target": None}, {"about.attribution.target"}),
    "no method": ({"about__attribution__method": ""}, {"about.attribution.method"}),
    "class": (
        {"about__attribution__target": LIKELY},
        {"about.attribution.target.class_prediction.label", "about.attribution.target.class_prediction.probability"},
    ),
    "another word": ({"about__attribution__target": WORD}, {"about.attribution.target.word"}),
    "no such word": ({"about__attribution__target": FAR_WORD}, {"about.attribution.target.word"}),
    "no such node": ({"about__attribution__target": NODE}, {"about.attribution.target.node"}),
    "no grid": ({"about__attribution__grid": None}, {"about.attribution.grid"}),
    "grid of another size": ({"about__attribution__grid__width": 3}, {"about.attribution.grid"}),
    "grid of a huge size": (
        {"about__attribution__grid__width": 2**32 - 1, "about__attribution__grid__height": 2**32 - 1},
        {"about.attribution.grid"},
    ),
    "grid that is not finite": (
        {"about__attribution__grid": pb.Grid(height=1, width=1, values=[math.nan])},
        {"about.attribution.grid"},
    ),
    "large grid": ({"about__attribution__grid": BIG}, {"about.attribution.grid"}),
    "no region": ({"about__attribution__region": None}, {"about.attribution.region"}),
    "region without end": ({"about__attribution__region__width": math.inf}, {"about.attribution.region"}),
    "long caption": ({"about__caption": "x" * 1001}, {"about.caption"}),
    "empty graph": ({"about__graph": pb.SceneGraph()}, {"about.graph.objects"}),
    "box outside": ({"about__graph": pb.SceneGraph(objects=[thing(1, (70, 0, 20, 10))])}, {"about.graph.objects[0]"}),
    "large graph": ({"about__graph": pb.SceneGraph(objects=[thing(n) for n in range(101)])}, {"about.graph"}),
    "graph from nowhere": ({"about__graph_source": 0}, {"about.graph_source"}),
    "dangling relationship": (
        {"human_graph": pb.SceneGraph(objects=[thing(1)], relationships=[link(1, 1, 5)])},
        {"human_graph.relationships[0].object_id"},
    ),
    "doubled object": ({"human_graph": pb.SceneGraph(objects=[thing(1), thing(1)])}, {"human_graph.objects[1].id"}),
    "human box outside": (
        {"human_graph": pb.SceneGraph(objects=[thing(1), thing(2, (0, 0, 81, 41))])},
        {"human_graph.objects[1]"},
    ),
    "another image": ({"consented_image": photo()}, {"consented_image"}),
    "no image": ({"consented_image": b"#!/bin/sh"}, {"consented_image"}),
    "many at once": (
        {"request_id": "", "relevance__relevance": 9, "about__provenance__image_sha256": "x"},
        {"request_id", "relevance.relevance", "about.provenance.image_sha256"},
    ),
}


@pytest.mark.parametrize(("changes", "fields"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_told(changes: dict[str, Any], fields: set[str]) -> None:
    with pytest.raises(InvalidInput) as told:
        read_rating(request(**changes), RequestLimits())
    error = told.value
    found = [part.field for part in (error.violations if isinstance(error, RequestInvalid) else (error,))]
    assert len(found) == len(fields)
    for wanted in fields:
        assert any(field.startswith(wanted) for field in found), found


async def test_what_is_wrong_reaches_the_caller_and_is_not_kept(caller: Caller, store: Path) -> None:
    changes, fields = BAD["many at once"]
    told = await refusal(record(caller, request(**changes)))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.fields.keys() == fields
    assert list(read_ratings(store)) == []


async def test_an_empty_message_is_refused(caller: Caller) -> None:
    told = await refusal(record(caller, feedback.RecordRatingRequest()))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {"request_id", "answer", "about.image_width", "about.provenance.image_sha256"} <= told.fields.keys()


async def test_hostile_text_is_kept_as_text(caller: Caller, store: Path) -> None:
    text = "<script>alert(1)</script>'; DROP TABLE ratings; -- ../../x \u2028\x00\u202e"
    await record(caller, request(relevance__content_description=text, annotator="'; --"))
    await record(caller, request("two"))
    first, _ = read_ratings(store)
    assert first["relevance"]["content_description"] == text
    out = io.StringIO()
    assert export_ratings(store, out) == 2
    lines = out.getvalue().split("\n")
    assert [json.loads(line)["request_id"] for line in lines[:-1]] == ["one", "two"]
    assert lines[-1] == ""


async def test_off_unless_a_store_is_named() -> None:
    async with calling(PixelBackend()) as caller:
        told = await refusal(record(caller, request()))
        assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_ENABLED")
        assert "--ratings" in told.text
        assert await health(caller, NAME) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_and_no_need_of_models(store: Path) -> None:
    backend = PixelBackend()
    backend.down = True
    async with calling(backend, ratings=store) as caller:
        assert await health(caller, "") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await health(caller, NAME) == health_pb2.HealthCheckResponse.SERVING
        assert (await record(caller, request())).request_id == "one"
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=9)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(caller.facade.__aexit__(None, None, None))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await stopping


async def test_the_blocking_client_says_why(caller: Caller) -> None:
    def ask() -> RpcFailed:
        with Client(caller.facade.address) as client:
            analysis = client.analyze(photo())
            client.wait_ready(5, service=NAME)
            rating = RelevanceRating(content_type="object", content_description="lamp", relevance=7)
            with pytest.raises(RpcFailed) as failure:
                client.record_rating(analysis, rating, attribution=analysis.attributions[0])
            return failure.value

    failure = await asyncio.to_thread(ask)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "OPTION_INVALID")
    assert [violation.field for violation in failure.violations] == ["relevance.relevance"]


async def test_the_example_of_the_readme_runs(caller: Caller, store: Path, tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    (example,) = (text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "record_rating" in text)
    (tmp_path / "photo.jpg").write_bytes(photo())
    graph = {"objects": [{"object_id": 1, "name": "lamp", "attributes": [], "x": 2, "y": 4, "w": 30, "h": 20}]}

    def run() -> None:
        with Client(caller.facade.address) as client:
            analysis = client.analyze(tmp_path / "photo.jpg", graph)
            code = example.replace("photo.jpg", str(tmp_path / "photo.jpg"))
            exec(code, {"client": client, "analysis": analysis, "graph": graph})

    await asyncio.to_thread(run)
    assert [entry["task"] for entry in read_ratings(store, tmp_path / "images")] == ["relevance", "human_graph"]


async def test_training_reads_the_export(caller: Caller, store: Path, tmp_path: Path) -> None:
    await record(caller, request("r1", annotator="a7"))
    await record(caller, request("r2", human_graph=GRAPH))
    export_file(store, tmp_path / "ratings.jsonl")
    found = read_answers([tmp_path / "ratings.jsonl"])
    (rating,), (rationale,) = found.ratings, found.rationales
    assert (rating.id, rating.annotator, rating.rating) == ("r1", "a7", 4.5)
    assert (rating.unit.image, rating.unit.target, rating.unit.word) == (DIGEST, "class", "red")
    assert [thing.name for thing in rationale.graph.objects] == ["thing 7", "thing 9"]
