"""The wire codec gives back what it was given, and refuses what it never made."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from saaa import wire
from saaa.errors import BackendFailed, InvalidInput
from saaa.scene_graph import RoleGraph
from saaa.work import (
    AttributionMap,
    CaptionOptions,
    CaptionResult,
    Execution,
    ExplainOptions,
    ItemError,
    ItemResult,
    MethodInfo,
    ModelInfo,
    ModelKind,
    Sampling,
    TargetKind,
    Work,
    WorkBatch,
    WorkItem,
    join_pixels,
)

places = st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple)


@st.composite
def graphs(draw: st.DrawFn) -> RoleGraph:
    nodes = draw(st.integers(1, 6))
    corners = draw(npst.arrays(np.float32, (nodes, 2, 2), elements=st.floats(0, 500, width=32)))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    edge = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1), st.integers(0, 5))
    return RoleGraph(
        types=np.array(draw(st.lists(st.integers(0, 2), min_size=nodes, max_size=nodes))),
        orders=np.array(draw(st.lists(st.integers(0, 19), min_size=nodes, max_size=nodes))),
        boxes=boxes,
        edges=np.array(draw(st.lists(edge, max_size=5)), np.int64).reshape(-1, 3),
    )


@st.composite
def batches(draw: st.DrawFn) -> WorkBatch:
    count, size = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    item = st.builds(
        WorkItem,
        targets=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3).map(tuple),
        graph=st.none() | graphs(),
        text=st.none() | st.lists(st.text(max_size=4), max_size=3).map(tuple),
        words=places,
        every_word=st.booleans(),
        nodes=places,
    )
    return WorkBatch(
        model=draw(st.text(max_size=5)),
        version=draw(st.text(max_size=5)),
        work=draw(st.sampled_from(Work)),
        pixels=draw(npst.arrays(np.uint8, (count, size, size, 3))),
        items=tuple(draw(st.lists(item, min_size=count, max_size=count))),
        explain=draw(
            st.builds(
                ExplainOptions,
                method=st.text(max_size=5),
                steps=st.integers(0, 99),
                gamma=st.floats(0, 1),
                masks=st.integers(0, 9999),
                seed=st.integers(0, 2**64 - 1),
                deletion=st.booleans(),
                effects=st.booleans(),
            )
        ),
        caption=CaptionOptions(
            beam_width=draw(st.integers(0, 20)),
            count=draw(st.integers(0, 20)),
            max_words=draw(st.none() | st.integers(1, 99)),
            length_penalty=draw(st.floats(0, 9)),
            sampling=draw(
                st.none()
                | st.builds(
                    Sampling,
                    temperature=st.floats(0, 9),
                    top_k=st.none() | st.integers(1, 99),
                    top_p=st.floats(0, 1),
                    seed=st.integers(0, 2**64 - 1),
                )
            ),
        ),
    )


def same_graph(a: RoleGraph | None, b: RoleGraph | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("types", "orders", "boxes", "edges"))


@pytest.mark.parametrize("count", [1, 3])
def test_joined_pixels_travel_without_another_copy(count: int) -> None:
    buffer = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    images = [np.frombuffer(image.tobytes(), np.uint8).reshape(4, 4, 3) for image in buffer]
    joined = join_pixels(images)
    assert (joined == buffer).all()
    batch = WorkBatch(model="m", version="1", work=Work.PREDICT, pixels=joined, items=(WorkItem(),) * count)
    _, pixels = wire.pack_batch(batch)
    assert pixels == buffer.tobytes()
    assert np.shares_memory(np.frombuffer(pixels, np.uint8), joined)


def test_pixels_of_any_layout_travel_in_order() -> None:
    whole = np.frombuffer(np.random.default_rng(0).bytes(4 * 4 * 4 * 3), np.uint8).reshape(4, 4, 4, 3)
    writable = whole.copy()
    writable.flags.writeable = False
    for pixels in (whole, whole[1:3], whole[::-1], whole.swapaxes(1, 2), whole[:, :, ::-1], writable, whole.copy()):
        batch = WorkBatch(model="m", version="1", work=Work.PREDICT, pixels=pixels, items=(WorkItem(),) * len(pixels))
        found = wire.unpack_batch(*wire.pack_batch(batch))
        assert found is not None
        assert (found.pixels == pixels).all()
    # Not the joined ones: those are read-only, whatever the images were.
    assert (join_pixels([whole[0, ::-1], whole[1].swapaxes(0, 1)])[1] == whole[1].swapaxes(0, 1)).all()


@settings(max_examples=60, deadline=None)
@given(batches())
def test_a_batch_survives(batch: WorkBatch) -> None:
    header, pixels = wire.pack_batch(batch)
    found = wire.unpack_batch(bytearray(header), bytearray(pixels))
    assert found is not None
    np.testing.assert_array_equal(found.pixels, batch.pixels)
    assert all(same_graph(a.graph, b.graph) for a, b in zip(found.items, batch.items, strict=True))
    assert [replace(i, graph=None) for i in found.items] == [replace(i, graph=None) for i in batch.items]
    plain = {"pixels": np.zeros(0, np.uint8), "items": ()}
    assert repr(replace(found, **plain)) == repr(replace(batch, **plain))


RESULTS = [
    ItemResult(error=ItemError(reason="SCENE_GRAPH_ERROR", message="Give a graph.", field="graph")),
    ItemResult(probabilities=np.array([0.25, 0.75], np.float32), recomputed=True),
    ItemResult(
        probabilities=np.array([1.0], np.float32),
        maps=(
            AttributionMap(target=0, method="a", values=np.arange(6, dtype=np.float32).reshape(2, 3)),
            AttributionMap(target=9, method="b", values=np.full((1, 1), -0.5, np.float32), completeness_gap=0.0),
            AttributionMap(
                target=3,
                method="c",
                values=np.zeros((1, 2), np.float32),
                deletion_drop=-0.25,
                effects=np.array([0.5, -2], np.float32),
            ),
        ),
    ),
    ItemResult(
        maps=tuple(
            AttributionMap(
                target=1,
                kind=kind,
                method="d",
                values=np.ones((2, 1), np.float32),
                node_weights=np.array(weights, np.float32),
            )
            for kind, weights in ((TargetKind.WORD, [0.5, 0.25]), (TargetKind.NODE, []))
        ),
    ),
    ItemResult(
        captions=(
            CaptionResult(
                words=("ein", "Äpfelchen"),
                log_probabilities=np.array([-0.5, -1.5], np.float32),
                node_weights=np.array([[0.25, 0.75, 0], [1, 0, 0]], np.float32),
                log_probability=-2.5,
            ),
            CaptionResult(
                words=(),
                log_probabilities=np.zeros(0, np.float32),
                node_weights=np.zeros((0, 3), np.float32),
                log_probability=-0.25,
            ),
        )
    ),
]


def test_results_survive() -> None:
    found = wire.unpack_results(wire.pack_results(RESULTS), len(RESULTS))
    assert repr(found) == repr(RESULTS)
    assert found[4].captions[1].node_weights.shape == (0, 3)
    assert found[2].maps[0].completeness_gap is None
    assert found[2].maps[1].completeness_gap == 0


def test_a_description_survives() -> None:
    info = ModelInfo(
        name="n",
        version="2",
        kind=ModelKind.EGA,
        digest="d",
        input_size=224,
        resize="crop",
        crop_fraction=0.9,
        decode_scales=(2, 4),
        decode_margin=1.5,
        classes=("a", "ß"),
        vocabulary_size=5,
        max_nodes=10,
        max_words=20,
        methods=(
            MethodInfo(name="m", cost_forwards=1.5, reference="r"),
            MethodInfo(name="n", cost_forwards=0.5, reference="s", targets=(TargetKind.WORD, TargetKind.NODE)),
        ),
        runtime="torch 3",
        execution=Execution(runtime="torch", precision="fp32", refused="bf16: no"),
        card_json='{"a": 1}',
    )
    assert wire.unpack_batch(wire.pack_describe(), b"") is None
    assert repr(wire.unpack_description(wire.pack_description(info))) == repr(info)
    # A worker that does not know of it, and one that has not told.
    told = json.loads(wire.pb.Results.FromString(wire.pack_description(info)).description_json)
    for text in (json.dumps({**told, "execution": None}), json.dumps({k: told[k] for k in told if k != "execution"})):
        assert wire.unpack_description(wire.pb.Results(description_json=text).SerializeToString()).execution is None


def header_of(**changes: object) -> tuple[bytes, bytes]:
    batch = WorkBatch(
        model="m", version="1", work=Work.PREDICT, pixels=np.zeros((2, 4, 4, 3), np.uint8), items=(WorkItem(),) * 2
    )
    return wire.pack_batch(replace(batch, **changes))  # type: ignore[arg-type]


def test_batches_that_contradict_themselves_are_refused() -> None:
    header, pixels = header_of()
    with pytest.raises(InvalidInput, match="is not a packed batch"):
        wire.unpack_batch(b"\xff\xff\xff", pixels)
    with pytest.raises(InvalidInput, match="unknown work 0"):
        wire.unpack_batch(b"", b"")
    with pytest.raises(InvalidInput, match="95 bytes of pixels do not fill"):
        wire.unpack_batch(header, pixels[:-1])
    with pytest.raises(InvalidInput, match="does not fit 1 items"):
        wire.unpack_batch(header_of(items=(WorkItem(),))[0], pixels)
    with pytest.raises(InvalidInput, match="does not fit"):
        wire.unpack_batch(header_of(items=(), pixels=np.zeros((0, 4, 4, 3), np.uint8))[0], b"")
    with pytest.raises(InvalidInput, match="cannot be sent"):
        header_of(items=(WorkItem(targets=(2**40,)), WorkItem()))


def test_a_graph_that_is_none_is_refused() -> None:
    graph = RoleGraph(
        types=np.array([0]), orders=np.array([0]), boxes=np.zeros((1, 4), np.float32), edges=np.zeros((0, 3), np.int64)
    )
    header, pixels = header_of(items=(WorkItem(graph=graph), WorkItem()))
    good = wire.pb.Batch.FromString(header)
    for change in ({"edges": [0, 5, 0]}, {"edges": [0]}, {"types": [3]}, {"boxes": [0, 0, 1]}, {"orders": [1, 2]}):
        bad = wire.pb.Batch.FromString(good.SerializeToString())
        for name, values in change.items():
            getattr(bad.items[0].graph, name)[:] = values
        with pytest.raises(InvalidInput, match="graph of the batch is malformed"):
            wire.unpack_batch(bad.SerializeToString(), pixels)


def test_answers_that_are_none_are_refused() -> None:
    packed = wire.pack_results(RESULTS)
    with pytest.raises(BackendFailed, match="answered 5 of 3"):
        wire.unpack_results(packed, 3)
    with pytest.raises(BackendFailed, match="not a packed answer"):
        wire.unpack_results(b"\xff\xff", 1)
    with pytest.raises(BackendFailed, match=r"refused the batch \(INTERNAL\): oops"):
        wire.unpack_results(wire.pack_failure(ItemError(reason="INTERNAL", message="oops")), 1)
    bad = wire.pb.Map(kind=wire.pb.TARGET_KIND_CLASS, height=2, width=2, values=b"1234")
    broken = wire.pb.Results(results=[wire.pb.Result(maps=[bad])])
    with pytest.raises(BackendFailed, match="malformed: cannot reshape"):
        wire.unpack_results(broken.SerializeToString(), 1)
    nothing = wire.pb.Results(results=[wire.pb.Result(maps=[wire.pb.Map(height=1, width=1, values=b"1234")])])
    with pytest.raises(BackendFailed, match="target kind 0"):
        wire.unpack_results(nothing.SerializeToString(), 1)
    with pytest.raises(BackendFailed, match="description is malformed"):
        wire.unpack_description(packed)
    with pytest.raises(BackendFailed, match="description is malformed"):
        wire.unpack_description(wire.pb.Results(description_json='{"kind": "egdd"}').SerializeToString())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_raise_anything_else(header: bytes, pixels: bytes) -> None:
    for unpack in (
        lambda: wire.unpack_batch(header, pixels),
        lambda: wire.unpack_results(header, 1),
        lambda: wire.unpack_description(header),
    ):
        with contextlib.suppress(InvalidInput, BackendFailed):
            unpack()
