"""What each node of a scene graph does to a prediction: change it in the image, and ask the network again.

`saaa.concepts.effect_definition` names which of the following an effect is:

- object: its box's Shapley value ("shapley"; "kernel_shap" is the estimate above `EXACT_REGIONS` objects);
- attribute: the logit minus the logit with the owner's box in shades of grey ("desaturation"): what the colours of the
  owner are worth, the same for all of its attributes;
- relationship: the Shapley interaction of subject and object ("shapley_interaction"; above `EXACT_REGIONS` objects the
  mean over random contexts, "sampled_shapley_interaction"): what the two are worth together beyond each alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saaa.attribution.base import frozen
from saaa.attribution.region_shapley import Game, play
from saaa.attribution.removal import box_regions, chunks, coalition_logits, object_regions
from saaa.attribution.shapley import sampled_contexts, sampled_interaction, shapley_interactions
from saaa.errors import SceneGraphError
from saaa.models.classifier import Classifier
from saaa.role_graph import NodeKind, RoleGraph
from saaa.work import ExplainOptions

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601), as Pillow's mode "L"."""
LEAST_CONTEXTS = 8
"""Contexts drawn for a relationship at the least."""
SUBJECT_TO_RELATIONSHIP, RELATIONSHIP_TO_OBJECT = 2, 4
"""Types of `RoleGraph.edges`."""

Pair = tuple[int, int]


def node_effects(
    classifier: Classifier,
    inputs: Tensor,
    targets: Sequence[Sequence[int]],
    graphs: Sequence[RoleGraph],
    options: ExplainOptions,
) -> list[list[NDArray[np.float32]]]:
    """Measure the effect of each node on each target.

    Costs an image 2^R forwards for R <= `EXACT_REGIONS` objects, else 2 + masks and as many again for its
    relationships together (but at least 4 * `LEAST_CONTEXTS` for each); and one for each object with attributes. All
    targets share them.

    Args:
        classifier: in any mode; it is left as it was found.
        inputs: (B, 3, S, S), as `Classifier.preprocess` gives them.
        targets: for each image the class indices.
        graphs: for each image its graph, boxes in pixels of the model's input.
        options: masks and seed, for graphs of more than `EXACT_REGIONS` objects.

    Returns:
        For each image and target (nodes,), in units of the target's logit, in the order of the graph's nodes. A node
        whose box lies outside of the input has the effect 0.

    Raises:
        SceneGraphError: a relationship that lacks its subject or object, found before any computing.
    """
    pairs = [_ends(graph) for graph in graphs]
    with frozen(classifier), torch.no_grad():
        return [
            list(_of_image(classifier, image, list(chosen), graph, ends, options).T.float().cpu().numpy())
            for image, chosen, graph, ends in zip(inputs, targets, graphs, pairs, strict=True)
        ]


def desaturate(classifier: Classifier, image: Tensor, regions: Tensor) -> Tensor:
    """Take the colour out of each region in turn, keeping its brightness.

    Args:
        classifier: tells how inputs are normalised.
        image: (3, S, S), preprocessed.
        regions: bool, (n, S, S).

    Returns:
        (n, 3, S, S), preprocessed.
    """
    colours = image * classifier.std[0] + classifier.mean[0]
    luma = torch.tensordot(colours.new_tensor(LUMA), colours, dims=1)
    return torch.where(regions[:, None], classifier.normalise(luma.expand(1, 3, -1, -1)), image)


def _of_image(
    classifier: Classifier,
    image: Tensor,
    chosen: list[int],
    graph: RoleGraph,
    ends: dict[int, Pair],
    options: ExplainOptions,
) -> Tensor:
    """Effects (nodes, chosen) of one graph; `ends` as `_ends` gives them."""
    regions = object_regions(graph, image.shape[-1]).to(image.device)
    game = play(classifier, image, regions, options)
    effects = torch.zeros((len(graph), len(chosen)), dtype=torch.float64, device=image.device)
    effects[_of_kind(graph, NodeKind.OBJECT)] = game.shapley(chosen)
    if owned := _of_kind(graph, NodeKind.ATTRIBUTE):
        effects[owned] = _colour_effects(classifier, image, graph.boxes[owned], game.logits[-1])[:, chosen]
    if ends:
        worth = _interactions(classifier, image, regions, game, sorted(set(ends.values())), chosen, options)
        for node, pair in ends.items():
            effects[node] = worth[pair]
    return effects


def _colour_effects(classifier: Classifier, image: Tensor, boxes: NDArray[np.float32], logits: Tensor) -> Tensor:
    """For each box (n, 4), `logits` minus those without its colours: (n, classes); one forward a different box."""
    different, place = np.unique(boxes, axis=0, return_inverse=True)
    regions = box_regions(different, image.shape[-1]).to(image.device)
    grey = torch.cat([classifier(desaturate(classifier, image, regions[piece])) for piece in chunks(len(regions))])
    return (logits - grey).double()[torch.from_numpy(place.reshape(-1))]


def _interactions(
    classifier: Classifier,
    image: Tensor,
    regions: Tensor,
    game: Game,
    pairs: list[Pair],
    chosen: list[int],
    options: ExplainOptions,
) -> dict[Pair, Tensor]:
    """The Shapley interaction (chosen,) of each pair of objects."""
    if game.exact:
        return dict(zip(pairs, shapley_interactions(game.logits[:, chosen], pairs), strict=True))
    count = max(LEAST_CONTEXTS, options.masks // (4 * len(pairs)))
    found = {}
    for pair in pairs:
        # Each pair draws from its own beginning, so that other relationships of the graph do not matter but by number.
        contexts = sampled_contexts(len(regions), pair, count, torch.Generator().manual_seed(options.seed))
        found[pair] = sampled_interaction(coalition_logits(classifier, image, regions, contexts)[:, chosen])
    return found


def _ends(graph: RoleGraph) -> dict[int, Pair]:
    """For each relationship node its subject and object, as places among the object nodes, the smaller first."""
    place = {node: i for i, node in enumerate(_of_kind(graph, NodeKind.OBJECT))}
    found: dict[int, Pair] = {}
    for node in _of_kind(graph, NodeKind.RELATIONSHIP):
        subjects = {int(s) for s, t, kind in graph.edges if t == node and kind == SUBJECT_TO_RELATIONSHIP}
        objects = {int(t) for s, t, kind in graph.edges if s == node and kind == RELATIONSHIP_TO_OBJECT}
        both = subjects | objects
        if len(subjects) != 1 or len(objects) != 1 or len(both) != 2 or not both <= place.keys():
            raise SceneGraphError(
                f"relationship node {node} needs edges from one object node and to another; add them or leave it out",
                field="graph.edges",
            )
        first, second = sorted(place[end] for end in both)
        found[node] = (first, second)
    return found


def _of_kind(graph: RoleGraph, kind: NodeKind) -> list[int]:
    return [int(node) for node in np.flatnonzero(graph.types == kind)]
