import dataclasses

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.attribution import caption_methods_for
from saaa.errors import ArchiveError, OptionInvalid, SceneGraphError
from saaa.models.captioner import Captioner, CaptionerConfig, Vocabulary
from saaa.models.features import FeatureConfig, FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from saaa.work import CaptionOptions, Sampling, TargetKind

SIZE = 64
WORDS = ("BOS", "EOS", "UNK", *(f"word{k}" for k in range(20)))


def make(seed: int = 0) -> GuidedCaptioner:
    torch.manual_seed(seed)
    features = FeatureExtractor(FeatureConfig(architecture="test_efficientnet", input_size=SIZE, levels=(1, 2)))
    config = CaptionerConfig(
        vocabulary_size=len(WORDS),
        region_size=features.region_size,
        global_size=features.image_size,
        width=16,
        max_words=7,
    )
    captioner = Captioner(config)
    for parameter in captioner.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return GuidedCaptioner(features, captioner, Vocabulary(WORDS))


@pytest.fixture(scope="module")
def guided() -> GuidedCaptioner:
    return make()


def scene(objects: int, attributes: int, links: int, seed: int = 0):
    """A role graph with random boxes inside the input."""
    rng = np.random.default_rng(seed)
    things = []
    for k in range(objects):
        x, y = (int(v) for v in rng.integers(0, 40, 2))
        w, h = (int(v) for v in rng.integers(4, 24, 2))
        things.append(SceneObject(k, f"thing {k}", Box(x, y, w, h), tuple(f"look {a}" for a in range(attributes))))
    pairs = [(s, o) for s in range(objects) for o in range(objects) if s != o][:links]
    return SceneGraph(tuple(things), tuple(Relationship(i, s, o, "near") for i, (s, o) in enumerate(pairs)))


GRAPHS = [
    scene(1, 0, 0).role_graph(),
    scene(3, 1, 2, 1).role_graph(),
    scene(2, 4, 0, 2).role_graph(),
    scene(10, 0, 0, 3).role_graph(),
    scene(4, 1, 9, 4).role_graph(),
    scene(2, 0, 2, 5).role_graph(),
    scene(1, 3, 0, 6).role_graph(),
    scene(5, 0, 5, 7).role_graph(),
]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    rng = np.random.default_rng(9)
    return torch.from_numpy(rng.integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8))


def test_eight_images_give_what_eight_calls_give(guided, pixels):
    options = CaptionOptions(beam_width=3, count=2)
    together = guided.caption(pixels, GRAPHS, options)
    for k, graph in enumerate(GRAPHS):
        alone = guided.caption(pixels[k : k + 1], [graph], options)[0]
        assert [c.words for c in alone] == [c.words for c in together[k]]
        for one, two in zip(alone, together[k], strict=True):
            assert one.log_probability == pytest.approx(two.log_probability, rel=1e-5)
            largest = np.abs(two.log_probabilities).max(initial=1e-9)
            assert np.abs(one.log_probabilities - two.log_probabilities).max(initial=0) <= 1e-5 * largest
            assert np.abs(one.node_weights - two.node_weights).max(initial=0) <= 1e-5


def test_each_word_ties_to_the_nodes_of_its_own_graph(guided, pixels):
    for graph, captions in zip(GRAPHS, guided.caption(pixels, GRAPHS, CaptionOptions(count=3)), strict=True):
        assert 1 <= len(captions) <= 3
        for caption in captions:
            assert caption.node_weights.shape == (len(caption.words), len(graph.types))
            assert np.allclose(caption.node_weights.sum(1), 1, atol=1e-5)
            assert (caption.log_probabilities <= 0).all()
            # The end marker's share is what the words leave of the whole.
            assert caption.log_probability <= caption.log_probabilities.sum() + 1e-5
            assert not set(caption.words) & {"BOS", "EOS", "UNK"}
        scores = [caption.log_probability for caption in captions]
        assert scores == sorted(scores, reverse=True)


def test_the_graph_guides(guided, pixels):
    """The same picture with other boxes, and with other edges, is captioned with other probabilities."""
    options = CaptionOptions(beam_width=1)
    graph = GRAPHS[1]
    moved = graph.with_boxes(graph.boxes[::-1].copy())
    unlinked = dataclasses.replace(graph, edges=graph.edges[:2])
    first, *others = (guided.caption(pixels[:1], [g], options)[0][0].log_probability for g in (graph, moved, unlinked))
    assert all(abs(first - other) > 1e-4 for other in others)


