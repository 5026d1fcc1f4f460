import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saaa.models.captioner import BOS, EOS, Captioner, CaptionerConfig, collate
from saaa.scene_graph import Box, SceneGraph, SceneObject
from saaa.work import CaptionResult
from training.ega.batches import CaptionSource
from training.ega.explanation import attended, explanation_cost, node_accuracy, said_node_accuracy

DISTANCES = ("cross_entropy", "kl", "mse", "cosine")
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("distance", "costs"),
    [
        # One node named, attended by half; two, attended by a quarter each; two, attended equally; none.
        ("cross_entropy", [math.log(2), math.log(4), math.log(2), 0]),
        ("kl", [math.log(2), math.log(2), 0, 0]),
        ("mse", [0.25 + 0.25, 2 * 0.0625 + 0.25, 0, 0]),
        ("cosine", [1 - HALF, 1 - 0.25 / (HALF * math.sqrt(0.375)), 0, 0]),
    ],
)
def test_distances_are_those_solved_by_hand(distance, costs):
    attention = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert explanation_cost(attention, wanted, distance).tolist() == pytest.approx(costs, abs=1e-5)


@given(st.integers(0, 2**32), st.sampled_from(DISTANCES))
def test_distances_are_least_where_attention_is_as_wanted(seed, distance):
    generator = torch.Generator().manual_seed(seed)
    wanted, other = torch.rand(2, 4, 6, generator=generator, dtype=torch.float64)
    wanted, other = wanted / wanted.sum(1, keepdim=True), other / other.sum(1, keepdim=True)
    least = explanation_cost(wanted, wanted, distance)
    assert (explanation_cost(other, wanted, distance) >= least - 1e-5).all()
    if distance != "cross_entropy":
        assert torch.allclose(least, torch.zeros(4, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_word_costs_in_proportion_to_its_weight(distance):
    attention = torch.tensor([[0.5, 0.3, 0.2]]).expand(3, -1)
    share = torch.tensor([0.0, 0.5, 0.5])
    costs = explanation_cost(attention, torch.tensor([1.0, 0.2, 0.0])[:, None] * share, distance).tolist()
    assert costs[0] > 0
    assert costs == pytest.approx([costs[0], 0.2 * costs[0], 0])


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_draw_attention_to_the_named_node(distance):
    """Also where it has none, all, or no word names a node."""
    scores = torch.tensor([[0.0, 0.0], [40.0, -40.0], [-40.0, 40.0], [1.0, 0.0]], requires_grad=True)
    wanted = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    (found,) = torch.autograd.grad(explanation_cost(scores.softmax(1), wanted, distance).sum(), scores)
    assert torch.isfinite(found).all()
    assert found[0, 1] < 0 < found[0, 0]
    assert not found[3].any()
    if distance in ("cross_entropy", "kl"):
        attention = torch.tensor([[1.0, 0.0]], requires_grad=True)
        explanation_cost(attention, torch.tensor([[0.0, 1.0]]), distance).sum().backward()
        assert attention.grad[0, 1] < -1e5  # a strong pull, but no infinite one


@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_is_computed_in_single(distance):
    attention = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    cost = explanation_cost(attention, torch.tensor([[0.0, 1.0]]), distance)
    assert cost.dtype == torch.float32
    assert torch.isfinite(cost).all()


def test_words_attend_rightly_where_the_most_attended_node_is_named():
    attention = torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    wanted = torch.tensor([[0.0, 1.0], [0.2, 0.0], [0.5, 0.5], [0.0, 0.0]])
    assert attended(attention, wanted) == (2, 3)
    assert attended(attention[3:], wanted[3:]) == (0, 0)


class OneGraph(CaptionSource):
    """Two captions along one graph of two objects; a word's node as given."""

    def __init__(self, named: torch.Tensor) -> None:
        self.captions = torch.tensor([[BOS, 3, 4, EOS], [BOS, 5, EOS, EOS]])
        self.lengths = torch.tensor([4, 3])
        self.region_of = torch.tensor([0, 0])
        self.named = named
        box = Box(0, 0, 9, 9)
        self.graph = SceneGraph((SceneObject(1, "cat", box), SceneObject(2, "dog", box))).role_graph()

    @property
    def regions(self):
        raise AssertionError("not needed")

    def stored(self, regions):
        generator = torch.Generator().manual_seed(0)
        graphs = collate([self.graph] * len(regions))
        features = torch.rand(1, 2, 6, generator=generator).expand(len(regions), -1, -1)
        return features, torch.rand(1, 5, generator=generator).expand(len(regions), -1), graphs

    def names_of(self, regions, nodes):
        return torch.full((len(regions), nodes), -1)

    def named_by(self, rows, tokens, nodes):
        return self.named[rows, :tokens, :nodes]


def test_node_accuracy_is_that_of_every_word_by_itself():
    torch.manual_seed(1)
    captioner = Captioner(CaptionerConfig(vocabulary_size=9, region_size=6, global_size=5, width=7)).eval()
    named = torch.zeros(2, 4, 2)
    captions = OneGraph(named)
    assert node_accuracy(captioner, captions, "cpu") is None
    best = {}
    for row, length in enumerate((3, 2)):
        ids = captions.captions[row : row + 1, : length + 1]
        taught = captioner.teach(*captions.inputs(torch.tensor([0]), "cpu"), ids, torch.tensor([length + 1]))
        best |= {(row, step + 1): int(a.argmax()) for step, a in enumerate(taught.attention)}
    named[0, 1, best[0, 1]] = 1
    named[0, 2, 1 - best[0, 2]] = 1
    named[1, 1] = 0.5
    named[0, 0] = 1  # nothing is predicted at BOS
    assert node_accuracy(captioner, captions, "cpu") == pytest.approx(2 / 3)


def test_node_accuracy_of_own_words_counts_their_heaviest_nodes():
    box = Box(0, 0, 9, 9)
    graph = SceneGraph((SceneObject(1, "cat", box, ("old",)), SceneObject(2, "dog", box)))
    weights = [[0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]]
    one, none = (
        CaptionResult(
            words=words,
            log_probabilities=np.zeros(len(words), np.float32),
            node_weights=np.array(rows, np.float32),
            log_probability=-1.0,
        )
        for words, rows in ((("old", "cat", "and", "dogs"), weights), (("so",), weights[:1]))
    )
    assert said_node_accuracy([one, none], [graph, graph]) == pytest.approx(2 / 3)
    assert said_node_accuracy([none], [graph]) is None
