import json

import pytest
import torch

from saaa.errors import DataError, OptionInvalid
from saaa.models.captioner import Vocabulary
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from tests.training.ega.tiny_run import config_for
from training.distributed import World
from training.ega.data import load_data
from training.ega.dataset import CaptionSet, RegionFeatures
from training.ega.published import Region, Skipped
from training.ega.relevance import read_ratings, word_weights

BOX = Box(0, 0, 9, 9)
GRAPH = SceneGraph(
    (SceneObject(1, "orange", BOX), SceneObject(2, "cup", BOX, ("blue",))), (Relationship(1, 1, 2, "in"),)
)
CAPTIONS = (("an orange in a blue cup", "the Orange and the cup"), ("an orange",))


@pytest.fixture
def captions() -> CaptionSet:
    regions = [
        Region(image_id=image, region_id="7", graph=GRAPH, captions=said)
        for image, said in zip(("one", "two"), CAPTIONS, strict=True)
    ]
    graphs = [GRAPH.role_graph()] * 2
    nodes = 2 * len(graphs[0])
    features = RegionFeatures(
        nodes=torch.zeros(nodes, 3),
        starts=torch.tensor([0, nodes // 2, nodes]),
        image=torch.zeros(2, 3),
        image_of=torch.arange(2),
    )
    return CaptionSet(regions, graphs, features, Vocabulary.of(c for s in CAPTIONS for c in s), 8, aligned=True)


def weigh(tmp_path, captions, content) -> tuple[list[list[float]], list[str]]:
    """Weights of the words of each caption, BOS, EOS and padding left out."""
    path = tmp_path / "relevance.json"
    path.write_text(json.dumps(content))
    skipped = Skipped()
    weights = word_weights(read_ratings(path), captions, 10, skipped)
    assert (weights[:, 0] == 1).all()
    lines = [line for said in CAPTIONS for line in said]
    for row, line in enumerate(lines):
        assert (weights[row, len(line.split()) + 1 :] == 1).all()
    words = [weights[row, 1 : len(line.split()) + 1].tolist() for row, line in enumerate(lines)]
    return [[round(w, 6) for w in row] for row in words], skipped.reasons


def test_a_word_is_rated_wherever_it_is_said(tmp_path, captions):
    found, reasons = weigh(tmp_path, captions, {"one": {"7": [{"word": "orange", "rating": 4}]}})
    assert found == [[1, 0.2, 1, 1, 1, 1], [1, 0.2, 1, 1, 1], [1, 1]]
    assert not reasons


def test_a_place_and_a_caption_say_which(tmp_path, captions):
    found, _ = weigh(
        tmp_path,
        captions,
        {"one.jpg": {"7": [{"position": 5, "rating": 1}, {"word": "ORANGE", "caption": 1, "rating": 5}]}},
    )
    assert found == [[1, 1, 1, 1, 1, 0.8], [1, 0, 1, 1, 1], [1, 1]]


def test_the_type_says_which_meaning(tmp_path, captions):
    answers = [
        {"word": "blue", "type": "attribute", "caption": 0, "rating": 2},
        {"word": "in", "type": "relationship", "rating": 3},
        {"word": "cup", "type": "", "caption": 1, "rating": 2.5},
    ]
    found, _ = weigh(tmp_path, captions, {"one": {"7": answers}})
    assert found == [[1, 1, 0.4, 1, 0.6, 1], [1, 1, 1, 1, 0.5], [1, 1]]


def test_several_ratings_are_averaged(tmp_path, captions):
    found, _ = weigh(tmp_path, captions, {"two": {"7": [{"position": 1, "rating": r} for r in (1, 2, 4.5)]}})
    assert found[2] == [1, 0.5]


def test_what_is_not_there_is_named_and_the_rest_counts(tmp_path, captions):
    found, reasons = weigh(
        tmp_path,
        captions,
        {
            "one": {
                "7": [
                    {"word": "pear", "rating": 2},
                    {"word": "cup", "position": 0, "rating": 2},
                    {"word": "orange", "type": "relationship", "rating": 2},
                    {"position": 0, "caption": 2, "rating": 2},
                    {"position": 0, "rating": 5},
                ],
                "8": [{"word": "cup", "rating": 2}],
            },
            "three": {"7": [{"word": "cup", "rating": 2}]},
        },
    )
    assert found[0] == [0, 1, 1, 1, 1, 1]
    assert [reason.split(": ")[1] for reason in reasons] == ["there is no such word"] * 4 + [
        "there is no such region"
    ] * 2
    assert reasons[0].startswith("rating 0 of region 7 of image one")
    with pytest.raises(DataError, match="No relevance rating is of a word"):
        weigh(tmp_path, captions, {"three": {"7": [{"word": "cup", "rating": 2}]}})
    with pytest.raises(DataError, match="No relevance rating"):
        weigh(tmp_path, captions, {})


def test_words_that_were_cut_off_are_not_there(tmp_path, captions):
    short = CaptionSet(captions.regions, [GRAPH.role_graph()] * 2, captions.features, Vocabulary.of(["an orange"]), 4)
    with pytest.raises(DataError, match="no such word"):
        weigh(tmp_path, short, {"one": {"7": [{"position": 3, "rating": 2}]}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "object of images"),
        ({"one": []}, "object of regions"),
        ({"one": {"7": {}}}, "list of ratings"),
        ({"one": {"7": [3]}}, "must be a JSON object"),
        ({"one": {"7": [{"word": "cup", "rating": 0.5}]}}, "is 0.5; ratings are 1 to 5"),
        ({"one": {"7": [{"word": "cup", "rating": 6}]}}, "rating 0 of region 7 of image one is 6"),
        ({"one": {"7": [{"word": "cup", "rating": "3"}]}}, "a number as rating"),
        ({"one": {"7": [{"word": "cup", "rating": float("nan")}]}}, "a number as rating"),
        ({"one": {"7": [{"word": "cup"}]}}, "a number as rating"),
        ({"one": {"7": [{"rating": 3}]}}, "give word or position"),
        ({"one": {"7": [{"word": "a cup", "rating": 3}]}}, "one word"),
        ({"one": {"7": [{"position": -1, "rating": 3}]}}, "position, not -1"),
        ({"one": {"7": [{"word": "cup", "caption": 0.5, "rating": 3}]}}, "caption, not 0.5"),
        ({"one": {"7": [{"word": "cup", "type": "verb", "rating": 3}]}}, "types are object, attribute, relationship"),
        ({"one": {"7": [{"word": "cup", "score": 1, "rating": 3}]}}, "has a key 'score'"),
    ],
)
def test_a_wrong_file_is_answered_with_what_is_wrong(tmp_path, wrong, message):
    path = tmp_path / "relevance.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(DataError, match=message):
        read_ratings(path)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read"):
        read_ratings(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json cannot be read"):
        read_ratings(tmp_path / "broken.json")


def test_the_rows_of_named_nodes_sum_to_the_weights_of_words(tmp_path, captions):
    path = tmp_path / "relevance.json"
    path.write_text(json.dumps({"one": {"7": [{"word": "cup", "rating": 4}, {"position": 2, "rating": 5}]}}))
    before = captions.batch(torch.arange(3), "cpu").named
    captions.word_weights = word_weights(read_ratings(path), captions, 10, Skipped())
    after = captions.batch(torch.arange(3), "cpu").named
    sums = after.sum(2)
    assert sums[0].tolist() == pytest.approx([0, 0, 1, 0, 0, 1, 0.2, 0])
    assert sums[1].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.2, 0, 0])  # "Orange" is not "orange"
    assert torch.equal(after[2], before[2])


def test_a_run_is_told_which_ratings_are_of_no_use(tiny_world, tmp_path, capsys):
    (tmp_path / "relevance.json").write_text(
        json.dumps({"000001": {"0": [{"word": "a", "rating": 2}, {"word": "zebra", "rating": 2}]}})
    )
    options = {"relevance": tmp_path / "relevance.json", "explanation_weight": 1.0}
    data = load_data(config_for(tiny_world, tmp_path, **options), World())
    assert data.val.word_weights is None
    assert data.train.word_weights is not None
    assert float(data.train.word_weights.min()) == pytest.approx(0.6)
    assert "1 relevance ratings weigh words of trn; skipped 1: rating 1 of region 0" in capsys.readouterr().out
    assert "rating 1 of region 0 of image 000001: there is no such word" in (tmp_path / "skipped.txt").read_text()
    with pytest.raises(OptionInvalid, match="--explanation_weight"):
        config_for(tiny_world, tmp_path, relevance=tmp_path / "relevance.json")
