"""The explanation loss: a caption word should be chosen while attending to the node that it names.

The published code has no such loss, only the papers (RA3, SA3) speak of one; this is our form of it: with target
weights g_t over the nodes for the words t that name one (`training.ega.alignment`) and the decoder's attention a_t, the
mean over those words of a distance between g_t and a_t.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from saaa.models.captioner import Captioner
from saaa.scene_graph import SceneGraph
from saaa.work import CaptionResult
from training.ega.alignment import align
from training.ega.batches import CaptionSource

ExplanationLoss = Literal["cross_entropy", "kl", "mse", "cosine"]
EPSILON = 1e-6
"""Keeps the logarithm finite where the attention is nought."""
BATCH = 64


def explanation_cost(attention: Tensor, wanted: Tensor, distance: ExplanationLoss = "cross_entropy") -> Tensor:
    """How far the attention of each word is from the nodes that it names, times the word's weight.

    With g the share of each node that a word names (its row of `wanted` over the row's sum) and a the attention, the
    distance is -sum g log a ("cross_entropy"), sum g log(g / a) ("kl"), sum (g - a)^2 ("mse": summed over the nodes, so
    that it does not fall with the number of nodes that the batch is padded to), or 1 - g.a / (|g| |a|) ("cosine").

    Args:
        attention: (words, N), rows sum to 1.
        wanted: (words, N), rows sum to the weight of the word: 1 unless relevance ratings lower it, 0 where it names no
            node, which then costs nothing.
        distance: which.

    Returns:
        (words,), in float32 or better; the loss is the sum over the sum of the weights.
    """
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
    weight = wanted.sum(1)
    share = wanted / weight.masked_fill(weight == 0, 1)[:, None]
    if distance == "mse":
        apart = (share - attention).square().sum(1)
    elif distance == "cosine":
        apart = 1 - nn.functional.cosine_similarity(share, attention, dim=1)
    else:
        apart = -(share * (attention + EPSILON).log()).sum(1)
        if distance == "kl":
            apart = apart + torch.special.xlogy(share, share).sum(1)
    return weight * apart


def attended(attention: Tensor, wanted: Tensor) -> tuple[int, int]:
    """How many words are said while attending most to a node that they name, and how many name a node.

    Args:
        attention, wanted: as for `explanation_cost`. Of nodes attended alike the first counts.
    """
    naming = wanted.sum(1) > 0
    right = wanted[naming].gather(1, attention[naming].argmax(1, keepdim=True)) > 0
    return int(right.sum()), len(right)


@torch.inference_mode()
def node_accuracy(captioner: Captioner, captions: CaptionSource, device: torch.device | str) -> float | None:
    """Attention-to-node accuracy on people's captions: of the words that name a node, the share that the captioner,
    given the words before, would say while attending most to a node that they name.

    It cannot reach 1 where people are free to leave out attributes: who attends to the next word's node must know
    whether that word is an attribute. See `said_node_accuracy`.

    Args:
        captioner: on `device`, in evaluation mode.
        captions: aligned.
        device: where to compute.

    Returns:
        0 to 1; None where no word names a node.
    """
    right = naming = 0
    for rows in torch.split(torch.argsort(captions.lengths, stable=True), BATCH):
        batch = captions.batch(rows, device)
        taught = captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
        found = attended(taught.attention, batch.named[taught.rows, taught.steps + 1])
        right, naming = right + found[0], naming + found[1]
    return right / naming if naming else None


def said_node_accuracy(said: Iterable[CaptionResult], graphs: Iterable[SceneGraph]) -> float | None:
    """Attention-to-node accuracy on the captioner's own captions: of the words that name a node of the graph along
    which they were said, the share whose heaviest node is one that they name; the weights are those that serving gives.

    Args:
        said: a caption along each graph.
        graphs: with their names.

    Returns:
        0 to 1; None where no word names a node.
    """
    right = naming = 0
    for caption, graph in zip(said, graphs, strict=True):
        weights = torch.from_numpy(caption.node_weights)
        found = attended(weights, align(caption.words, graph, weights.shape[1]))
        right, naming = right + found[0], naming + found[1]
    return right / naming if naming else None
