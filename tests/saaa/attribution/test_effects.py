"""Effects of graph nodes: networks whose answer is known, and the definitions' names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saaa.attribution.effects import LEAST_CONTEXTS, desaturate, node_effects
from saaa.concepts import EXACT_REGIONS, effect_definition
from saaa.errors import SceneGraphError
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.role_graph import NodeKind, RoleGraph
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from saaa.work import ExplainOptions

SIZE = 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


class Counted(nn.Module):
    """A function of the pixels as a network; counts the images that it was given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.function(x)


def make(function: Callable[[Tensor], Tensor] | None = None) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture="test_vit", classes=("a", "b"), input_size=SIZE, mean=MEAN, std=STD)
    classifier = Classifier(config)
    if function is not None:
        classifier.net = Counted(function)
    return classifier


def some_inputs(count: int = 1) -> Tensor:
    return torch.randn((count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))


def box(place: int, width: int = 6) -> Box:
    """Boxes of 6 x 6 on a grid of four a row."""
    return Box(8 * (place % 4), 8 * (place // 4), width, 6)


def graph_of(*things: SceneObject, links: tuple[tuple[int, int], ...] = ()) -> RoleGraph:
    relationships = tuple(Relationship(i, s, o, "by") for i, (s, o) in enumerate(links))
    return SceneGraph(things, relationships).role_graph(max_nodes=100)


def plain(count: int, links: tuple[tuple[int, int], ...] = ()) -> RoleGraph:
    return graph_of(*(SceneObject(i, "thing", box(i)) for i in range(count)), links=links)


def seen(x: Tensor, place: int) -> Tensor:
    """Sum of the first channel over a box."""
    b = box(place)
    return x[:, 0, b.y : b.bottom, b.x : b.right].sum(dim=(1, 2))


def effects_of(
    classifier: Classifier, inputs: Tensor, targets: list[tuple[int, ...]], graphs: list[RoleGraph], **options: int
) -> list[list[NDArray[np.float32]]]:
    return node_effects(classifier, inputs, targets, graphs, ExplainOptions(**options))  # type: ignore[arg-type]


def test_linear_network() -> None:
    """An object is worth what its pixels add; nothing is worth more together."""
    weights = torch.randn((2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2))
    inputs = some_inputs()
    classifier = make(lambda x: torch.einsum("bchw,kchw->bk", x, weights))
    graph = plain(3, links=((0, 2), (2, 1)))
    (found,) = effects_of(classifier, inputs, [(1, 0)], [graph])
    assert classifier.net.images == 2**3
    for values, target in zip(found, (1, 0), strict=True):
        assert values.dtype == np.float32
        added = (inputs[0] * weights[target]).sum(dim=0)
        expected = [added[b.y : b.bottom, b.x : b.right].sum() for b in map(box, range(3))]
        np.testing.assert_allclose(values, [*expected, 0, 0], atol=1e-3)


def test_product_network() -> None:
    """Only together are two objects worth anything: each gets half, and their interaction is all of it."""
    inputs = torch.ones((1, 3, SIZE, SIZE))

    def product(x: Tensor) -> Tensor:
        return torch.stack([seen(x, 0) * seen(x, 1), seen(x, 0) * seen(x, 1) * seen(x, 2)], dim=1)

    (found,) = effects_of(make(product), inputs, [(0, 1)], [plain(3, links=((1, 0), (0, 2), (2, 0)))])
    two, three = 36.0**2, 36.0**3
    np.testing.assert_allclose(found[0], [two / 2, two / 2, 0, two, 0, 0], atol=two * 1e-6)
    # With the third object present the pair makes the product, without it nothing.
    np.testing.assert_allclose(found[1], [three / 3] * 3 + [three / 2] * 3, rtol=1e-6)


def test_overlapping_boxes() -> None:
    """What two boxes share is seen while either is there: it is halved, and counts against the pair."""
    things = (SceneObject(0, "a", Box(0, 0, 6, 4)), SceneObject(1, "b", Box(4, 0, 4, 4)))
    classifier = make(lambda x: x[:, :2].sum(dim=(2, 3)))
    (found,) = effects_of(classifier, torch.ones((1, 3, SIZE, SIZE)), [(0,)], [graph_of(*things, links=((0, 1),))])
    np.testing.assert_allclose(found[0], [16 + 8 / 2, 8 + 8 / 2, -8], rtol=1e-6)


def test_colour_and_brightness() -> None:
    """Where colour counts, an object's share goes with its colours; where only brightness does, nothing goes."""
    std, mean = torch.tensor(STD).view(1, 3, 1, 1), torch.tensor(MEAN).view(1, 3, 1, 1)

    def look(x: Tensor) -> Tensor:
        colours = x * std + mean
        red = (colours[:, 0] - colours[:, 1]).sum(dim=(1, 2))
        bright = torch.tensordot(torch.tensor([0.299, 0.587, 0.114]), colours, dims=([0], [1])).sum(dim=(1, 2))
        return torch.stack([red, bright], dim=1)

    things = (
        SceneObject(0, "a", box(0), ("red", "striped")),
        SceneObject(1, "b", box(1)),
        SceneObject(2, "c", box(2), ("blue",)),
    )
    pixels = torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8)
    pixels[..., 0], pixels[..., 1] = 153, 51  # 0.6 and 0.2: 0.4 of red in each of 36 pixels
    classifier = make(look)
    (found,) = effects_of(classifier, classifier.preprocess(pixels), [(0, 1)], [graph_of(*things)])
    assert classifier.net.images == 2**3 + 2  # one image in grey for each owner
    kinds = graph_of(*things).types.tolist()
    assert kinds == [0, 1, 1, 0, 0, 1]
    np.testing.assert_allclose(found[0][[1, 2, 5]], 36 * 0.4, rtol=1e-4)
    np.testing.assert_allclose(found[1][[1, 2, 5]], 0, atol=1e-3)


def test_desaturate_touches_the_region_alone() -> None:
    classifier, image = make(), some_inputs()[0]
    regions = torch.zeros((2, SIZE, SIZE), dtype=torch.bool)
    regions[0, :3], regions[1, 5:, 7:] = True, True
    made = desaturate(classifier, image, regions)
    colours = (made * classifier.std + classifier.mean) / 255
    before = (image * classifier.std + classifier.mean) / 255
    for k, region in enumerate(regions):
        assert torch.equal(made[k][:, ~region], image[:, ~region])
        luma = 0.299 * before[0, 0] + 0.587 * before[0, 1] + 0.114 * before[0, 2]
        for channel in range(3):
            torch.testing.assert_close(colours[k, channel][region], luma[region], atol=1e-5, rtol=1e-4)


def test_many_objects_are_sampled() -> None:
    """Objects that add, and a pair that multiplies: its interaction is exact whatever contexts are drawn."""
    count = EXACT_REGIONS + 2

    def mixed(x: Tensor) -> Tensor:
        parts = torch.stack([seen(x, place) for place in range(count)], dim=1) / 36
        both = parts[:, 0] * parts[:, 1]
        return torch.stack([parts.sum(dim=1) + 3 * both, parts[:, 4]], dim=1)

    classifier = make(mixed)
    graph = plain(count, links=((0, 1), (4, 2), (1, 0)))
    (found,) = effects_of(classifier, torch.ones((1, 3, SIZE, SIZE)), [(0, 1)], [graph], masks=200)
    assert classifier.net.images == 202 + 2 * 4 * (200 // 8)  # two different pairs share the second 200
    np.testing.assert_allclose(found[0], [2.5, 2.5, *[1] * 8, 3, 0, 3], atol=0.15)
    np.testing.assert_allclose(found[0][count:], [3, 0, 3], atol=1e-4)
    np.testing.assert_allclose(found[1], [*[0] * 4, 1, *[0] * 5, 0, 0, 0], atol=1e-4)
    few = make(mixed)
    effects_of(few, torch.ones((1, 3, SIZE, SIZE)), [(0,)], [graph], masks=10)
    assert few.net.images == 12 + 2 * 4 * LEAST_CONTEXTS


def test_batch_equals_one_by_one_and_nothing_is_left_behind() -> None:
    classifier, inputs = make(), some_inputs(3)
    classifier.train()
    targets: list[tuple[int, ...]] = [(0,), (1, 0), ()]
    coloured = graph_of(SceneObject(3, "a", box(5, 9), ("red",)), SceneObject(5, "b", box(6)), links=((5, 3),))
    graphs = [plain(2, links=((0, 1),)), coloured, plain(10, links=((7, 8),))]
    together = effects_of(classifier, inputs, targets, graphs, masks=20)
    assert [[len(values) for values in of_image] for of_image in together] == [[3], [4, 4], []]
    assert all(module.training for module in classifier.modules())
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    for i in range(2):
        alone = effects_of(classifier, inputs[i : i + 1], targets[i : i + 1], graphs[i : i + 1], masks=20)
        for one, batched in zip(alone[0], together[i], strict=True):
            assert np.abs(one).max() > 0
            np.testing.assert_allclose(batched, one, rtol=0, atol=1e-5 * np.abs(one).max())


def test_a_box_outside_has_no_effect() -> None:
    things = (SceneObject(0, "a", Box(100, 0, 6, 4), ("red",)), SceneObject(1, "b", box(1)))
    (found,) = effects_of(make(), some_inputs(), [(0,)], [graph_of(*things, links=((0, 1),))])
    np.testing.assert_allclose(found[0][[0, 1, 3]], 0, atol=1e-6)
    assert abs(found[0][2]) > 1e-3


@pytest.mark.parametrize(
    "edges", [[], [(0, 2, 2)], [(0, 2, 2), (2, 0, 4)], [(0, 2, 2), (2, 1, 4), (1, 2, 2)], [(0, 2, 2), (2, 3, 4)]]
)
def test_a_relationship_without_ends_is_refused(edges: list[tuple[int, int, int]]) -> None:
    classifier = make(lambda x: x.mean(dim=(2, 3)))
    boxes = np.array([[0, 0, 4, 4]] * 4, np.float32)
    types = [NodeKind.OBJECT, NodeKind.OBJECT, NodeKind.RELATIONSHIP, NodeKind.ATTRIBUTE]
    graph = RoleGraph(np.array(types), np.array([0, 0, 0, 1]), boxes, np.array(edges, np.int64).reshape(-1, 3))
    with pytest.raises(SceneGraphError, match="relationship node 2"):
        effects_of(classifier, some_inputs(), [(0,)], [graph])
    assert classifier.net.images == 0


def test_definitions() -> None:
    few, many = EXACT_REGIONS, EXACT_REGIONS + 1
    assert [effect_definition(kind, few) for kind in NodeKind] == ["shapley", "desaturation", "shapley_interaction"]
    assert [effect_definition(kind, many) for kind in NodeKind] == [
        "kernel_shap",
        "desaturation",
        "sampled_shapley_interaction",
    ]
