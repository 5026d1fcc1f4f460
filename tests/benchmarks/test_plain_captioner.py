"""What the captioner is measured against computes the same."""

import numpy as np
import pytest
import torch

from benchmarks.plain_captioner import PlainCaptioner
from saaa.models.captioner import BOS, EOS, collate, search
from tests.saaa.models.captioner.conftest import GRAPHS, build, inputs, pad


@pytest.fixture(scope="module")
def sides():
    model = build(vocabulary=30, seed=3)
    regions, image = inputs(model, GRAPHS)
    return model, PlainCaptioner(model), pad(regions, 10), image, collate(GRAPHS, nodes=10)


def test_loss_and_gradients_are_equal(sides):
    model, plain, *batch = sides
    lengths = torch.tensor([4, 7, 2, 5, 7])
    captions = torch.tensor(np.random.default_rng(3).integers(3, 30, (5, 9)))
    captions[:, 0] = BOS
    for row, length in enumerate(lengths):
        captions[row, length - 1 :] = EOS
    found = []
    for loss in (
        lambda: plain.loss(*batch, captions, lengths),
        lambda: model.loss(model.teach(*batch, captions, lengths)),
    ):
        model.zero_grad()
        value = loss()
        value.backward()
        found.append((float(value.detach()), [p.grad.clone() for p in model.parameters()]))
    (one, ours), (two, theirs) = found
    assert one == pytest.approx(two, rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.fixture
def endless(sides):
    """As `sides`, with an end that is never likely."""
    model, plain, *batch = sides
    with torch.no_grad():
        model.decoder.words.weight[EOS] = -5 * torch.sign(model.decoder.lstm2.bias_ih[-8:])
    return model, plain, *batch


def test_greedy_captions_are_equal(endless):
    model, plain, *batch = endless
    theirs = plain.greedy(*batch, 6)
    with torch.no_grad():
        ours = search(model.decoder, *model.begin(*batch), width=1, max_words=6)
    assert (ours.lengths == 6).any()
    for row in (ours.lengths[:, 0] == 6).nonzero()[:, 0]:
        assert ours.tokens[row, 0, :6].tolist() == theirs[row].tolist()
    assert torch.equal(plain.beam(*batch, 6, 1), theirs)


def test_the_plain_beam_finds_likelier_beginnings_than_greedy(endless):
    model, plain, *batch = endless

    def likelihood(words):
        captions = torch.cat([torch.full((len(words), 1), BOS), words], 1)
        with torch.no_grad():
            taught = model.teach(*batch, captions, torch.full((len(words),), captions.shape[1]))
            chances = model.decoder.log_probabilities(taught.hidden).gather(1, taught.targets[:, None])[:, 0]
        return torch.zeros(len(words)).index_add(0, taught.rows, chances)

    greedy, beam = likelihood(plain.greedy(*batch, 6)), likelihood(plain.beam(*batch, 6, 4))
    assert (beam > greedy - 1e-5).float().mean() >= 0.8
    assert (beam > greedy + 1e-3).any()
