"""Captions say what the graph says."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.scenes import CLASSES, evidence_of, sample_scene
from training.scenes.captions import article, write_captions
from training.scenes.kinds import KINDS
from training.scenes.prompt import parse_prompt
from training.scenes.regions import choose_regions, graph_of


def cat_on_sofa() -> SceneGraph:
    box = Box(0, 0, 10, 10)
    objects = (SceneObject(1, "cat", box, ("orange",)), SceneObject(2, "sofa", box, ("red", "striped")))
    return SceneGraph(objects, (Relationship(1, 1, 2, "on"),))


@pytest.mark.parametrize(("words", "expected"), [("sofa", "a sofa"), ("orange cat", "an orange cat")])
def test_article(words: str, expected: str) -> None:
    assert article(words) == expected


def test_a_small_graph() -> None:
    captions = write_captions(cat_on_sofa(), Random(0), 8)
    assert len(set(captions)) == 8
    plain = re.compile(r"(there is |a room with |a picture of |we see |the room has )?"
                       r"an? (orange )?cat (standing on|on top of|on) a (red )?(striped )?sofa")  # fmt: skip
    assert all(plain.fullmatch(caption) for caption in captions), captions


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), label=st.sampled_from(CLASSES))
def test_regions_of_any_scene(seed: int, label: str) -> None:
    scene, rendered = sample_scene(label, str(seed), size=96)
    whole = graph_of(scene, rendered)
    boxes = {item.id: item.box for item in whole.objects}
    regions = choose_regions(scene, rendered, Random(seed), 2)
    assert regions
    assert set(evidence_of(scene)) <= {item.id for item in regions[0].graph.objects} or len(regions) == 1
    for region in regions:
        graph = region.graph
        assert 2 <= len(graph.objects) <= 4
        assert len(graph.nodes()) <= 10
        graph.check_inside(96, 96)
        assert all(item.box == boxes[item.id] for item in graph.objects)
        names = sorted(item.name for item in graph.objects)
        assert len(set(names)) == len(names)
        assert len(set(region.captions)) == len(region.captions) == 5
        truth = {(link.subject_id, link.name, link.object_id) for link in whole.relationships}
        assert {(link.subject_id, link.name, link.object_id) for link in graph.relationships} <= truth
        for caption in region.captions:
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", caption)
            assert len(caption.split()) <= 20
            assert sorted(word for word in set(caption.split()) if word in KINDS) == names
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption)
            check_reads_back(caption, graph)


def check_reads_back(caption: str, graph: SceneGraph) -> None:
    """Parsing the caption gives objects, attributes and relationships of the graph, and nothing else."""
    prompt = parse_prompt(caption)
    assert prompt.unknown == ()
    owned = {item.name: set(item.attributes) for item in graph.objects}
    for wish in prompt.wishes:
        assert set(wish.attributes) <= owned[wish.kind]
    by_id = {item.id: item.name for item in graph.objects}
    pairs = {frozenset((by_id[link.subject_id], by_id[link.object_id])) for link in graph.relationships}
    told = {frozenset((prompt.wishes[a].kind, prompt.wishes[b].kind)) for a, _, b in prompt.links}
    told |= {frozenset((wish.kind, prompt.wishes[wish.on].kind)) for wish in prompt.wishes if wish.on is not None}
    assert told == pairs
