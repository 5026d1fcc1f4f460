import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from saaa.models.captioner import BOS, EOS, Captioner, CaptionerConfig, collate
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.ega.batches import Batch
from training.ega.config import EgaConfig
from training.ega.explanation import explanation_cost
from training.ega.objective import SMALLEST_PART, Totals, Weights, _keep, count_totals, loss_and_gradients, split
from training.precision import Precision

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


def test_own_words_follow_from_the_seed_too(model, batch):
    plain, one, two, other = (
        compute(model, batch, Weights(sampling=sampling), seed=(0, step))[0]
        for sampling, step in ((0.0, 1), (0.5, 1), (0.5, 1), (0.5, 2))
    )
    assert one == two
    assert len({plain, one, other}) == 3


def test_the_probability_of_own_words_rises(tmp_path):
    config = EgaConfig(data_path=tmp_path, scheduled_sampling=0.4, scheduled_sampling_epochs=4)
    assert [Weights.at(config, epochs).sampling for epochs in (0, 1, 4, 9.5)] == pytest.approx([0, 0.1, 0.4, 0.4])
    assert Weights.at(dataclasses.replace(config, scheduled_sampling_epochs=0), 0).sampling == 0.4


@pytest.mark.parametrize("distance", ["cross_entropy", "kl", "mse", "cosine"])
def test_batches_computed_apart_add_up_by_their_common_totals(model, batch, distance):
    """What several processes do; only the first one has words that name a node, and names."""
    rows = torch.arange(len(batch)) >= 20
    batch = dataclasses.replace(
        batch, named=batch.named.masked_fill(rows[:, None, None], 0), names=batch.names.masked_fill(rows[:, None], -1)
    )
    weights = dataclasses.replace(EVERYTHING, distance=distance)
    whole, expected = compute(model, batch, weights, seed=(0, 0))
    pieces = [batch.select(part) for part in torch.arange(len(batch)).split(20)]
    totals = Totals(*map(sum, zip(*(count_totals(piece, weights) for piece in pieces), strict=True)))
    assert totals == count_totals(batch, weights)
    assert count_totals(pieces[1], weights)[1:] == (0, 0)
    found = [loss_and_gradients(*model, piece, weights, totals, seed=(0, 0)) for piece in pieces]
    assert sum(value for value, _ in found) == pytest.approx(whole, rel=1e-10)
    for gradient, *parts in zip(expected, *(gradients for _, gradients in found), strict=True):
        assert torch.allclose(gradient, sum(part for part in parts if part is not None), atol=1e-10)


def test_nothing_to_explain_or_to_name_is_the_plain_loss(model, batch):
    bare = dataclasses.replace(batch, named=torch.zeros_like(batch.named), names=torch.full_like(batch.names, -1))
    value, gradients = compute(model, bare, EVERYTHING, seed=(0, 0))
    plain, expected = compute(model, bare, Weights(smoothing=0.1), seed=(0, 0))
    assert value == plain
    for one, two in zip(gradients, expected, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)


def test_less_relevant_words_count_less(model, batch):
    """The explanation's mean is weighted: weights of 1/2 for all change nothing, weights of 0 leave words out."""
    weights = Weights(explanation=1.0)
    whole, _ = compute(model, batch, weights, seed=(0, 0))
    half, _ = compute(model, dataclasses.replace(batch, named=batch.named / 2), weights, seed=(0, 0))
    assert half == pytest.approx(whole, rel=1e-10)
    first = dataclasses.replace(batch, named=batch.named * (torch.arange(7) < 3)[None, :, None])
    taught = model[0].teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
    wanted = batch.named[taught.rows, taught.steps + 1] * (taught.steps < 2)[:, None]
    costs = explanation_cost(taught.attention, wanted)[wanted.sum(1) > 0]
    value, _ = compute(model, first, weights, seed=(0, 0))
    plain, _ = compute(model, batch, Weights(), seed=(0, 0))
    assert value - plain == pytest.approx(float(costs.mean().detach()), rel=1e-8)


@pytest.mark.parametrize(("name", "tolerance"), [("none", 1e-6), ("bf16", 0.05)])
def test_mixed_precision_gives_nearly_the_same(model, batch, name, tolerance):
    single = tuple(copy.deepcopy(part).float() for part in model)
    moved = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in moved.items()}
    small = Batch(**{**moved, "graphs": batch.graphs.to("cpu", torch.float32)})
    value, gradients = compute(single, small, EVERYTHING, seed=(0, 0), precision=Precision(name, torch.device("cpu")))
    exact, expected = compute(model, batch, EVERYTHING, seed=(0, 0))
    assert value == pytest.approx(exact, rel=tolerance)
    flat, wanted = (torch.cat([g.flatten().double() for g in found]) for found in (gradients, expected))
    assert float((flat - wanted).norm()) < 5 * tolerance * float(wanted.norm())


def test_a_scaler_scales_gradients_but_not_the_loss(model, batch):
    precision = Precision("fp16", torch.device("cpu"))
    precision._type = None  # compute exactly, only scale
    with ThreadPoolExecutor(2) as pool:
        value, gradients = compute(model, batch, EVERYTHING, seed=(0, 0), parts=2, pool=pool, precision=precision)
    plain, expected = compute(model, batch, EVERYTHING, seed=(0, 0))
    assert value == pytest.approx(plain, rel=1e-10)
    scale = precision.scaler.get_scale()
    assert scale > 1
    assert all(torch.allclose(a * scale, b, rtol=1e-8, atol=1e-4) for a, b in zip(expected, gradients, strict=True))


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