def test_the_limit_on_words_is_kept(guided, pixels):
    for limit in (1, 3):
        found = guided.caption(pixels, GRAPHS, CaptionOptions(max_words=limit))
        assert max(len(c.words) for captions in found for c in captions) <= limit
    found = guided.caption(pixels, GRAPHS, CaptionOptions())
    assert max(len(c.words) for captions in found for c in captions) <= 7


def test_no_images_give_no_captions(guided, pixels):
    assert guided.caption(pixels[:0], [], CaptionOptions()) == []


def test_an_archive_gives_the_same_captions(guided, pixels, tmp_path):
    path = tmp_path / "ega.mar"
    archive.write(path, guided.to_archive("ega", "1.0", {"about": "test"}))
    info = archive.info(path)
    assert (info.vocabulary_size, info.max_nodes, info.max_words, info.input_size) == (23, 40, 7, SIZE)
    again = GuidedCaptioner.from_archive(archive.read(path))
    options = CaptionOptions(count=3)
    for one, two in zip(guided.caption(pixels, GRAPHS, options), again.caption(pixels, GRAPHS, options), strict=True):
        assert [c.words for c in one] == [c.words for c in two]
        assert all(np.array_equal(a.node_weights, b.node_weights) for a, b in zip(one, two, strict=True))
    assert not any(p.requires_grad for p in again.parameters())
    assert info.methods == caption_methods_for(guided)
    assert info.methods[0].targets == (TargetKind.WORD, TargetKind.NODE)


def test_prepared_weights_follow_the_module_to_another_precision(guided, pixels):
    again = GuidedCaptioner.from_archive(guided.to_archive("ega", "1.0", {}))
    options = CaptionOptions(count=3)
    first = again.caption(pixels[:3], GRAPHS[:3], options)
    exact = again.double().caption(pixels[:3], GRAPHS[:3], options)
    for one, two in zip(first, exact, strict=True):
        assert [c.words for c in one] == [c.words for c in two]
        gap = [abs(a.log_probability - b.log_probability) for a, b in zip(one, two, strict=True)]
        assert 0 < max(gap) < 1e-4


def test_a_caption_scores_as_it_did_when_it_was_made(guided, pixels):
    """Captions of 1 to 7 words along graphs of different sizes, the first of the beam and the last, together."""
    seen = guided.see(pixels, GRAPHS)
    for place in (0, -1):
        spoken, wanted = [], []
        for row in range(len(GRAPHS)):
            options = CaptionOptions(count=3, max_words=row % 7 + 1)
            (captions,) = guided.caption_seen(seen.select([row]), options)
            if captions[place].words:
                spoken.append(row)
                wanted.append(captions[place])
        assert len({len(caption.words) for caption in wanted}) > 3
        found = guided.score_seen(seen.select(spoken), [caption.words for caption in wanted])
        for one, two in zip(found, wanted, strict=True):
            assert one.words == two.words
            assert one.log_probability == pytest.approx(two.log_probability, abs=1e-5)
            np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, atol=1e-5)
            np.testing.assert_allclose(one.node_weights, two.node_weights, atol=1e-5)


def test_a_longer_caption_than_the_captioner_makes_can_be_scored(guided, pixels):
    (found,) = guided.score_seen(guided.see(pixels[:1], GRAPHS[:1]), [("word3",) * 50])
    assert found.log_probabilities.shape == (50,)
    assert found.log_probability < found.log_probabilities.sum()


@pytest.mark.parametrize(
    ("words", "says"),
    [((), "has 0 words"), (("word1",) * 51, "has 51 words"), (("word1", "Word2"), "'Word2'"), (("BOS",), "'BOS'")],
)
def test_a_caption_that_cannot_be_scored_is_refused(guided, pixels, words, says):
    seen = guided.see(pixels[:2], GRAPHS[:2])
    with pytest.raises(OptionInvalid, match=says) as caught:
        guided.score_seen(seen, [("word1",), words])
    assert caught.value.field == "caption.text"
    with pytest.raises(OptionInvalid, match="2 images came with 1 captions"):
        guided.score_seen(seen, [("word1",)])


def damaged(whole, **changes):
    return dataclasses.replace(whole, **changes)


