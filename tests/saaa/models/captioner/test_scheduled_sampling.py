"""Teaching with some words the decoder's own, against the equations and against the published program's faults: there
the targets were overwritten, and drawn words landed in the wrong captions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.models.captioner import BOS, EOS, UNK, collate
from tests.saaa.models.captioner import naive
from tests.saaa.models.captioner.conftest import GRAPHS, build, inputs, pad

LENGTHS = torch.tensor([4, 7, 2, 5, 7])


@pytest.fixture(scope="module")
def case():
    model = build().double()
    regions, image = inputs(model, GRAPHS)
    captions = torch.tensor(np.random.default_rng(3).integers(3, 17, (5, 7)))
    captions[:, 0] = BOS
    for row, length in enumerate(LENGTHS):
        captions[row, length - 1 :] = EOS
    return model, regions, image, captions


def teach(case, quantiles=None, captions=None):
    model, regions, image, own = case
    batch = collate(GRAPHS).to("cpu", torch.float64)
    captions = own if captions is None else captions
    return model.teach(pad(regions, 10), image, batch, captions, LENGTHS, quantiles)


def read_instead(case, row, quantiles):
    """The words that caption `row` makes the decoder read, one at a time by the equations."""
    model, regions, image, captions = case
    weights = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    read = [BOS]
    for place in range(1, int(LENGTHS[row]) - 1):
        word = int(captions[row, place])
        if quantiles[row, place] < 1:
            logits, _ = naive.run(weights, regions[row].numpy(), image[row].numpy(), GRAPHS[row], read, layers=2)
            chances = naive.softmax(list(logits[-1]))
            for marker in (BOS, EOS, UNK):
                chances[marker] = 0.0
            wanted = float(quantiles[row, place]) * sum(chances)
            word = next(w for w in range(len(chances)) if sum(chances[: w + 1]) > wanted)
        read.append(word)
    return read


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.floats(0.1, 1.0))
def test_own_words_are_those_of_the_equations(case, seed, rate):
    quantiles = torch.from_numpy(np.random.default_rng(seed).random((5, 7)) / rate)
    taught = teach(case, quantiles)
    captions = case[3].clone()
    for row in range(5):
        read = read_instead(case, row, quantiles)
        captions[row, : len(read)] = torch.tensor(read)
    wanted = teach(case, captions=captions)
    assert torch.allclose(taught.hidden, wanted.hidden, atol=1e-10)
    assert torch.allclose(taught.attention, wanted.attention, atol=1e-10)


def test_targets_and_captions_stay(case):
    before = case[3].clone()
    plain, own = teach(case), teach(case, torch.zeros(5, 7))
    assert torch.equal(case[3], before)
    for name in ("targets", "rows", "steps"):
        assert torch.equal(getattr(own, name), getattr(plain, name))
    assert not torch.allclose(own.hidden, plain.hidden)


def test_a_drawn_word_changes_its_own_caption_only_and_only_from_there(case):
    quantiles = torch.ones(5, 7)
    quantiles[4, 3] = 0  # the first word of all; the caption has the last
    plain, own = teach(case), teach(case, quantiles)
    changed = (plain.hidden - own.hidden).abs().amax(1) > 1e-9
    assert changed.any()
    assert set(own.rows[changed].tolist()) == {4}
    assert own.steps[changed].min() == 3  # what token 3 is read for


def test_none_drawn_is_plain_teaching(case):
    plain, own = teach(case), teach(case, torch.ones(5, 7))
    assert torch.equal(plain.hidden, own.hidden)


def test_draws_follow_what_the_decoder_says():
    """Over all quantiles the share of each word is its probability, markers left out."""
    model = build(vocabulary=7).double()
    hidden = torch.randn(8, generator=torch.Generator().manual_seed(0)).double()
    chances = model.decoder.score_words(hidden).softmax(0).detach()
    chances[[BOS, EOS, UNK]] = 0
    quantiles = (torch.arange(1000).double() + 0.5) / 1000
    gates = model._own_words(torch.zeros(1000, 32).double(), hidden.expand(1000, -1), quantiles)
    words = model.decoder.word_gates(torch.arange(7))
    drawn = (gates[:, None] - words).abs().amax(2).argmin(1)
    shares = torch.bincount(drawn, minlength=7) / 1000
    assert torch.allclose(shares.double(), chances / chances.sum(), atol=2e-3)


def test_gradients_reach_the_words_that_were_read(case):
    model = case[0]
    model.zero_grad()
    taught = teach(case, torch.zeros(5, 7))
    taught.hidden.sum().backward()
    touched = model.decoder.words.weight.grad.abs().sum(1) > 0
    drawn = {word for row in range(5) for word in read_instead(case, row, torch.zeros(5, 7))}
    assert set(touched.nonzero()[:, 0].tolist()) == drawn
