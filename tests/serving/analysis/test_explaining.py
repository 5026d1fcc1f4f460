"""Explanations over real gRPC: of classes, words and nodes; what they cost; what is refused before any work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from saaa.v1 import analysis_pb2 as pb
from saaa.work import ExplainOptions, Work, WorkItem
from serving.analysis.explaining import explain_cost
from serving.contract.convert import read_analyze_request
from serving.lanes.lanes import BatchKey
from serving.settings import RequestLimits
from tests.serving.pixel_backend import (
    CAPTIONER,
    CLASSIFIER,
    Caller,
    PixelBackend,
    calling,
    link,
    refusal,
    thing,
)

Options = pb.AttributionOptions
OBJECT, ATTRIBUTE, RELATIONSHIP = pb.NODE_KIND_OBJECT, pb.NODE_KIND_ATTRIBUTE, pb.NODE_KIND_RELATIONSHIP
GRAPH = pb.SceneGraph(
    objects=[thing(7, (20, 10, 20, 10), "bright"), thing(9, (60, 20, 20, 20)), thing(4, (0, 30, 20, 10))],
    relationships=[link(3, 7, 9)],
)
"""Five nodes, as many as the captioner reads."""


def objects(count: int, related: int = 0) -> pb.SceneGraph:
    links = [link(number, number, number + 1) for number in range(related)]
    return pb.SceneGraph(objects=[thing(number) for number in range(count)], relationships=links)


@pytest.fixture
def backend() -> PixelBackend:
    return PixelBackend()


@pytest.fixture
async def caller(backend: PixelBackend) -> AsyncIterator[Caller]:
    async with calling(backend) as caller:
        yield caller


def item_of(backend: PixelBackend, work: Work) -> WorkItem:
    (batch,) = [batch for batch in backend.batches if batch.work is work]
    return batch.items[0]


async def test_classes_words_and_nodes_in_one_request(caller: Caller, backend: PixelBackend) -> None:
    nodes = [pb.GraphNode(kind=OBJECT, id=9), pb.GraphNode(kind=ATTRIBUTE, id=7)]
    answer = await caller.analyze(graph=GRAPH, attribution=Options(classes=["blue"], words=[1, 0], nodes=nodes))
    targets = [entry.target for entry in answer.attributions]
    assert [target.WhichOneof("target") for target in targets] == ["class_prediction", "word", "word", "node", "node"]
    assert [(target.word.index, target.word.text) for target in targets[1:3]] == [(1, "5"), (0, "nodes")]
    assert [target.node.name for target in targets[3:]] == ["thing 9", "bright"]
    assert targets[3].node == answer.caption_nodes[2]
    assert [entry.method for entry in answer.attributions] == ["brightness"] + ["attention"] * 4
    for entry in answer.attributions[1:]:
        assert list(entry.node_weights) == [0, 1, 2, 3, 4]
        assert len(entry.concepts) == 5
        assert (entry.region.width, entry.region.height) == (80, 40)
        assert [faith.measure for faith in entry.faithfulness] == [pb.FAITHFULNESS_MEASURE_NOT_COMPUTED]
        assert not entry.faithfulness[0].HasField("value")
    item = item_of(backend, Work.CAPTION)
    assert (item.words, item.every_word, item.nodes) == ((1, 0), False, (2, 1))
    assert dict(answer.provenance.captioner.parameters)["method"] == "attention"
    # All the mass of the map of word 0 is in the uppermost quarter, where nothing is.
    assert answer.attributions[2].concepts[0].mass == 0


async def test_every_word_of_a_given_caption(caller: Caller, backend: PixelBackend) -> None:
    answer = await caller.analyze(
        graph=GRAPH,
        caption=pb.CaptionOptions(text="  a bright\tsquare "),
        attribution=Options(every_word=True, word_method="gradient_x_input", deletion=True),
        outputs=[pb.OUTPUT_CAPTIONS, pb.OUTPUT_ATTRIBUTIONS],
    )
    assert answer.captions[0].text == "a bright square"
    assert [entry.target.word.text for entry in answer.attributions[1:]] == ["a", "bright", "square"]
    assert item_of(backend, Work.CAPTION).text == ("a", "bright", "square")
    parameters = dict(answer.provenance.captioner.parameters)
    assert parameters == {
        "text": "a bright square",
        "method": "gradient_x_input",
        "max_nodes": "5",
        "deletion_share": "0.1",
        "fill": "mean colour",
    }
    drops = [(faith.measure, faith.value) for entry in answer.attributions[1:] for faith in entry.faithfulness]
    assert drops == [(pb.FAITHFULNESS_MEASURE_DELETION_DROP, 0.5)] * 3


async def test_words_need_no_classifier_with_a_graph() -> None:
    async with calling(PixelBackend(CAPTIONER)) as caller:
        answer = await caller.analyze(graph=GRAPH, attribution=Options(words=[0]))
        assert [entry.target.word.text for entry in answer.attributions] == ["nodes"]
        told = await refusal(caller.analyze(graph=GRAPH, outputs=[pb.OUTPUT_PREDICTIONS, pb.OUTPUT_ATTRIBUTIONS]))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.NOT_FOUND, {"outputs"})


async def test_words_follow_a_proposed_graph(caller: Caller) -> None:
    answer = await caller.analyze(attribution=Options(every_word=True))
    assert answer.graph_source == pb.GRAPH_SOURCE_PROPOSED
    assert [entry.target.word.text for entry in answer.attributions[1:]] == [
        word.text for word in answer.captions[0].words
    ]


async def test_effects_deletion_and_agreement_are_told(caller: Caller, backend: PixelBackend) -> None:
    answer = await caller.analyze(graph=GRAPH, attribution=Options(effects=True, deletion=True, classes=["0", "1"]))
    item = item_of(backend, Work.EXPLAIN)
    assert item.graph is not None
    # The whole graph in pixels of the input, 16 x 16: also the node that the captioner does not read.
    np.testing.assert_allclose(item.graph.boxes[0], [4, 4, 8, 8])
    assert len(item.graph) == 5
    for entry in answer.attributions:
        assert [(faith.measure, faith.value) for faith in entry.faithfulness] == [
            (pb.FAITHFULNESS_MEASURE_DELETION_DROP, 0.25)
        ]
        assert [concept.effect for concept in entry.concepts] == [0, 1, 4, 9, 16]
        definitions = {concept.node.kind: concept.effect_definition for concept in entry.concepts}
        assert len(set(definitions.values())) == 3
        assert all(definitions.values())
        assert {concept.score_definition for concept in entry.concepts} == {pb.SCORE_DEFINITION_EFFECT_SHARE}
        scores = [concept.score for concept in entry.concepts]
        assert scores == pytest.approx([0, 1 / 13, 4 / 13, 9 / 13, 1])
        assert -1 <= entry.concept_agreement <= 1
        related = entry.concepts[4]
        assert related.weaker_mass == pytest.approx(min(entry.concepts[0].mass, entry.concepts[2].mass))
        assert related.HasField("gap_mass")
        assert not entry.concepts[0].HasField("gap_mass")
    parameters = dict(answer.provenance.classifier.parameters)
    assert parameters == {"method": "brightness", "effects": "true", "deletion_share": "0.1", "fill": "mean colour"}


async def test_nothing_measured_is_said_so(caller: Caller) -> None:
    (entry,) = (await caller.analyze(graph=GRAPH, outputs=[pb.OUTPUT_ATTRIBUTIONS])).attributions
    assert [faith.measure for faith in entry.faithfulness] == [pb.FAITHFULNESS_MEASURE_NOT_COMPUTED]
    assert not entry.HasField("concept_agreement")
    assert not entry.concepts[0].HasField("effect")
    assert entry.concepts[0].score_definition == pb.SCORE_DEFINITION_DENSITY_SHARE
    assert sum(concept.score for concept in entry.concepts if concept.node.kind == OBJECT) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (Options(gamma=0.5, seed=3, masks=9), {"method": "brightness"}),
        (Options(method="integrated_gradients", gamma=0.5), {"method": "integrated_gradients", "steps": "16"}),
        (
            Options(method="rise", masks=20, seed=4),
            {"method": "rise", "masks": "20", "seed": "4", "fill": "mean colour"},
        ),
        (Options(method="region_shapley", masks=20), {"method": "region_shapley", "fill": "mean colour"}),
    ],
)
async def test_provenance_names_what_was_used(
    caller: Caller, backend: PixelBackend, options: pb.AttributionOptions, parameters: dict[str, str]
) -> None:
    outputs = [pb.OUTPUT_ATTRIBUTIONS]
    answer = await caller.analyze(graph=GRAPH, attribution=options, outputs=outputs)
    assert dict(answer.provenance.classifier.parameters) == parameters
    # What a method does not read must not keep requests out of one batch.
    told = {name: parameters[name] for name in ("steps", "masks", "seed") if name in parameters}
    expected = ExplainOptions(method=parameters["method"], **{name: int(value) for name, value in told.items()})
    assert backend.batches[0].explain == expected
    assert (item_of(backend, Work.EXPLAIN).graph is not None) == (parameters["method"] == "region_shapley")


async def test_many_objects_are_sampled_and_the_draw_is_named(caller: Caller) -> None:
    options = Options(effects=True, masks=40, seed=2)
    answer = await caller.analyze(graph=objects(12), attribution=options, outputs=[pb.OUTPUT_ATTRIBUTIONS])
    parameters = dict(answer.provenance.classifier.parameters)
    assert (parameters["masks"], parameters["seed"]) == ("40", "2")


ATTRIBUTIONS = [pb.OUTPUT_ATTRIBUTIONS]
BAD: dict[str, tuple[dict[str, Any], set[str], str]] = {
    "unknown method": ({"attribution": Options(method="astrology")}, {"attribution.method"}, "brightness"),
    "method that the model cannot support": (
        {"attribution": Options(method="grad_cam")},
        {"attribution.method"},
        "colours offers no method 'grad_cam' for a class",
    ),
    "unknown word method": (
        {"attribution": Options(words=[0], word_method="rise")},
        {"attribution.word_method"},
        "attention, gradient_x_input",
    ),
    "word method that cannot explain nodes": (
        {
            "graph": GRAPH,
            "attribution": Options(nodes=[pb.GraphNode(kind=OBJECT, id=7)], word_method="gradient_x_input"),
        },
        {"attribution.word_method"},
        "for a node; use auto, attention.",
    ),
    "class out of range": ({"attribution": Options(classes=["3"])}, {"attribution.classes[0]"}, "no class"),
    "word past the longest caption": (
        {"attribution": Options(words=[0, 12])},
        {"attribution.words[1]"},
        "at most 12 words",
    ),
    "word past the words asked for": (
        {"caption": pb.CaptionOptions(max_words=3), "attribution": Options(words=[3])},
        {"attribution.words[0]"},
        "at most 3 words",
    ),
    "word past the given caption": (
        {"caption": pb.CaptionOptions(text="two words"), "attribution": Options(words=[2])},
        {"attribution.words[0]"},
        "The caption has 2 words",
    ),
    "words and every word": ({"attribution": Options(words=[0], every_word=True)}, {"attribution.words"}, "not both"),
    "words without captions": (
        {"outputs": ATTRIBUTIONS, "attribution": Options(words=[0])},
        {"attribution.words"},
        "needs captions",
    ),
    "words without attributions": (
        {"outputs": [pb.OUTPUT_CAPTIONS], "attribution": Options(every_word=True)},
        {"attribution.every_word"},
        "needs attributions",
    ),
    "more targets than the limit": (
        {"attribution": Options(classes=["0"] * 14, words=[0, 1, 2])},
        {"attribution"},
        "at most 16",
    ),
    "cost above the limit": (
        {"outputs": ATTRIBUTIONS, "attribution": Options(method="integrated_gradients", steps=64, classes=["0"] * 10)},
        {"attribution"},
        "about 1280 forward passes, at most 1200 are computed in one request",
    ),
    "cost of masks above the limit": (
        {"outputs": ATTRIBUTIONS, "attribution": Options(method="rise", masks=1201)},
        {"attribution"},
        "saaa-train attribute",
    ),
    "masks": ({"attribution": Options(masks=0)}, {"attribution.masks"}, "1 to 8000"),
    "gamma": ({"attribution": Options(gamma=1.5)}, {"attribution.gamma"}, "0 to 1"),
    "gamma that is no number": ({"attribution": Options(gamma=float("nan"))}, {"attribution.gamma"}, "0 to 1"),
    "effects without a graph": ({"attribution": Options(effects=True)}, {"graph"}, "send a graph"),
    "regions without a graph": ({"attribution": Options(method="region_shapley")}, {"graph"}, "send a graph"),
    "effects with a broken graph": (
        {"graph": pb.SceneGraph(), "attribution": Options(effects=True)},
        {"graph.objects"},
        "object",
    ),
    "node of a proposed graph": (
        {"attribution": Options(nodes=[pb.GraphNode(kind=OBJECT, id=1)])},
        {"attribution.nodes"},
        "send a graph",
    ),
    "node that is not there": (
        {"graph": GRAPH, "attribution": Options(nodes=[pb.GraphNode(kind=ATTRIBUTE, id=7, attribute_index=1)])},
        {"attribution.nodes[0]"},
        "no node attribute 7, attribute 1",
    ),
    "node of no kind": (
        {"graph": GRAPH, "attribution": Options(nodes=[pb.GraphNode(id=7)])},
        {"attribution.nodes[0].kind"},
        "object",
    ),
    "caption and decoding": (
        {"caption": pb.CaptionOptions(text="a", max_words=3, length_penalty=1, sampling=pb.Sampling())},
        {"caption.max_words", "caption.length_penalty", "caption.sampling"},
        "leave this unset",
    ),
    "empty caption": ({"caption": pb.CaptionOptions(text=" \n")}, {"caption.text"}, "no words"),
    "long caption": ({"caption": pb.CaptionOptions(text="a " * 13)}, {"caption.text"}, "at most 12"),
    "caption that nobody asks for": (
        {"outputs": ATTRIBUTIONS, "caption": pb.CaptionOptions(text="a")},
        {"caption.text"},
        "needs captions",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_told_before_any_work(caller: Caller, backend: PixelBackend, case: str) -> None:
    fields, expected, says = BAD[case]
    told = await refusal(caller.analyze(**fields))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(told.fields) == expected
    assert any(says in description for description in told.fields.values()), told.fields
    assert backend.batches == []


async def test_word_past_the_caption_that_was_made_is_told(caller: Caller) -> None:
    told = await refusal(caller.analyze(graph=GRAPH, attribution=Options(words=[5])))
    assert (told.code, set(told.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"attribution.words"})


async def test_words_without_a_captioner_or_its_methods_are_refused() -> None:
    async with calling(PixelBackend(CLASSIFIER)) as caller:
        told = await refusal(caller.analyze(graph=GRAPH, attribution=Options(words=[0])))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"attribution.words"})
    # An archive from before captions could be explained names no methods.
    backend = PixelBackend(CLASSIFIER, replace(CAPTIONER, methods=()))
    async with calling(backend) as caller:
        told = await refusal(caller.analyze(graph=GRAPH, attribution=Options(every_word=True)))
        assert (told.code, set(told.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {"attribution.word_method"})
        assert backend.batches == []
        assert (await caller.analyze(graph=GRAPH)).captions


async def test_limits_and_targets_are_published(caller: Caller) -> None:
    models = (await caller.stub.ListModels(pb.ListModelsRequest())).models
    limits = models[0].limits
    assert (limits.max_targets, limits.max_cost_forwards) == (16, 1200)
    assert {tuple(method.targets) for method in models[0].attribution_methods} == {(pb.TARGET_KIND_CLASS,)}
    assert [(method.name, tuple(method.targets)) for method in models[1].attribution_methods] == [
        ("attention", (pb.TARGET_KIND_WORD, pb.TARGET_KIND_NODE)),
        ("gradient_x_input", (pb.TARGET_KIND_WORD,)),
    ]


async def test_work_at_the_limit_is_done_and_above_it_refused(backend: PixelBackend) -> None:
    limits = RequestLimits(max_cost_forwards=70)
    async with calling(backend, limits=limits) as caller:
        method = "integrated_gradients"
        both = caller.analyze(attribution=Options(method=method, classes=["0", "1"]), outputs=ATTRIBUTIONS)
        assert len((await both).attributions) == 2
        told = await refusal(
            caller.analyze(attribution=Options(method=method, classes=["0", "1", "2"]), outputs=ATTRIBUTIONS)
        )
        assert "at most 70" in told.fields["attribution"]


@pytest.mark.parametrize(
    ("options", "targets", "graph", "cost"),
    [
        (ExplainOptions(method="brightness"), 3, None, 6),
        (ExplainOptions(method="brightness", deletion=True), 3, None, 9),
        (ExplainOptions(method="brightness", effects=True), 3, GRAPH, 6 + 2**3 + 1),
        (ExplainOptions(method="brightness", effects=True, masks=70), 1, objects(9), 2 + 70),
        (ExplainOptions(method="brightness", effects=True, masks=70), 1, objects(9, related=3), 2 + 70 + 96),
        (ExplainOptions(method="integrated_gradients", steps=8), 2, None, 32),
        (ExplainOptions(method="rise", masks=50), 4, None, 50),
        (ExplainOptions(method="region_shapley"), 4, GRAPH, 8),
        (ExplainOptions(method="region_shapley", masks=99), 4, objects(12), 99),
    ],
)
def test_cost_by_hand(options: ExplainOptions, targets: int, graph: pb.SceneGraph | None, cost: float) -> None:
    request = read_analyze_request(pb.AnalyzeRequest(graph=graph), RequestLimits())
    assert explain_cost(CLASSIFIER, options, targets, request.graph) == pytest.approx(cost)


async def test_dear_requests_do_not_shift_the_estimate_of_cheap_ones(caller: Caller, backend: PixelBackend) -> None:
    """The lane learns a line in work: a request with many targets takes long because it is much, not because all do."""
    for count in (1, 16, 8):
        backend.seconds = 0.03 * count
        await caller.analyze(outputs=ATTRIBUTIONS, attribution=Options(classes=["0"] * count))
    lane = caller.facade.analysis.lanes[Work.EXPLAIN]
    key = BatchKey(model="colours", version="1", work=Work.EXPLAIN, explain=ExplainOptions(method="brightness"))
    # The method costs 2 forwards a target.
    assert lane.estimate(key, 2) < 0.2
    assert 0.4 < lane.estimate(key, 32) < 0.9
