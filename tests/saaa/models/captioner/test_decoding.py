import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import OptionInvalid
from saaa.models.captioner import BOS, EOS, UNK, Captioner, collate, sample, search
from saaa.models.captioner.decoder import Decoder
from tests.saaa.models.captioner import naive
from tests.saaa.models.captioner.conftest import GRAPHS, build, inputs, pad


def begin(model, regions, image, graphs):
    return model.begin(pad(regions, max(len(r) for r in regions)), image, collate(graphs).to("cpu", image.dtype))


def find(model, regions, image, graphs, width, max_words, **options):
    state, guide = begin(model, regions, image, graphs)
    return search(model.decoder, state, guide, width=width, max_words=max_words, **options)


def draw(model, regions, image, graphs, count, max_words, **options):
    state, guide = begin(model, regions, image, graphs)
    options = {"seeds": [0] * len(graphs), **options}
    return sample(model.decoder, state, guide, count=count, max_words=max_words, **options)


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


def normalised(found, penalty):
    """What captions are ordered by, (B, K)."""
    return found.scores / ((5 + found.lengths + 1) / 6) ** penalty


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(2, 6), penalty=st.sampled_from([0.0, 0.7, 2.0]))
def test_beam_search_is_never_worse_than_greedy(seed, width, penalty):
    model = build(vocabulary=9, width=6, seed=seed)
    regions, image = inputs(model, GRAPHS, seed=seed)
    greedy = find(model, regions, image, GRAPHS, width=1, max_words=5, length_penalty=penalty)
    beam = find(model, regions, image, GRAPHS, width=width, max_words=5, length_penalty=penalty)
    value = normalised(beam, penalty)
    assert (value[:, 0] >= normalised(greedy, penalty)[:, 0] - 1e-5).all()
    assert (value[:, :-1] >= value[:, 1:]).all()
    for row in range(len(GRAPHS)):
        found = captions(beam, row)
        assert len(set(found)) == len(found) == width
        assert captions(greedy, row)[0] in found


def test_a_length_penalty_orders_all_captions_as_gnmt_does():
    model = build(vocabulary=6, width=4, seed=5).double()
    regions, image = inputs(model, GRAPHS[3:4])
    truth = every_caption(model, regions[0].numpy(), image[0].numpy(), GRAPHS[3], max_words=3)
    orders = []
    for penalty in (0.0, 1.5):
        best = sorted(truth, key=lambda c: truth[c] / ((5 + len(c) + 1) / 6) ** penalty, reverse=True)
        found = find(model, regions, image, GRAPHS[3:4], width=len(truth), max_words=3, length_penalty=penalty)
        assert captions(found, 0) == best
        assert np.allclose(found.scores[0], [truth[c] for c in best], atol=1e-6)  # the scores are those without it
        orders.append(best)
    assert orders[0] != orders[1]


class Counting(Decoder):
    """A decoder that notes how many rows each step works on."""

    rows: list[int]

    def step(self, state, guide, word_gates, weights):
        self.rows.append(len(state.hidden1))
        return super().step(state, guide, word_gates, weights)


def counting(model: Captioner) -> list[int]:
    model.decoder.__class__, model.decoder.rows = Counting, []
    return model.decoder.rows


@pytest.mark.parametrize("width", [1, 3])
def test_captions_that_have_ended_leave_the_batch(width):
    model = build(vocabulary=12, seed=2)
    regions, image = inputs(model, GRAPHS)
    rows = counting(model)
    found = find(model, regions, image, GRAPHS, width=width, max_words=8)
    steps = found.lengths + 1  # those in which a caption took part
    needed = [int((steps > step).sum()) for step in range(int(steps.max()))]
    assert len(rows) == len(needed)
    assert rows[0] == len(GRAPHS)  # all hypotheses of an image begin alike
    assert rows[1:] >= needed[1:]
    assert rows[-1] < len(GRAPHS) * width
    # No image works on after its last caption, and no column is kept that nobody needs.
    for step, count in enumerate(rows[1:], 1):
        going = (steps > step).sum(1)
        assert count == int((going > 0).sum() * going.max())


def test_sampling_draws_each_caption_as_often_as_it_is_probable():
    model = build(vocabulary=6, width=4, seed=5).double()
    graph, count = GRAPHS[3], 20_000
    regions, image = inputs(model, [graph])
    truth = every_caption(model, regions[0].numpy(), image[0].numpy(), graph, max_words=2)
    total = sum(np.exp(score) for score in truth.values())  # less than 1: captions of three words and more are cut
    drawn = captions(draw(model, regions, image, [graph], count, 2), 0)
    assert len(drawn) == count
    for caption, score in truth.items():
        # A caption at the limit is drawn without its end.
        end = 0.0 if len(caption) < 2 else float(end_chance(model, regions, image, graph, caption))
        share = np.exp(score - end)
        error = np.sqrt(share * (1 - share) / count)
        assert abs(drawn.count(caption) / count - share) < 4 * error + 1e-4, caption
    assert total < 1


