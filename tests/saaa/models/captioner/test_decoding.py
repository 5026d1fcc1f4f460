import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import OptionInvalid
from saaa.models.captioner import BOS, EOS, UNK, collate, search
from tests.saaa.models.captioner import naive
from tests.saaa.models.captioner.conftest import GRAPHS, build, inputs, pad


def find(model, regions, image, graphs, width, max_words):
    state, guide = model.begin(
        pad(regions, max(len(r) for r in regions)), image, collate(graphs).to("cpu", image.dtype)
    )
    return search(model.decoder, state, guide, width=width, max_words=max_words)


def captions(found, row):
    return [
        tuple(found.tokens[row, k, : found.lengths[row, k]].tolist())
        for k in range(found.tokens.shape[1])
        if found.scores[row, k] > -torch.inf
    ]


def log_softmax(logits):
    """Over what may be produced."""
    logits = np.array(logits, dtype=np.float64)
    logits[[BOS, UNK]] = -np.inf
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def every_caption(model, regions, image, graph, max_words):
    """Log-probability of every caption of at most `max_words` words, by running each one."""
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    words = range(3, model.config.vocabulary_size)
    scores = {}
    for length in range(max_words + 1):
        for caption in itertools.product(words, repeat=length):
            logits, _ = naive.run(weights, regions, image, graph, [BOS, *caption], model.config.layers)
            steps = [log_softmax(line)[token] for line, token in zip(logits, [*caption, EOS], strict=True)]
            scores[caption] = sum(steps)
    return scores


@pytest.mark.parametrize("row", [0, 3])
def test_a_wide_beam_finds_what_exhaustive_search_finds(row):
    model = build(vocabulary=6, width=4, seed=5).double()
    graph = GRAPHS[row]
    regions, image = inputs(model, [graph])
    truth = every_caption(model, regions[0].numpy(), image[0].numpy(), graph, max_words=3)
    best = sorted(truth, key=truth.__getitem__, reverse=True)
    found = find(model, regions, image, [graph], width=len(truth), max_words=3)
    assert captions(found, 0) == best
    assert np.allclose(found.scores[0].numpy(), [truth[c] for c in best], atol=1e-5)


def test_each_word_has_the_probability_and_attention_of_its_own_caption():
    """Every tensor of a hypothesis follows it: running the words again gives the same figures."""
    model = build(vocabulary=30, seed=2).double()
    regions, image = inputs(model, GRAPHS)
    found = find(model, regions, image, GRAPHS, width=4, max_words=6)
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    for row, graph in enumerate(GRAPHS):
        for k in range(4):
            length = int(found.lengths[row, k])
            words = found.tokens[row, k, :length].tolist()
            logits, attention = naive.run(
                weights, regions[row].numpy(), image[row].numpy(), graph, [BOS, *words], layers=2
            )
            steps = [log_softmax(line)[t] for line, t in zip(logits, [*words, EOS], strict=True)]
            assert float(found.scores[row, k]) == pytest.approx(sum(steps), abs=1e-5)
            given = found.log_probabilities[row, k]
            assert np.allclose(given[: length + 1], steps, atol=1e-5)
            assert not given[length + 1 :].any()
            mine = found.attention[row, k, :length, : len(graph.types)]
            assert np.allclose(mine, attention[:length], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(2, 6))
def test_beam_search_is_never_worse_than_greedy(seed, width):
    model = build(vocabulary=9, width=6, seed=seed)
    regions, image = inputs(model, GRAPHS, seed=seed)
    greedy = find(model, regions, image, GRAPHS, width=1, max_words=5)
    beam = find(model, regions, image, GRAPHS, width=width, max_words=5)
    assert (beam.scores[:, 0] >= greedy.scores[:, 0] - 1e-5).all()
    assert (beam.scores[:, :-1] >= beam.scores[:, 1:]).all()
    for row in range(len(GRAPHS)):
        found = captions(beam, row)
        assert len(set(found)) == len(found)
        assert captions(greedy, row)[0] in found


def test_width_one_takes_the_best_word_each_time():
    model = build(vocabulary=12, seed=4).double()
    regions, image = inputs(model, GRAPHS)
    found = find(model, regions, image, GRAPHS, width=1, max_words=8)
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    for row, graph in enumerate(GRAPHS):
        words: list[int] = []
        while len(words) < 8:
            logits, _ = naive.run(weights, regions[row].numpy(), image[row].numpy(), graph, [BOS, *words], layers=2)
            word = int(log_softmax(logits[-1]).argmax())
            if word == EOS:
                break
            words.append(word)
        assert captions(found, row) == [tuple(words)]


def bias_words(model, ids, size):
    """Make words likely whatever the state: their embeddings point along the mean state."""
    with torch.no_grad():
        model.decoder.lstm2.bias_ih.fill_(3.0)  # all states near one
        model.decoder.words.weight[ids] = size


def test_the_end_may_come_at_once():
    model = build()
    bias_words(model, [EOS], 5.0)
    regions, image = inputs(model, GRAPHS)
    found = find(model, regions, image, GRAPHS, width=1, max_words=8)
    assert not found.lengths.any()
    assert found.tokens.shape[-1] == 1  # it stopped there


def test_beginning_and_unknown_are_never_produced():
    model = build()
    bias_words(model, [BOS, UNK], 5.0)
    regions, image = inputs(model, GRAPHS)
    found = find(model, regions, image, GRAPHS, width=3, max_words=8)
    assert not torch.isin(found.tokens, torch.tensor([BOS, UNK])).any()


def test_a_caption_at_the_limit_is_charged_for_its_end():
    model = build()
    bias_words(model, [EOS], -5.0)
    regions, image = inputs(model, GRAPHS)
    found = find(model, regions, image, GRAPHS, width=2, max_words=4)
    assert (found.lengths == 4).all()
    assert (found.tokens[..., -1] == EOS).all()
    assert (found.log_probabilities[..., -1] < -5).all()
    assert torch.allclose(found.log_probabilities.sum(-1), found.scores, atol=1e-4)


def test_a_batch_gives_what_single_images_give():
    model = build(vocabulary=40, width=16, seed=8)
    regions, image = inputs(model, GRAPHS)
    together = find(model, regions, image, GRAPHS, width=3, max_words=10)
    for row, graph in enumerate(GRAPHS):
        alone = find(model, regions[row : row + 1], image[row : row + 1], [graph], width=3, max_words=10)
        assert captions(alone, 0) == captions(together, row)
        assert torch.allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_equal_calls_give_equal_answers():
    model = build(vocabulary=40)
    regions, image = inputs(model, GRAPHS)
    one, two = (find(model, regions, image, GRAPHS, width=3, max_words=10) for _ in range(2))
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.scores, two.scores)


@pytest.mark.parametrize(("width", "max_words"), [(0, 5), (2, 0)])
def test_impossible_options_are_refused(width, max_words):
    model = build()
    regions, image = inputs(model, GRAPHS)
    with pytest.raises(OptionInvalid, match="at least 1"):
        find(model, regions, image, GRAPHS, width=width, max_words=max_words)
