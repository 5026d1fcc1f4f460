"""Small captioners and graphs that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saaa.models.captioner import Captioner, CaptionerConfig
from saaa.role_graph import RoleGraph
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject

BOX = Box(0, 0, 10, 10)


def graph_of(attributes, links=()) -> RoleGraph:
    """A role graph of one object for each count in `attributes`, related as in `links` (subject, object)."""
    objects = tuple(
        SceneObject(i, f"thing {i}", BOX, tuple(f"look {k}" for k in range(count)))
        for i, count in enumerate(attributes)
    )
    return SceneGraph(objects, tuple(Relationship(i, s, o, "near") for i, (s, o) in enumerate(links))).role_graph()


GRAPHS = (
    graph_of([0]),
    graph_of([2, 0, 1], [(0, 1), (0, 2), (2, 1)]),
    graph_of([3]),
    graph_of([1, 1], [(1, 0)]),
    graph_of([1, 1, 1, 1], [(0, 1), (2, 3)]),  # ten nodes, the limit
)


@pytest.fixture
def graphs() -> tuple[RoleGraph, ...]:
    return GRAPHS


def build(vocabulary: int = 17, seed: int = 0, **sizes) -> Captioner:
    """A captioner with random weights everywhere, biases too, large enough that nothing hides."""
    torch.manual_seed(seed)
    options = {"region_size": 12, "global_size": 7, "width": 8, **sizes}
    model = Captioner(CaptionerConfig(vocabulary_size=vocabulary, **options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture
def make():
    return build


def inputs(model: Captioner, graphs, seed: int = 1):
    """Random region features a graph and image features, of the model's dtype."""
    rng = np.random.default_rng(seed)
    dtype = model.decoder.words.weight.dtype
    regions = [torch.tensor(rng.normal(size=(len(g.types), model.config.region_size)), dtype=dtype) for g in graphs]
    image = torch.tensor(rng.normal(size=(len(graphs), model.config.global_size)), dtype=dtype)
    return regions, image


@pytest.fixture
def draw():
    return inputs


def pad(regions, nodes: int, value: float = 0.0) -> torch.Tensor:
    """Regions of several graphs as one tensor, padded with `value`."""
    out = torch.full((len(regions), nodes, regions[0].shape[1]), value, dtype=regions[0].dtype)
    for row, region in enumerate(regions):
        out[row, : len(region)] = region
    return out


@pytest.fixture
def padded():
    return pad
