import dataclasses

import numpy as np
import pytest
import torch

from saaa.errors import OptionInvalid
from saaa.models.captioner import BOS, EOS, Captioner, CaptionerConfig, collate
from tests.saaa.models.captioner import naive


@pytest.fixture
def exact(make, graphs):
    """A captioner and the graphs in float64, with none of their constants rounded to float32 on the way."""
    torch.set_default_dtype(torch.float64)
    try:
        model = make()
    finally:
        torch.set_default_dtype(torch.float32)
    batch = collate(graphs).to("cpu", torch.float64)
    edges = (batch.relations > 0).double()
    flow = (batch.flow > 0).double()
    batch = dataclasses.replace(
        batch,
        relations=edges / edges.sum(-1, keepdim=True).clamp(min=1),
        flow=flow / flow.sum(1, keepdim=True).clamp(min=1),
    )
    return model, batch


def numbers(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def published():
    """A captioner of the published sizes, in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        return Captioner(CaptionerConfig(vocabulary_size=300)).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def test_published_sizes_have_the_published_number_of_parameters(published):
    assert numbers(published.encoder) == 4_725_248
    assert numbers(published.image) == 1_311_232
    assert numbers(published.decoder) == 9_713_669 + 512 * 300


def test_the_published_sizes_equal_the_equations(published, draw, padded, graphs):
    """A few words of one graph with ten nodes, in float64."""
    graph = graphs[4]
    regions, image = draw(published, [graph])
    batch = collate([graph]).to("cpu", torch.float64)  # its weights are 1 or 1/2: nothing was rounded
    assert torch.equal(batch.relations * 2, (batch.relations * 2).round())
    ids = [BOS, 7, 150, 9]
    with torch.no_grad():
        taught = published.teach(padded(regions, 10), image, batch, torch.tensor([[*ids, EOS]]), torch.tensor([5]))
        logits = published.decoder.logits(taught.hidden).numpy()
    weights = {k: v.numpy() for k, v in published.state_dict().items()}
    wanted, attention = naive.run(weights, regions[0].numpy(), image[0].numpy(), graph, ids, layers=2)
    assert np.abs(logits - wanted).max() < 1e-10
    assert np.abs(taught.attention.numpy() - attention).max() < 1e-10


def test_teacher_forcing_equals_the_equations(exact, draw, padded, graphs):
    """Logits and attentions of a padded batch with captions of unequal length, in float64."""
    model, batch = exact
    regions, image = draw(model, graphs)
    rng = np.random.default_rng(3)
    lengths = torch.tensor([4, 7, 2, 5, 7])
    captions = torch.tensor(rng.integers(2, 17, (5, 7)))
    captions[:, 0] = BOS
    for row, length in enumerate(lengths):
        captions[row, length - 1 :] = EOS
    taught = model.teach(padded(regions, 10, value=3.0), image, batch, captions, lengths)
    logits = model.decoder.logits(taught.hidden)
    assert len(taught.targets) == int((lengths - 1).sum())

    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    for row, graph in enumerate(graphs):
        read = captions[row, : lengths[row] - 1].tolist()
        wanted, attention = naive.run(weights, regions[row].numpy(), image[row].numpy(), graph, read, layers=2)
        mine = taught.rows == row
        assert np.abs(logits[mine].detach().numpy() - wanted).max() < 1e-10
        n = len(graph.types)
        given = taught.attention[mine].detach().numpy()
        assert np.abs(given[:, :n] - attention).max() < 1e-10
        assert not given[:, n:].any()
        assert taught.targets[mine].tolist() == captions[row, 1 : lengths[row]].tolist()


def test_loss_is_the_mean_over_all_tokens(exact, draw, padded, graphs):
    model, batch = exact
    regions, image = draw(model, graphs)
    captions = torch.tensor([[BOS, 5, 6, EOS], [BOS, 4, EOS, 9], [BOS, 3, 3, EOS], [BOS, EOS, 7, 7], [BOS, 8, EOS, 3]])
    lengths = torch.tensor([4, 3, 4, 2, 3])
    loss = model.loss(model.teach(padded(regions, 10), image, batch, captions, lengths)).detach()
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    costs = []
    for row, graph in enumerate(graphs):
        ids = captions[row, : lengths[row]].tolist()
        logits, _ = naive.run(weights, regions[row].numpy(), image[row].numpy(), graph, ids[:-1], layers=2)
        costs += [-np.log(naive.softmax(list(line)))[target] for line, target in zip(logits, ids[1:], strict=True)]
    assert float(loss) == pytest.approx(np.mean(costs), abs=1e-10)


def test_padding_leaves_no_trace_in_values_or_gradients(make, draw, padded, graphs):
    model = make().double()
    regions, image = draw(model, graphs[3:4])
    captions, lengths = torch.tensor([[BOS, 5, 6, EOS]]), torch.tensor([4])
    found = []
    for nodes, value in ((len(regions[0]), 0.0), (10, 1e4)):
        model.zero_grad()
        batch = collate(graphs[3:4], nodes=nodes).to("cpu", torch.float64)
        model.loss(model.teach(padded(regions, nodes, value), image, batch, captions, lengths)).backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)


def test_half_precision_stays_finite_with_padding(make, draw, padded, graphs):
    model = make().to(torch.bfloat16)
    regions, image = draw(model, graphs)
    captions = torch.full((5, 4), 5)
    batch = collate(graphs).to("cpu", torch.bfloat16)
    loss = model.loss(model.teach(padded(regions, 10), image, batch, captions, torch.full((5,), 4)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_attention_is_conserved(make, draw, padded, graphs):
    model = make()
    regions, image = draw(model, graphs)
    taught = model.teach(padded(regions, 10), image, collate(graphs), torch.full((5, 9), 4), torch.full((5,), 9))
    assert torch.allclose(taught.attention.sum(1), torch.ones(5 * 8), atol=1e-5)
    assert (taught.attention >= 0).all()


def test_select_trims_to_the_largest_graph_of_the_rows(make, draw, padded, graphs):
    part = collate(graphs).select(torch.tensor([3, 0]))
    whole = collate([graphs[3], graphs[0]])
    for name in ("types", "orders", "mask", "relations", "flow"):
        assert torch.equal(getattr(part, name), getattr(whole, name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"dropout": 1.0},
        {"max_words": 51},
        {"region_size": 7},
        {"max_nodes": 0},
        {"vocabulary_size": 3},
    ],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(OptionInvalid, match=next(iter(wrong))):
        CaptionerConfig(**{"vocabulary_size": 9, **wrong})
