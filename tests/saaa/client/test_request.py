"""What a request carries, and what is refused before it is sent."""

from __future__ import annotations

import json

import pytest

from saaa.client import Client, Node, RequestInvalid
from saaa.v1 import analysis_pb2 as pb
from tests.saaa.client.calls import GRAPH


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