def end_chance(model, regions, image, graph, caption):
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    logits, _ = naive.run(weights, regions[0].numpy(), image[0].numpy(), graph, [BOS, *caption], model.config.layers)
    return log_softmax(logits[-1])[EOS]


def first_words(model, regions, image, graph):
    """Probability of each first word, by the equations."""
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    logits, _ = naive.run(weights, regions[0].numpy(), image[0].numpy(), graph, [BOS], model.config.layers)
    return np.exp(log_softmax(logits[0]))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 2.0, "top_k": 6, "top_p": 0.7}]
)
def test_temperature_top_k_and_top_p_shape_the_draw(options):
    model = build(vocabulary=12, seed=4).double()
    regions, image = inputs(model, GRAPHS[1:2])
    chance = first_words(model, regions, image, GRAPHS[1]) ** (1 / options.get("temperature", 1.0))
    chance /= chance.sum()
    order = np.argsort(-chance)[: options.get("top_k", 12)]
    kept, mass, whole = [], 0.0, chance[order].sum()
    for word in order:
        if mass < options.get("top_p", 1.0) * whole:
            kept.append(int(word))
            mass += chance[word]
    found = draw(model, regions, image, GRAPHS[1:2], 4000, 1, **options)
    first = found.tokens[0, :, 0].numpy()
    for word in range(12):
        share = chance[word] / mass if word in kept else 0.0
        error = np.sqrt(share * (1 - share) / 4000)
        assert abs((first == word).mean() - share) <= 4 * error + 1e-6, word


def test_drawn_captions_have_their_own_scores_and_are_ordered():
    model = build(vocabulary=30, seed=2).double()
    regions, image = inputs(model, GRAPHS)
    found = draw(model, regions, image, GRAPHS, 4, 6, temperature=1.5, top_k=20)
    weights = {k: v.numpy() for k, v in model.state_dict().items()}
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()
    for row, graph in enumerate(GRAPHS):
        for k in range(4):
            words = found.tokens[row, k, : int(found.lengths[row, k])].tolist()
            logits, attention = naive.run(
                weights, regions[row].numpy(), image[row].numpy(), graph, [BOS, *words], layers=2
            )
            steps = [log_softmax(line)[t] for line, t in zip(logits, [*words, EOS], strict=True)]
            assert np.allclose(found.log_probabilities[row, k, : len(steps)], steps, atol=1e-5)
            assert float(found.scores[row, k]) == pytest.approx(sum(steps), abs=1e-5)
            assert np.allclose(
                found.attention[row, k, : len(words), : len(graph.types)], attention[: len(words)], atol=1e-5
            )


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch():
    model = build(vocabulary=40, width=16, seed=8)
    regions, image = inputs(model, GRAPHS)
    seeds = [3, 3, 7, 2**64 - 1, 0]
    together = draw(model, regions, image, GRAPHS, 4, 10, seeds=seeds, top_p=0.9)
    again = draw(model, regions, image, GRAPHS, 4, 10, seeds=seeds, top_p=0.9)
    other = draw(model, regions, image, GRAPHS, 4, 10, seeds=[s // 2 + 11 for s in seeds], top_p=0.9)
    assert torch.equal(together.tokens, again.tokens)
    for row, graph in enumerate(GRAPHS):
        part = regions[row : row + 1], image[row : row + 1], [graph]
        alone = draw(model, *part, 4, 10, seeds=seeds[row : row + 1], top_p=0.9)
        assert captions(alone, 0) == captions(together, row)
        assert captions(other, row) != captions(together, row)


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}])
def test_the_narrowest_draw_is_greedy(options):
    model = build(vocabulary=40, seed=8).double()
    regions, image = inputs(model, GRAPHS)
    greedy = find(model, regions, image, GRAPHS, width=1, max_words=8)
    found = draw(model, regions, image, GRAPHS, 2, 8, **options)
    for row in range(len(GRAPHS)):
        assert captions(found, row) == 2 * captions(greedy, row)
    assert torch.allclose(found.scores[:, :1], greedy.scores)


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


@pytest.mark.parametrize("width", [1, 4])
def test_prepared_weights_change_nothing(width):
    model = build(vocabulary=40, width=16, seed=8)
    regions, image = inputs(model, GRAPHS)
    plain = find(model, regions, image, GRAPHS, width=width, max_words=10)
    ready = find(model, regions, image, GRAPHS, width=width, max_words=10, weights=model.decoder.weights(frozen=True))
    assert torch.equal(plain.tokens, ready.tokens)
    assert torch.allclose(plain.scores, ready.scores, rtol=1e-5)
    assert torch.allclose(plain.attention, ready.attention, atol=1e-5)


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"temperature": 0.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"seeds": [1]},
        {"max_words": 0},
        {"temperature": float("nan")},
    ],
)
def test_an_impossible_draw_is_refused(wrong):
    model = build()
    regions, image = inputs(model, GRAPHS)
    with pytest.raises(OptionInvalid, match=next(iter(wrong)).removesuffix("s")):
        draw(model, regions, image, GRAPHS, **{"count": 2, "max_words": 3, **wrong})