def test_an_archive_that_does_not_fit_is_refused(guided):
    whole = guided.to_archive("ega", "1.0", {})
    name = "captioner.decoder.query.weight"
    missing = {key: value for key, value in whole.tensors.items() if key != name}
    surplus = {**whole.tensors, "captioner.decoder.more": np.zeros(3, np.float32)}
    reshaped = {**whole.tensors, name: np.zeros((3, 3), np.float32)}
    for tensors in (missing, surplus, reshaped):
        with pytest.raises(ArchiveError, match="usable captioner"):
            GuidedCaptioner.from_archive(damaged(whole, tensors=tensors))
    for key in ("vocabulary", "architecture", "preprocessing"):
        config = {k: v for k, v in whole.config.items() if k != key}
        with pytest.raises(ArchiveError, match="usable captioner"):
            GuidedCaptioner.from_archive(damaged(whole, config=config))
    short = {**whole.config, "vocabulary": list(WORDS[:-1])}
    with pytest.raises(ArchiveError, match="vocabulary_size is 23 but must be 22"):
        GuidedCaptioner.from_archive(damaged(whole, config=short))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (CaptionOptions(beam_width=0), "caption.beam_width"),
        (CaptionOptions(beam_width=11), "caption.beam_width"),
        (CaptionOptions(beam_width=2, count=3), "caption.count"),
        (CaptionOptions(max_words=51), "caption.max_words"),
        (CaptionOptions(max_words=0), "caption.max_words"),
        (CaptionOptions(length_penalty=-0.1), "caption.length_penalty"),
        (CaptionOptions(length_penalty=float("nan")), "caption.length_penalty"),
        (CaptionOptions(count=11, sampling=Sampling()), "caption.count"),
        (CaptionOptions(sampling=Sampling(temperature=0.0)), "caption.sampling.temperature"),
        (CaptionOptions(sampling=Sampling(top_k=0)), "caption.sampling.top_k"),
        (CaptionOptions(sampling=Sampling(top_p=0.0)), "caption.sampling.top_p"),
        (CaptionOptions(sampling=Sampling(top_p=1.1)), "caption.sampling.top_p"),
        (CaptionOptions(sampling=Sampling(seed=2**64)), "caption.sampling.seed"),
    ],
)
def test_impossible_options_are_refused(guided, pixels, options, field):
    with pytest.raises(OptionInvalid) as caught:
        guided.caption(pixels[:1], GRAPHS[:1], options)
    assert caught.value.field == field


def test_a_graph_beyond_the_limit_is_refused(guided, pixels):
    with pytest.raises(SceneGraphError, match="41 nodes; the captioner takes 1 to 40"):
        guided.caption(pixels[:1], [scene(41, 0, 0).role_graph(50)], CaptionOptions())


def test_larger_graphs_than_those_of_training_guide_with_all_their_nodes(guided, pixels):
    for objects, links in ((1, 0), (11, 0), (25, 15)):
        graph = scene(objects, 0, links).role_graph(50)
        (caption,) = guided.caption(pixels[:1], [graph], CaptionOptions())[0]
        assert caption.node_weights.shape[1] == len(graph.types) == objects + links
        np.testing.assert_allclose(caption.node_weights.sum(1), 1, atol=1e-5)


def test_captions_are_drawn_alike_alone_and_together(guided, pixels):
    options = CaptionOptions(count=5, sampling=Sampling(temperature=2.0, top_p=0.95, seed=11))
    together = guided.caption(pixels, GRAPHS, options)
    for k, graph in enumerate(GRAPHS):
        (alone,) = guided.caption(pixels[k : k + 1], [graph], options)
        assert [c.words for c in alone] == [c.words for c in together[k]]
        assert len(alone) == 5
    other = dataclasses.replace(options, sampling=dataclasses.replace(options.sampling, seed=12))
    assert guided.caption(pixels, GRAPHS, other) != together
    narrow = CaptionOptions(sampling=Sampling(top_k=1))
    greedy = guided.caption(pixels, GRAPHS, CaptionOptions(beam_width=1))
    for one, two in zip(guided.caption(pixels, GRAPHS, narrow), greedy, strict=True):
        assert one[0].words == two[0].words


def test_a_length_penalty_favours_longer_captions(guided, pixels):
    lengths = []
    for penalty in (0.0, 5.0):
        found = guided.caption(pixels, GRAPHS, CaptionOptions(beam_width=10, count=10, length_penalty=penalty))
        lengths.append(np.mean([len(captions[0].words) for captions in found]))
        for captions in found:
            value = [c.log_probability / ((len(c.words) + 6) / 6) ** penalty for c in captions]
            assert value == sorted(value, reverse=True)
    assert lengths[1] > lengths[0]
