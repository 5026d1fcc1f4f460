"""The client against a real gRPC server on loopback."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import saaa.client
from saaa.client import (
    AsyncClient,
    Client,
    Execution,
    Faithfulness,
    Node,
    RequestInvalid,
    RpcFailed,
    Violation,
    WordTarget,
)
from saaa.v1 import analysis_pb2 as pb

GRAPH = {
    "objects": [
        {"object_id": 7, "name": "lamp", "attributes": ["red"], "x": 1, "y": 2, "w": 30, "h": 40},
        {"object_id": 9, "name": "table", "attributes": [], "x": 0, "y": 100, "w": 300, "h": 200},
    ],
    "relationships": [{"relationship_id": 1, "subject_id": 7, "object_id": 9, "name": "on"}],
    "phrase": "ignored",
}


async def call(kind: str, address: str, method: str, *arguments):
    if kind == "sync":
        with Client(address) as client:
            return getattr(client, method)(*arguments)
    async with AsyncClient(address) as client:
        return await getattr(client, method)(*arguments)


def test_request_carries_every_option(server, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    with Client(server.address) as client:
        client.analyze(
            photo,
            GRAPH,
            outputs=["captions", "predictions"],
            top_k=3,
            method="integrated_gradients",
            classes=["kitchen", 4],
            steps=8,
            gamma=0.25,
            masks=20,
            seed=3,
            deletion=True,
            effects=True,
            words=[2, 0],
            nodes=[Node(kind="object", id=7, name="lamp"), "attribute:7:1", "relationship:-1"],
            word_method="attention",
            beam_width=5,
            captions=2,
            max_words=12,
            length_penalty=0.5,
            sampling={"temperature": 0.7, "top_k": 20, "top_p": 0.9, "seed": 2**63},
            classifier="scenes:2.0",
            captioner="world",
            priority="batch",
            request_id="mine",
        )
    (request,) = server.service.requests
    assert request == pb.AnalyzeRequest(
        image=b"jpeg",
        graph=pb.SceneGraph(
            objects=[
                pb.SceneObject(id=7, name="lamp", attributes=["red"], box=pb.Box(x=1, y=2, width=30, height=40)),
                pb.SceneObject(id=9, name="table", box=pb.Box(x=0, y=100, width=300, height=200)),
            ],
            relationships=[pb.Relationship(id=1, subject_id=7, object_id=9, name="on")],
        ),
        outputs=[pb.OUTPUT_CAPTIONS, pb.OUTPUT_PREDICTIONS],
        top_k=3,
        attribution=pb.AttributionOptions(
            method="integrated_gradients",
            classes=["kitchen", "4"],
            steps=8,
            gamma=0.25,
            masks=20,
            seed=3,
            deletion=True,
            effects=True,
            words=[2, 0],
            nodes=[
                pb.GraphNode(kind=pb.NODE_KIND_OBJECT, id=7),
                pb.GraphNode(kind=pb.NODE_KIND_ATTRIBUTE, id=7, attribute_index=1),
                pb.GraphNode(kind=pb.NODE_KIND_RELATIONSHIP, id=-1),
            ],
            word_method="attention",
        ),
        caption=pb.CaptionOptions(
            beam_width=5,
            count=2,
            max_words=12,
            length_penalty=0.5,
            sampling=pb.Sampling(temperature=0.7, top_k=20, top_p=0.9, seed=2**63),
        ),
        classifier=pb.ModelSelector(name="scenes", version="2.0"),
        captioner=pb.ModelSelector(name="world"),
        priority=pb.PRIORITY_BATCH,
        request_id="mine",
    )


def test_options_left_out_stay_unset(server):
    with Client(server.address) as client:
        client.analyze(b"jpeg")
    (request,) = server.service.requests
    for name in ("graph", "top_k", "classifier", "captioner"):
        assert not request.HasField(name)
    for name in ("steps", "gamma", "masks", "seed"):
        assert not request.attribution.HasField(name)
    assert request.attribution == pb.AttributionOptions()
    assert request.caption == pb.CaptionOptions()
    assert list(request.outputs) == []


def test_captions_are_drawn_with_every_default(server):
    with Client(server.address) as client:
        client.analyze(b"jpeg", sampling={})
    (request,) = server.service.requests
    assert request.caption.HasField("sampling")
    assert request.caption == pb.CaptionOptions(sampling=pb.Sampling())


def test_every_word_and_a_caption_to_score(server):
    with Client(server.address) as client:
        client.analyze(b"jpeg", words="all", text="a red lamp", method=None)
    (request,) = server.service.requests
    assert request.attribution == pb.AttributionOptions(every_word=True)
    assert request.caption == pb.CaptionOptions(text="a red lamp")


def test_answer_becomes_dataclasses_and_arrays(server, response):
    server.service.response = response
    with Client(server.address) as client:
        analysis = client.analyze(b"jpeg")
    assert [(p.label, p.index) for p in analysis.predictions] == [("kitchen", 3), ("bedroom", 0)]
    attribution, word, node = analysis.attributions
    assert attribution.grid.dtype == np.float32
    np.testing.assert_array_equal(attribution.grid, np.float32([[0, 0.1, 0.2], [0.3, 0.4, 0.5]]))
    assert (attribution.region.x, attribution.region.width) == (80, 480)
    assert attribution.concepts[0].node.name == "lamp"
    lamp, on = attribution.concepts
    assert (lamp.effect, lamp.effect_definition, lamp.score) == (1.5, "shapley", 0.75)
    assert (lamp.score_definition, lamp.gap_mass, lamp.weaker_mass) == ("effect_share", None, None)
    assert (on.score_definition, on.effect, on.gap_mass, on.weaker_mass) == ("density_share", None, 0.125, 0)
    assert attribution.faithfulness == (Faithfulness(measure="deletion_drop", value=pytest.approx(0.1)),)
    assert attribution.concept_agreement == -0.5
    assert (word.target, word.kind, word.label) == (WordTarget(index=1, text="lamp"), "word", "lamp")
    assert word.faithfulness == (Faithfulness(measure="not_computed"),)
    np.testing.assert_array_equal(word.node_weights, np.float32([0.9, 0.1, 0]))
    assert (node.target, node.kind, node.label) == (analysis.caption_nodes[1], "node", "red")
    assert word.concept_agreement is None
    assert len(attribution.node_weights) == 0
    assert [node.kind for node in analysis.caption_nodes] == ["object", "attribute", "relationship"]
    assert analysis.graph_source == "request"
    assert analysis.provenance.classifier.parameters == {"steps": "16"}
    assert analysis.provenance.captioner is None
    assert analysis.timings == {"decode": 1.5, "total": 9.0}
    words = analysis.captions[0].words
    assert [word.text for word in words] == ["red", "lamp"]
    assert int(words[1].node_weights.argmax()) == 0


def test_json_has_the_agreed_keys_and_short_numbers(server, response):
    server.service.response = response
    with Client(server.address) as client:
        answer = client.analyze(b"jpeg").to_json(file="a.jpg")
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert {
        "file",
        "graph_source",
        "predictions",
        "attributions",
        "captions",
        "graph",
        "provenance",
    } <= answer.keys()
    assert answer["file"] == "a.jpg"
    assert answer["predictions"][1] == {"label": "bedroom", "index": 0, "probability": 0.1}
    assert answer["attributions"][0]["target"] == "kitchen"
    assert [entry["target_kind"] for entry in answer["attributions"]] == ["class", "word", "node"]
    assert answer["attributions"][0]["faithfulness"] == [{"measure": "deletion_drop", "value": 0.1}]
    assert answer["attributions"][1]["target_index"] == 1
    assert answer["attributions"][1]["faithfulness"] == [{"measure": "not_computed", "value": None}]
    assert answer["attributions"][2]["target_node"] == answer["caption_nodes"][1]
    assert answer["attributions"][0]["grid"] == [[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]
    assert answer["captions"][0]["words"][1] == {
        "text": "lamp",
        "log_probability": -0.25,
        "node_weights": [0.9, 0.1, 0.0],
    }
    assert answer["timings"]["total"] == 9.0
    # The graph comes back in the form in which it went in.
    assert answer["graph"] == {key: GRAPH[key] for key in ("objects", "relationships")}


def test_empty_answer_has_no_graph(server):
    with Client(server.address) as client:
        answer = client.analyze(b"jpeg").to_json()
    assert "file" not in answer
    assert answer["graph"] is None
    assert answer["graph_source"] == "none"


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_refusal_carries_code_reason_fields_and_delay(server, kind):
    service = server.service
    service.code, service.message = grpc.StatusCode.RESOURCE_EXHAUSTED, "the lane is full"
    service.details = [
        error_details_pb2.ErrorInfo(reason="LANE_FULL", domain="saaa"),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="top_k", description="must be 1 to 1000")
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)),
    ]
    with pytest.raises(RpcFailed) as caught:
        await call(kind, server.address, "analyze", b"jpeg")
    failure = caught.value
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == "LANE_FULL"
    assert failure.message == "the lane is full"
    assert failure.violations == (Violation("top_k", "must be 1 to 1000"),)
    assert failure.retry_after_s == 1.5
    assert str(failure) == (
        "RESOURCE_EXHAUSTED LANE_FULL: the lane is full (retry after 1.5 s)\n  top_k: must be 1 to 1000"
    )


def test_refusal_without_details_has_the_code_as_reason(server):
    server.service.code, server.service.message = grpc.StatusCode.NOT_FOUND, "no such model"
    with Client(server.address) as client, pytest.raises(RpcFailed) as caught:
        client.model("nobody")
    assert (caught.value.reason, caught.value.violations, caught.value.retry_after_s) == (
        "NOT_FOUND",
        (),
        None,
    )


def test_nobody_listening_is_unavailable():
    with Client("127.0.0.1:1") as client, pytest.raises(RpcFailed) as caught:
        client.models()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_every_call_sends_a_deadline(server):
    server.service.listing = [pb.Model(name="scenes", kind=pb.MODEL_KIND_EGDD)]
    with Client(server.address, timeout=20) as client:
        client.models()
        client.model("scenes")
        client.analyze(b"jpeg")
        client.analyze(b"jpeg", timeout=5)
    first, second, third, own = server.service.time_remaining
    assert all(15 < left < 21 for left in (first, second, third))
    assert own < 6


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(timeout):
    with pytest.raises(ValueError, match="more than 0"):
        Client("localhost:1", timeout=timeout)


def test_models_are_described(server):
    server.service.listing = [
        pb.Model(
            name="scenes",
            version="1.0",
            kind=pb.MODEL_KIND_EGDD,
            input_size=64,
            classes=["kitchen", "bedroom"],
            attribution_methods=[
                pb.AttributionMethod(
                    name="gradcam",
                    cost_forwards=2,
                    reference="a paper",
                    targets=[pb.TARGET_KIND_CLASS, pb.TARGET_KIND_NODE],
                )
            ],
            limits=pb.Limits(max_image_bytes=20 * 2**20, max_image_pixels=5 * 10**9, max_cost_forwards=1200),
            card_json='{"metrics": {"accuracy": 0.97}}',
            ready=True,
            execution=pb.Execution(runtime="openvino", precision="fp32", refused="bf16: no units"),
            decode_scales=[2, 4],
            decode_margin=1.5,
        ),
        pb.Model(name="world", version="1.0", kind=pb.MODEL_KIND_EGA, vocabulary_size=90),
    ]
    with Client(server.address) as client:
        scenes, world = client.models()
        assert client.model("scenes", "1.0") == scenes
    assert (scenes.kind, world.kind) == ("egdd", "ega")
    assert scenes.classes == ("kitchen", "bedroom")
    assert scenes.attribution_methods[0].cost_forwards == 2
    assert scenes.attribution_methods[0].targets == ("class", "node")
    assert scenes.limits.max_cost_forwards == 1200
    assert scenes.limits.max_image_pixels == 5 * 10**9
    assert scenes.card["metrics"]["accuracy"] == 0.97
    assert scenes.ready
    assert not world.ready
    assert scenes.execution == Execution(runtime="openvino", precision="fp32", refused="bf16: no units")
    assert world.execution is None
    assert (scenes.decode_scales, scenes.decode_margin) == ((2, 4), 1.5)
    assert (world.decode_scales, world.decode_margin) == ((), 0)
    assert server.service.requests[-1] == pb.GetModelRequest(name="scenes", version="1.0")


def test_wait_ready_returns_once_serving(server):
    server.set_health("NOT_SERVING")
    timer = threading.Timer(0.3, server.set_health, ["SERVING"])
    timer.start()
    started = time.monotonic()
    with Client(server.address) as client:
        client.wait_ready(10)
    assert 0.25 < time.monotonic() - started < 5
    timer.join()


@pytest.mark.parametrize("address", ["live", "127.0.0.1:1"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_wait_ready_gives_up(server, address, kind):
    server.set_health("NOT_SERVING")
    target = server.address if address == "live" else address
    started = time.monotonic()
    with pytest.raises(RpcFailed, match=r"not ready after 0\.4 s") as caught:
        await call(kind, target, "wait_ready", 0.4)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 2


async def test_async_client_gives_the_same_answers(server, response):
    server.service.response = response
    server.service.listing = [pb.Model(name="scenes", kind=pb.MODEL_KIND_EGDD)]
    server.set_health("SERVING")
    async with AsyncClient(server.address) as client:
        await client.wait_ready(5)
        analysis = await client.analyze(b"jpeg", GRAPH, top_k=2)
        listing, one = await client.models(), await client.model("scenes")
    with Client(server.address) as client:
        assert analysis.to_json() == client.analyze(b"jpeg", GRAPH, top_k=2).to_json()
        assert listing == client.models() == (one,)


def test_large_answers_and_requests_pass(server, response):
    response.attributions[0].grid.CopyFrom(pb.Grid(height=1200, width=1200, values=np.zeros(1_440_000)))
    server.service.response = response
    with Client(server.address) as client:
        assert client.analyze(bytes(20 * 2**20)).attributions[0].grid.shape == (1200, 1200)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda g: g.pop("objects"), "graph.objects"),
        (lambda g: g.update(objects="lamp"), "graph.objects"),
        (lambda g: g["objects"][1].pop("w"), "graph.objects[1].w"),
        (lambda g: g["objects"][0].update(x="1"), "graph.objects[0].x"),
        (lambda g: g["objects"][0].update(x=1.5), "graph.objects[0].x"),
        (lambda g: g["objects"][0].update(y=2**40), "graph.objects[0].y"),
        (lambda g: g["objects"][0].update(name=5), "graph.objects[0].name"),
        (lambda g: g["objects"][0].update(attributes=[1]), "graph.objects[0].attributes"),
        (lambda g: g["objects"][0].update(attributes=7), "graph.objects[0].attributes"),
        (lambda g: g["objects"][0].update(attributes="red"), "graph.objects[0].attributes"),
        (lambda g: g["objects"][1].update(name="\ud800"), "graph.objects[1].name"),
        (lambda g: g["objects"].append("lamp"), "graph.objects[2]"),
        (lambda g: g["relationships"][0].pop("name"), "graph.relationships[0].name"),
    ],
)
def test_a_graph_that_cannot_be_sent_names_the_place(change, field):
    graph = json.loads(json.dumps(GRAPH))
    change(graph)
    with Client("127.0.0.1:1") as client, pytest.raises(RequestInvalid) as caught:
        client.analyze(b"jpeg", graph)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"outputs": ["words"]}, "outputs"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"captions": "2"}, "captions"),
        ({"gamma": "much"}, "gamma"),
        ({"gamma": 10**400}, "gamma"),
        ({"words": "some"}, "words"),
        ({"words": [0, -1]}, "words"),
        ({"words": [1.5]}, "words"),
        ({"masks": 2**40}, "masks"),
        ({"nodes": ["object:7", "object"]}, "nodes[1]"),
        ({"nodes": ["lamp:7"]}, "nodes[0]"),
        ({"nodes": ["object:seven"]}, "nodes[0]"),
        ({"nodes": ["attribute:7:-1"]}, "nodes[0]"),
        ({"text": 5}, "text"),
    ],
)
def test_an_option_that_cannot_be_sent_is_named(options, field):
    with Client("127.0.0.1:1") as client, pytest.raises(RequestInvalid) as caught:
        client.analyze(b"jpeg", **options)
    assert caught.value.field == field


def test_an_unknown_option_is_a_type_error():
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="'topk'"):
        client.analyze(b"jpeg", topk=3)


def test_an_image_too_large_to_send_says_so(monkeypatch):
    monkeypatch.setattr("saaa.client.request.MAX_IMAGE_BYTES", 2**20)
    with Client("127.0.0.1:1") as client, pytest.raises(RequestInvalid, match=r"2\.0 MiB") as caught:
        client.analyze(bytes(2 * 2**20))
    assert caught.value.field == "image"


def test_client_imports_nothing_else_of_saaa():
    allowed = ("saaa.client", "saaa.v1", "grpc", "grpc_status", "grpc_health", "google", "numpy")
    for file in Path(saaa.client.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        # Drawing needs more, when it is done and not before.
        drawing = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "overlay"]
        late = {id(node) for function in drawing for node in ast.walk(function)}
        for node in ast.walk(tree):
            if id(node) in late:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [str(node.module)]
            for name in names:
                known = name.split(".")[0] in sys.stdlib_module_names
                assert known or name.startswith(allowed), f"{file.name} imports {name}"


def test_importing_the_client_loads_no_torch_and_no_other_part():
    program = (
        "import sys, saaa.client; print(sorted(m for m in sys.modules "
        "if m.split('.')[0] in ('torch', 'PIL', 'serving') or m.startswith('saaa.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert loaded
    assert all(name.startswith(("saaa.client", "saaa.v1")) for name in loaded), loaded
