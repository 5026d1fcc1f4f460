"""Regions: small sub-graphs of a scene's graph, each with captions that name all of its objects."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.scenes.captions import Caption, write_captions
from training.scenes.classes import evidence_of
from training.scenes.renderer import Rendered
from training.scenes.scene import Relation, Scene

MAX_NODES = 10
"""What the captioner sees of a graph: objects, attributes and relationships together."""
CAPTIONS = 5


@dataclass(frozen=True, kw_only=True)
class Region:
    """A sub-graph and its captions, the first of which is the phrase; all differ, and all name every object."""

    graph: SceneGraph
    captions: tuple[Caption, ...]

    def to_json(self) -> dict[str, object]:
        """The region in the published annotation format."""
        return self.graph.to_region(self.captions[0])


def graph_of(scene: Scene, rendered: Rendered) -> SceneGraph:
    """The whole scene as a graph: every object with its tight visible box in pixels, every relationship."""
    objects = []
    for thing in scene.things:
        box = rendered.box(thing.id)
        if box is not None:
            objects.append(SceneObject(thing.id, thing.kind, Box(*box), thing.attributes))
    seen = {item.id for item in objects}
    relations = [r for r in scene.relations if r.subject in seen and r.object in seen]
    links = [Relationship(k + 1, r.subject, r.object, r.name) for k, r in enumerate(relations)]
    return SceneGraph(tuple(objects), tuple(links))


def choose_regions(scene: Scene, rendered: Rendered, rng: Random, count: int = 2) -> list[Region]:
    """Regions of a scene: the first holds the evidence, the others start anywhere; no two name the same objects.

    Args:
        scene: the scene.
        rendered: its picture, for the boxes.
        rng: source of chance.
        count: how many regions are wanted; at least 1 comes back, fewer than `count` only if the scene has too few
            objects.
    """
    whole = graph_of(scene, rendered)
    regions: list[Region] = []
    used: set[frozenset[int]] = set()
    for attempt in range(12 * count):
        if len(regions) == count:
            break
        start = list(evidence_of(scene)) if not regions and attempt < 6 else []
        chosen = _grow(scene, start, rng)
        names = [scene.thing(identity).kind for identity in chosen]
        if len(chosen) < 2 or len(set(names)) < len(names) or frozenset(chosen) in used:
            continue
        graph = _trim(whole, scene, chosen, rng)
        captions = write_captions(graph, rng, CAPTIONS)
        if len(captions) == CAPTIONS:
            used.add(frozenset(chosen))
            regions.append(Region(graph=graph, captions=captions))
    return regions


def _grow(scene: Scene, start: list[int], rng: Random) -> list[int]:
    """Ids of 2 to 4 objects, each but the start joined to an earlier one by a relationship where there is one."""
    target = max(len(start), rng.choice((2, 3, 3, 4)))
    chosen = list(start)
    everything = [thing.id for thing in scene.things]
    if not chosen:
        chosen = [rng.choice(everything)]
    while len(chosen) < target:
        kinds = {scene.thing(identity).kind for identity in chosen}
        rest = [i for i in everything if i not in chosen and scene.thing(i).kind not in kinds]
        if not rest:
            break
        joined = [i for i in rest if any({r.subject, r.object} & {i} and {r.subject, r.object} & set(chosen)
                                         for r in scene.relations)]  # fmt: skip
        chosen.append(rng.choice(joined or rest))
    return chosen


def _trim(whole: SceneGraph, scene: Scene, chosen: list[int], rng: Random) -> SceneGraph:
    """The sub-graph of some objects with a spanning set of relationships and as many attributes as the limit allows."""
    inside = [r for r in scene.relations if r.subject in chosen and r.object in chosen]
    rng.shuffle(inside)
    inside.sort(key=lambda r: r.name != "on")
    kept: list[Relation] = []
    group = {identity: identity for identity in chosen}
    for relation in inside:
        a, b = group[relation.subject], group[relation.object]
        if a != b:
            kept.append(relation)
            group = {i: (a if g == b else g) for i, g in group.items()}
    budget = MAX_NODES - len(chosen) - len(kept)
    words = {identity: list(scene.thing(identity).attributes) for identity in chosen}
    while sum(map(len, words.values())) > budget:
        longest = max(words.values(), key=len)
        longest.pop(rng.randrange(len(longest)))
    for identity in chosen:
        if words[identity] and rng.random() < 0.15:
            words[identity].pop()
    boxes = {item.id: item.box for item in whole.objects}
    objects = [SceneObject(i, scene.thing(i).kind, boxes[i], tuple(words[i])) for i in chosen]
    links = [Relationship(k + 1, r.subject, r.object, r.name) for k, r in enumerate(kept)]
    return SceneGraph(tuple(objects), tuple(links), max_nodes=MAX_NODES)
