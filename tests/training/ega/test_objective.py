from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from saaa.models.captioner import BOS, EOS, Captioner, CaptionerConfig, collate
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.ega.batches import Batch
from training.ega.objective import SMALLEST_PART, Weights, _keep, count_totals, loss_and_gradients, split

WORDS, NODES, NAMES = 11, 5, 4
EVERYTHING = Weights(smoothing=0.1, explanation=0.7, naming=0.3)


def graph_of(objects: int):
    box = Box(0, 0, 9, 9)
    things = tuple(SceneObject(k, f"thing {k}", box, ("red",) if k == 0 else ()) for k in range(objects))
    links = (Relationship(1, 0, objects - 1, "near"),) if objects > 1 else ()
    return SceneGraph(things, links).role_graph()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    captioner = Captioner(CaptionerConfig(vocabulary_size=WORDS, region_size=8, global_size=6, width=8)).double()
    return captioner, nn.Linear(8, NAMES).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(1)
    size = 3 * SMALLEST_PART
    graphs = collate([graph_of(1 + k % 3) for k in range(size)], nodes=NODES).to("cpu", torch.float64)
    lengths = torch.from_numpy(rng.integers(2, 8, size))
    captions = torch.from_numpy(rng.integers(3, WORDS, (size, 7)))
    captions[:, 0] = BOS
    captions[torch.arange(size), lengths - 1] = EOS
    named = torch.zeros(size, 7, NODES, dtype=torch.float64)
    names = torch.full((size, NODES), -1)
    for row in range(size):
        count = int(graphs.mask[row].sum())
        names[row, :count] = torch.from_numpy(rng.integers(-1, NAMES, count))
        for place in range(1, int(lengths[row]) - 1):
            if rng.random() < 0.6:
                named[row, place, rng.integers(count)] = 1
    return Batch(
        regions=torch.from_numpy(rng.normal(size=(size, NODES, 8))),
        image=torch.from_numpy(rng.normal(size=(size, 6))),
        graphs=graphs,
        captions=captions,
        lengths=lengths,
        names=names,
        named=named,
    )


def compute(model, batch, weights, **options):
    return loss_and_gradients(*model, batch, weights, count_totals(batch, weights), **options)


def test_the_loss_is_the_sum_of_its_three_means(model, batch):
    """Against the plain definition: each part a mean over the whole batch."""
    captioner, naming = model
    captioner.zero_grad()
    taught = captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
    logits = captioner.decoder.score_words(taught.hidden)
    loss = nn.functional.cross_entropy(logits, taught.targets, label_smoothing=0.1)
    wanted = batch.named[taught.rows, taught.steps + 1]
    attended = (wanted * (taught.attention + 1e-6).log()).sum(1)
    loss = loss - 0.7 * attended[wanted.sum(1) > 0].mean()
    told = nn.functional.cross_entropy(naming(taught.memory).flatten(0, 1), batch.names.flatten(), ignore_index=-1)
    (loss + 0.3 * told).backward()
    value, gradients = compute(model, batch, EVERYTHING, seed=(0, 0))
    assert value == pytest.approx(float((loss + 0.3 * told).detach()), rel=1e-10)
    for parameter, gradient in zip([*captioner.parameters(), *naming.parameters()], gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-10)


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_in_threads_add_up_to_the_whole(model, batch, parts):
    whole, expected = compute(model, batch, EVERYTHING, seed=(0, 0))
    with ThreadPoolExecutor(parts) as pool:
        value, gradients = compute(model, batch, EVERYTHING, seed=(0, 0), parts=parts, pool=pool)
    assert value == pytest.approx(whole, rel=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(expected, gradients, strict=True))


def test_what_is_dropped_follows_from_the_seed_alone(model, batch):
    weights = Weights(dropout=0.5, feature_dropout=0.2)
    with ThreadPoolExecutor(2) as pool:
        one, two, other = (compute(model, batch, weights, seed=(0, step), parts=2, pool=pool) for step in (1, 1, 2))
    assert one[0] == two[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], two[1], strict=True) if a is not None)
    assert one[0] != other[0]


def test_parts_hold_every_caption_once_and_are_not_too_small(batch):
    assert len(split(batch, 8)) == 3
    assert len(split(batch.select(torch.arange(5)), 8)) == 1
    pieces = split(batch, 2)
    assert sorted(torch.cat([p.lengths for p in pieces]).tolist()) == sorted(batch.lengths.tolist())
    for piece in pieces:
        assert piece.captions.shape[1] == piece.lengths.max()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_drop_the_asked_share_and_keep_the_mean(rate):
    mask = _keep(torch.empty(400, 500), rate, np.random.default_rng([1, 2]))
    assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    assert float(mask.mean()) == pytest.approx(1, abs=0.01)


def test_a_side_task_that_is_off_has_no_gradients(model, batch):
    _, gradients = compute(model, batch, Weights(), seed=(0, 0))
    assert gradients[-1] is None
    assert gradients[-2] is None
    assert all(gradient is not None for gradient in gradients[:-2])


def test_no_gradient_is_shared_between_parameters(model, batch):
    """Clipping changes gradients in place; a shared one would be clipped twice."""
    _, gradients = compute(model, batch, EVERYTHING, seed=(0, 0))
    addresses = [gradient.data_ptr() for gradient in gradients if gradient is not None]
    assert len(set(addresses)) == len(addresses)
