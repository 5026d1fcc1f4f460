"""Whatever a message holds, it is either answered or refused with a reason; never an accident."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saaa.errors import InvalidInput, ModelNotFound
from saaa.models.guided import check_options
from saaa.v1 import analysis_pb2 as pb
from saaa.work import Work
from serving.analysis.plan import Plan, make_plan
from serving.contract.convert import read_analyze_request
from serving.errors import to_status
from serving.models.catalog import Catalog
from serving.requests import Output
from serving.settings import RequestLimits
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, METHODS, photo, thing

LIMITS = RequestLimits()
CATALOG = Catalog()
CATALOG.describe([CLASSIFIER, CAPTIONER])
CATALOG.set_ready(CATALOG.keys())

int64 = st.one_of(st.integers(0, 5), st.integers(-(2**63), 2**63 - 1))
int32 = st.one_of(st.integers(0, 30), st.integers(-(2**31), 2**31 - 1))
uint32 = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
name = st.one_of(st.sampled_from(["colours", "words", "red", "1", "auto", "brightness", "rise", "attention"]), text)

box = st.builds(pb.Box, x=int32, y=int32, width=int32, height=int32)
thing_ = st.builds(
    pb.SceneObject, id=int64, name=name, attributes=st.lists(name, max_size=3), box=st.one_of(st.none(), box)
)
link = st.builds(pb.Relationship, id=int64, subject_id=int64, object_id=int64, name=name)
graph = st.builds(pb.SceneGraph, objects=st.lists(thing_, max_size=6), relationships=st.lists(link, max_size=4))
selector = st.builds(pb.ModelSelector, name=name, version=name)
request = st.builds(
    pb.AnalyzeRequest,
    image=st.one_of(
        st.just(photo()), st.binary(max_size=64), st.binary(max_size=64).map(lambda tail: photo()[:60] + tail)
    ),
    graph=st.one_of(st.none(), graph),
    outputs=st.lists(st.integers(0, 5), max_size=3),
    top_k=st.one_of(st.none(), uint32),
    attribution=st.one_of(
        st.none(),
        st.builds(
            pb.AttributionOptions,
            method=name,
            classes=st.lists(name, max_size=18),
            steps=uint32,
            gamma=st.none() | st.floats(width=32),
            masks=st.none() | uint32,
            seed=st.none() | uint32,
            deletion=st.booleans(),
            effects=st.booleans(),
            words=st.lists(uint32, max_size=4),
            every_word=st.booleans(),
            nodes=st.lists(
                st.builds(pb.GraphNode, kind=st.integers(0, 5), id=int64, attribute_index=uint32), max_size=3
            ),
            word_method=name,
        ),
    ),
    caption=st.one_of(
        st.none(),
        st.builds(pb.CaptionOptions, beam_width=uint32, count=uint32, max_words=uint32),
        st.builds(
            pb.CaptionOptions,
            count=st.none() | uint32,
            length_penalty=st.none() | st.floats(),
            sampling=st.builds(
                pb.Sampling,
                temperature=st.none() | st.floats(),
                top_k=st.none() | uint32,
                top_p=st.none() | st.floats(),
                seed=st.none() | st.integers(0, 2**64 - 1),
            ),
        ),
        st.builds(pb.CaptionOptions, text=st.none() | text),
    ),
    classifier=st.one_of(st.none(), selector),
    captioner=st.one_of(st.none(), selector),
    request_id=text,
)


def outcome(message: pb.AnalyzeRequest) -> Plan | None:
    """The plan, or None where the request was refused as it should be."""
    try:
        return make_plan(read_analyze_request(message, LIMITS), CATALOG, LIMITS)
    except (InvalidInput, ModelNotFound) as error:
        to_status(error)
        return None


def check(plan: Plan) -> None:
    """A plan asks for nothing beyond the image, the models and the limits."""
    width, height = plan.header.size
    if plan.graph is not None:
        assert all(thing.box.right <= width and thing.box.bottom <= height for thing in plan.graph.objects)
    if plan.classify is not None:
        assert all(0 <= target < 3 for target in plan.classify.targets)
        assert plan.classify.options.method in {"auto", *(method.name for method in METHODS)}
        assert 0 < plan.classify.cost_forwards <= LIMITS.max_cost_forwards
    if plan.caption is not None:
        options = plan.caption.options
        assert 1 <= options.beam_width <= 10
        assert 1 <= options.count <= (options.beam_width if options.sampling is None else 10)
        check_options(options)
        assert plan.graph is None or len(plan.graph.nodes()) <= CAPTIONER.max_nodes
        if plan.caption.explanation is not None:
            assert all(place < CAPTIONER.max_nodes for place in plan.caption.explanation.nodes)
            assert all(index < CAPTIONER.max_words for index in plan.caption.explanation.words)
            assert Output.ATTRIBUTIONS in plan.outputs


@settings(max_examples=300, deadline=None)
@given(request)
def test_any_message_is_planned_or_refused(message: pb.AnalyzeRequest) -> None:
    plan = outcome(message)
    if plan is not None:
        check(plan)


@settings(max_examples=300, deadline=None)
@given(request, st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_are_planned_or_refused(whole: pb.AnalyzeRequest, damage: list[tuple[int, int]]) -> None:
    """Bytes of a message with a few changed: a quarter still are a message, of bytes at random one in fifty."""
    data = bytearray(whole.SerializeToString())
    assume(data)
    for place, value in damage:
        data[place % len(data)] = value
    message = pb.AnalyzeRequest()
    try:
        message.ParseFromString(bytes(data))
    except DecodeError:
        return  # gRPC itself refuses it
    plan = outcome(message)
    if plan is not None:
        check(plan)


def test_explicit_default_and_auto_share_a_batch() -> None:
    plans = [
        outcome(pb.AnalyzeRequest(image=photo(), attribution=pb.AttributionOptions(method=method, steps=steps)))
        for method, steps in (("auto", 5), ("brightness", 64), ("", 16))
    ]
    options = {plan.classify.options for plan in plans if plan and plan.classify}
    assert len(options) == 1
    assert next(iter(options)).method == "brightness"


def test_captions_alone_with_a_graph_need_no_classifier() -> None:
    message = pb.AnalyzeRequest(image=photo(), graph=pb.SceneGraph(objects=[thing(1)]), outputs=[pb.OUTPUT_CAPTIONS])
    plan = outcome(message)
    assert plan is not None
    assert plan.classify is None
    assert plan.outputs == {Output.CAPTIONS}


def test_captions_alone_without_a_graph_explain_first() -> None:
    plan = outcome(pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_CAPTIONS]))
    assert plan is not None
    assert plan.classify is not None
    assert plan.classify.work is Work.EXPLAIN


def test_caption_length_is_capped_by_the_model() -> None:
    plan = outcome(pb.AnalyzeRequest(image=photo(), caption=pb.CaptionOptions(max_words=50)))
    assert plan is not None
    assert plan.caption is not None
    assert plan.caption.options.max_words == CAPTIONER.max_words
