"""What a caller gets: dataclasses and arrays, the same as JSON, descriptions of models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from saaa.client import Client, Execution, Faithfulness, WordTarget
from saaa.v1 import analysis_pb2 as pb
from tests.saaa.client.calls import GRAPH


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
