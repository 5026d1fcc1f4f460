"""Graphs to learn along beside the true ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from tests.training.ega.tiny_run import SIZES, assert_same, config_for, eventful, signalled
from training.distributed import World
from training.ega.data import load_data
from training.ega.dataset import CaptionSet
from training.ega.proposals import propose_graphs
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.ega.train import train
from training.ega.views import COPIES, FARTHEST, SPREAD, Views, make_views, meeting, move
from training.stopping import Stopped

SIDE = 200


def graph_of(*boxes: Box) -> SceneGraph:
    links = tuple(Relationship(k, k, k + 1, "near") for k in range(len(boxes) - 1))
    return SceneGraph(tuple(SceneObject(k, f"thing {k}", box, ("red",)) for k, box in enumerate(boxes)), links)


@st.composite
def boxes(draw):
    x, y = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
    return Box(x, y, draw(st.integers(1, SIDE - x)), draw(st.integers(1, SIDE - y)))


@given(st.lists(boxes(), min_size=1, max_size=4), st.integers(0, 2**32))
def test_moved_boxes_stay_near_and_in_the_image(given_boxes, seed):
    graph = graph_of(*given_boxes)
    found = move(graph, np.random.default_rng(seed))
    assert found.relationships == graph.relationships
    assert found.nodes() == graph.nodes()
    most = SPREAD * FARTHEST
    for one, two in zip(graph.objects, found.objects, strict=True):
        assert two.box.x >= 0
        assert two.box.y >= 0
        assert two.box.x < SIDE
        assert two.box.y < SIDE  # so there is something left to cut out
        # A side moves by its own length x 0.2, and its ends by another half of how much it grows.
        reach = most + np.expm1(most) / 2
        assert abs(two.box.x - one.box.x) <= reach * one.box.width + 1
        assert abs(two.box.bottom - one.box.bottom) <= reach * one.box.height + 1
        assert two.box.width <= np.exp(most) * one.box.width + 1


def test_boxes_are_moved_by_a_tenth_of_their_sides():
    graph, rng = graph_of(Box(1000, 2000, 400, 100)), np.random.default_rng(0)
    moved = np.array([move(graph, rng).objects[0].box.ltrb() for _ in range(2000)], float)
    middle = (moved[:, :2] + moved[:, 2:]) / 2 - [1200, 2050]
    stretched = np.log((moved[:, 2:] - moved[:, :2]) / [400, 100])
    assert np.abs(middle.mean(0)).max() < 3
    # Cutting the normal distribution at 2 deviations leaves 0.96 of them.
    assert middle.std(0) == pytest.approx([0.096 * 400, 0.096 * 100], rel=0.05)
    assert stretched.std(0) == pytest.approx([0.096, 0.096], rel=0.06)


def test_graphs_meet_as_far_as_their_boxes_share_area():
    """Solved by hand."""
    left, right, whole = Box(0, 0, 32, 64), Box(32, 0, 32, 64), Box(0, 0, 64, 64)
    assert meeting(graph_of(left, right), graph_of(right, left)) == 1
    assert meeting(graph_of(left), graph_of(right)) == 0
    assert meeting(graph_of(left), graph_of(whole)) == 1  # part of it
    # All of the one is in the other, of which it is half the objects: 2 x 1 x 1/2 / (1 + 1/2).
    assert meeting(graph_of(left), graph_of(left, right)) == pytest.approx(2 / 3)
    # A quarter of the box 32 x 64 is in the other of the same size, both ways.
    assert meeting(graph_of(left), graph_of(Box(24, 0, 32, 64))) == 0.25


@pytest.fixture(scope="module")
def views() -> Views:
    """Of 20 regions: rows 3 r to 3 r + 2 are moved graphs of region r, then one proposed graph for every fourth."""
    region = Region(image_id="a", region_id="1", graph=graph_of(Box(0, 0, 9, 9)), captions=("a",))
    proposed = torch.full((20,), -1)
    proposed[::4] = 60 + torch.arange(5)
    return Views(
        regions=[region] * 65,
        graphs=[region.graph] * 65,
        moved=torch.arange(60).view(20, 3),
        proposed=proposed,
        share_moved=0.5,
        share_proposed=0.1,
        seed=3,
    )


def test_each_epoch_deals_the_shares_asked_for(views):
    assert views.named == 60
    given_moved, given_proposed, copies = set(), set(), set()
    for epoch in range(40):
        dealt = views.deal(epoch)
        moved, proposed = (dealt >= 0) & (dealt < 60), dealt >= 60
        assert (int(moved.sum()), int(proposed.sum())) == (10, 2)
        assert torch.equal(dealt[moved] // 3, moved.nonzero()[:, 0])  # one of its own
        assert torch.equal((dealt[proposed] - 60) * 4, proposed.nonzero()[:, 0])
        given_moved |= set(moved.nonzero()[:, 0].tolist())
        given_proposed |= set(proposed.nonzero()[:, 0].tolist())
        copies |= set((dealt[moved] % 3).tolist())
    assert given_moved == set(range(20))
    assert given_proposed == {0, 4, 8, 12, 16}
    assert copies == {0, 1, 2}


def test_what_is_dealt_follows_from_seed_and_epoch(views):
    assert torch.equal(views.deal(7), views.deal(7))
    assert not torch.equal(views.deal(7), views.deal(8))
    assert not torch.equal(views.deal(7), replace(views, seed=4).deal(7))


def test_all_proposed_graphs_are_dealt_where_there_are_too_few(views):
    dealt = replace(views, share_proposed=0.5).deal(0)
    assert sorted(dealt[dealt >= 60].tolist()) == [60, 61, 62, 63, 64]
    assert int((dealt >= 0).sum()) == 15


@pytest.fixture(scope="module")
def regions(tiny_world) -> list[Region]:
    return AnnotationFolder(tiny_world / "annotations").regions("trn", Skipped())


def test_a_proposed_graph_goes_with_the_region_that_covers_most_of_it(tiny_world, tiny_models, regions, tmp_path):
    folder = ImageFolder(tiny_world, {region.file_name for region in regions})
    proposer = tiny_models / "egdd.mar"
    names = {region.file_name for region in regions}
    wanted = propose_graphs(proposer, names, folder)
    # A second region of each image that is just what is proposed, and a third that is nowhere near.
    far = SceneGraph((SceneObject(1, "far", Box(5000, 5000, 9, 9)),))
    more = [
        Region(image_id=r.image_id, region_id=name, graph=graph, captions=r.captions)
        for r in regions
        for name, graph in (("far", far), ("0", r.graph), ("same", wanted[r.file_name]))
    ]
    made = make_views(more, folder, jitter=0, proposed=0.2, proposer=proposer, seed=0, cache=tmp_path / "proposed.json")
    assert made.named == 0
    assert [more[row].region_id for row in (made.proposed >= 0).nonzero()[:, 0]] == ["same"] * len(names)
    assert all(graph == wanted[region.file_name] for region, graph in zip(made.regions, made.graphs, strict=True))
    only_far = [region for region in more if region.region_id == "far"]
    none = make_views(
        only_far, folder, jitter=0, proposed=0.2, proposer=proposer, seed=0, cache=tmp_path / "proposed.json"
    )
    assert not none.graphs
    assert (none.proposed == -1).all()


@pytest.fixture(scope="module")
def mixed(tiny_world, tiny_models, tmp_path_factory):
    """A training set with all kinds of graphs, and the one with true graphs only."""
    found = []
    for options in ({"jitter": 0.5, "proposed": 0.4, "proposer": tiny_models / "egdd.mar"}, {}):
        config = config_for(tiny_world, tmp_path_factory.mktemp("mixed"), explanation_weight=1.0, **options)
        torch.manual_seed(0)  # the backbone is random
        found.append(load_data(config, World()).train)
    return found


def test_each_region_is_seen_along_what_it_was_dealt(mixed):
    captions, plain = mixed
    assert isinstance(captions, CaptionSet)
    rows = torch.arange(len(captions))
    count = SIZES["trn"]
    # Before the first epoch all graphs are true.
    assert torch.equal(captions.batch(rows, "cpu").regions[:, :5], plain.batch(rows, "cpu").regions[:, :5])
    captions.begin_epoch(0)
    batch, true = captions.batch(rows, "cpu"), plain.batch(rows, "cpu")
    dealt = captions.views.deal(0)[captions.region_of]
    own, moved, proposed = dealt < 0, (dealt >= 0) & (dealt < count * COPIES), dealt >= count * COPIES
    assert min(int(kind.sum()) for kind in (own, moved, proposed)) >= 2

    assert torch.equal(batch.captions, true.captions)
    assert torch.equal(batch.image, true.image)
    assert torch.equal(batch.regions[own][:, :5], true.regions[own])
    for kind in (own, moved):
        assert torch.equal(batch.graphs.types[kind][:, :5], true.graphs.types[kind])
        assert torch.equal(batch.names[kind][:, :5], true.names[kind])
        assert torch.equal(batch.named[kind][:, :, :5], true.named[kind])
    changed = (batch.regions[moved][:, :5] - true.regions[moved]).abs().amax(2)
    assert (changed > 1e-3).all()  # every node's box is another
    assert (batch.names[proposed] == -1).all()
    assert not batch.named[proposed].any()
    assert not (batch.graphs.types[proposed] == 1).any()  # nobody proposes attributes

    captions.begin_epoch(1)
    assert not torch.equal(captions.batch(rows, "cpu").regions, batch.regions)


def test_stop_and_resume_equals_uninterrupted(tiny_world: Path, tiny_models: Path, tmp_path: Path) -> None:
    """Within an epoch: what is dealt in it, and in the next, comes back."""
    options = {"jitter": 0.4, "proposed": 0.4, "proposer": tiny_models / "egdd.mar", "num_workers": 2}
    train(eventful(tiny_world, tmp_path / "whole", **options))
    with signalled(3, 15), pytest.raises(Stopped):
        train(eventful(tiny_world, tmp_path / "cut", **options))
    train(eventful(tiny_world, tmp_path / "cut", resume=tmp_path / "cut" / "last.pt", **options))
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "cut" / "last.pt")
