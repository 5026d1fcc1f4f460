import json

import numpy as np
import pytest

from saaa.errors import DataError, OptionInvalid
from saaa.scene_graph import Box
from training.asg import AsgCocoConfig, run_coco
from training.asg.categories import CATEGORY, SYNONYMS, category_of
from training.asg.grounding import Instance, Lost, ground, whole_box
from training.asg.phrases import parse
from training.cli import main
from training.ega.published import AnnotationFolder, Skipped

DOG, BIG_DOG, CAT, PERSON = Box(0, 0, 10, 10), Box(20, 0, 20, 20), Box(50, 5, 10, 10), Box(0, 30, 30, 60)
INSTANCES = [
    Instance(category="dog", box=DOG),
    Instance(category="dog", box=BIG_DOG),
    Instance(category="cat", box=CAT),
    Instance(category="person", box=PERSON),
    Instance(category="bear", box=Box(0, 0, 99, 99), crowd=True),
]


def graph_of(caption, lost=None):
    return ground(parse(caption), INSTANCES, Lost() if lost is None else lost)


def boxes(caption):
    return [(thing.name, thing.box) for thing in graph_of(caption).objects]


def test_every_category_is_known_by_its_own_name():
    assert len(SYNONYMS) == 80
    for name in SYNONYMS:
        assert name in (category_of(name), category_of(name.rstrip("s"))), name


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("women", "person"),
        ("fire truck", "truck"),
        ("bus stop", None),
        ("tennis rackets", "tennis racket"),
        ("skis", "skis"),
        ("cell phones", "cell phone"),
        ("tree", None),
    ],
)
def test_what_people_call_a_thing_is_its_category(name, category):
    assert category_of(name) == category
    assert category_of("bear", ("brown", "stuffed")) == "teddy bear"
    assert all(category in SYNONYMS for category in CATEGORY.values())


def test_a_thing_takes_the_largest_box_and_the_next_one_the_next():
    assert boxes("a dog") == [("dog", BIG_DOG)]
    assert boxes("a dog and a puppy") == [("dog", BIG_DOG), ("puppy", DOG)]


def test_several_things_take_the_box_around_them():
    assert boxes("two dogs") == boxes("dogs")[:1] == [("dogs", Box(0, 0, 40, 20))]
    assert boxes("three cats") == [("cats", CAT)]


def test_the_dog_is_the_dog_named_before():
    graph = graph_of("a brown dog beside a cat and the dog is wet")
    assert [(t.name, t.attributes) for t in graph.objects] == [("dog", ("brown", "wet")), ("cat", ())]


def test_a_graph_has_the_words_of_the_caption():
    graph = graph_of("a young man walking two black dogs near a cat")
    man, dogs, cat = graph.objects
    assert (man.name, man.attributes, dogs.attributes) == ("man", ("young",), ("two", "black"))
    assert [(k.subject_id, k.object_id, k.name) for k in graph.relationships] == [
        (man.id, dogs.id, "walking"),
        (dogs.id, cat.id, "near"),
    ]


def test_what_has_no_box_is_counted():
    lost = Lost()
    graph = graph_of("a dog under a tree beside a horse", lost)
    assert [thing.name for thing in graph.objects] == ["dog"]
    assert dict(lost.unboxed) == {"tree": 1}
    assert dict(lost.absent) == {"horse": 1}
    assert lost.relationships == 2
    assert graph_of("a tree", lost) is None


def test_a_crowd_counts_when_there_is_nothing_else():
    assert boxes("bears") == [("bears", Box(0, 0, 99, 99))]


def test_boxes_are_whole_pixels_inside_the_image():
    assert whole_box([0.4, 1.6, 2.2, 3.0], 100, 100) == Box(0, 1, 3, 4)
    assert whole_box([-3, 5, 200, 10], 100, 12) == Box(0, 5, 100, 7)
    assert whole_box([100, 0, 10, 10], 100, 100) is None


def coco(folder, images=10):
    """A made-up COCO: a dog and a person in each picture."""
    folder.mkdir(exist_ok=True)
    captions, instances = [], []
    for k in range(1, images + 1):
        captions += [
            {"id": 10 * k, "image_id": k, "caption": f"A man walks a {'red' if k % 2 else 'black'} dog."},
            {"id": 10 * k + 1, "image_id": k, "caption": "Trees in a park"},
        ]
        instances += [
            {"id": 10 * k, "image_id": k, "category_id": 1, "bbox": [1.5, 2, 10, 20], "iscrowd": 0},
            {"id": 10 * k + 1, "image_id": k, "category_id": 18, "bbox": [30, 2, 10.2, 20], "iscrowd": 0},
        ]
    pictures = [{"id": k, "file_name": f"{k:012d}.jpg", "width": 64, "height": 48} for k in range(1, images + 1)]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    (folder / "captions.json").write_text(json.dumps({"images": pictures, "annotations": captions}))
    (folder / "instances.json").write_text(json.dumps({"categories": categories, "annotations": instances}))
    return {"captions": folder / "captions.json", "instances": folder / "instances.json"}


def test_region_files_are_read_by_the_captioners_reader(tmp_path, capsys):
    report = run_coco(AsgCocoConfig(**coco(tmp_path), output_dir=tmp_path / "out"))
    assert (report["images"], report["captions"], report["regions"]) == (10, 20, 10)
    assert report["without_box"]["captions"] == 10
    assert report["without_box"]["most_frequent"]["no_category"] == {"tree": 10, "park": 10}
    assert report["splits"] == {"trn": 8, "val": 1, "val_sub": 1}
    assert "10 regions of 20 captions of 10 images" in capsys.readouterr().out
    notes = AnnotationFolder(tmp_path / "out" / "annotations")
    skipped = Skipped()
    regions = [r for split in report["splits"] for r in notes.regions(split, skipped)]
    assert not skipped.reasons
    assert len({r.image_id for r in regions}) == 10
    region = next(r for r in regions if r.image_id == "000000000001")
    assert region.region_id == "10"
    assert region.captions == ("a man walks a red dog",)
    man, dog = region.graph.objects
    assert (man.box, dog.box, dog.attributes) == (Box(1, 2, 11, 20), Box(30, 2, 11, 20), ("red",))
    assert region.graph.relationships[0].name == "walks"
    assert notes.vocabulary().words == ("BOS", "EOS", "UNK", "a", "black", "dog", "man", "red", "walks")
    split = np.load(tmp_path / "out" / "annotations" / "public_split" / "trn_names.npy")
    assert len(split) == 8
    assert split[0].endswith(".jpg")


def test_folds_part_the_images(tmp_path):
    report = run_coco(AsgCocoConfig(**coco(tmp_path), output_dir=tmp_path / "out", folds=3))
    notes = AnnotationFolder(tmp_path / "out" / "annotations")
    held = []
    for fold in (1, 2, 3):
        trained, left = ({r.image_id for r in notes.regions(f"{s}_{fold}", Skipped())} for s in ("trn", "val"))
        assert not trained & left
        assert len(trained | left) == 10
        held += left
    assert len(held) == len(set(held)) == 10
    assert set(report["splits"]) == {f"{s}_{k}" for s in ("trn", "val") for k in (1, 2, 3)}


def test_splits_of_ones_own(tmp_path):
    """By id or file name; an image may be in none; the vocabulary is that of trn alone."""
    one, two, three, four = (f"{k:012d}" for k in (1, 2, 3, 4))
    given = {"trn": [f"{one}.jpg", three], "val": [two, "nobody.jpg"], "val_sub": [two, four]}
    (tmp_path / "splits.json").write_text(json.dumps(given))
    paths = coco(tmp_path)
    report = run_coco(AsgCocoConfig(**paths, output_dir=tmp_path / "out", splits=tmp_path / "splits.json"))
    assert report["splits"] == {"trn": 2, "val": 1, "val_sub": 2}
    assert report["left_out"] == ["split val: there is no image nobody with captions"]
    notes = AnnotationFolder(tmp_path / "out" / "annotations")
    assert [r.image_id for r in notes.regions("trn", Skipped())] == [one, three]
    words = notes.vocabulary().words
    assert "red" in words
    assert "black" not in words


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"val": ["000000000001"]}, "must have a split trn"),
        ({"trn": ["nobody"]}, "not one image of trn"),
        ({"trn": "000000000001"}, "trn must be a list"),
        ([], "JSON object"),
    ],
)
def test_splits_that_are_none(tmp_path, given, says):
    (tmp_path / "splits.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=says):
        run_coco(AsgCocoConfig(**coco(tmp_path), output_dir=tmp_path / "out", splits=tmp_path / "splits.json"))


def test_the_same_data_give_the_same_files(tmp_path):
    for name in ("one", "two"):
        run_coco(AsgCocoConfig(**coco(tmp_path), output_dir=tmp_path / name, seed=3))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    for file in files:
        if file.name != "asg.json":
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    run_coco(AsgCocoConfig(**coco(tmp_path), output_dir=tmp_path / "one"))  # replaces its own


def test_a_rare_word_is_unknown_and_the_parser_is_measured(tmp_path, capsys):
    phrases = tmp_path / "dev.csv"
    phrases.write_text('caption,scene_graph\na red cup,"( cup , is , red )"\n')
    paths = coco(tmp_path, images=2)
    config = AsgCocoConfig(
        **paths, output_dir=tmp_path / "out", min_count=2, val_share=0, val_sub_share=0, phrases=phrases
    )
    assert run_coco(config)["parser"]["all"]["f1"] == 1
    assert "1 phrases" in capsys.readouterr().out
    words = AnnotationFolder(tmp_path / "out" / "annotations").vocabulary().words
    assert "red" not in words
    assert "dog" in words


def test_bad_files_and_folders_are_refused(tmp_path):
    paths = coco(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="something else"):
        run_coco(AsgCocoConfig(**paths, output_dir=tmp_path / "full"))
    with pytest.raises(DataError, match="folds"):
        run_coco(AsgCocoConfig(**paths, output_dir=tmp_path / "out", folds=11))
    with pytest.raises(DataError, match="cannot be read"):
        run_coco(AsgCocoConfig(captions=tmp_path / "no", instances=paths["instances"], output_dir=tmp_path / "out"))
    (tmp_path / "other.json").write_text('{"images": [], "annotations": [{}]}')
    with pytest.raises(DataError, match="not as COCO"):
        run_coco(
            AsgCocoConfig(captions=paths["captions"], instances=tmp_path / "other.json", output_dir=tmp_path / "o")
        )
    (tmp_path / "none.json").write_text('{"categories": [], "annotations": []}')
    with pytest.raises(DataError, match="No caption"):
        run_coco(AsgCocoConfig(captions=paths["captions"], instances=tmp_path / "none.json", output_dir=tmp_path / "o"))
    assert not (tmp_path / "out").exists()


def test_boxes_and_images_that_cannot_be_used_are_named(tmp_path):
    paths = coco(tmp_path)
    content = json.loads(paths["instances"].read_text())
    content["annotations"][0]["bbox"] = [900, 0, 5, 5]
    content["annotations"][2]["image_id"] = 77
    paths["instances"].write_text(json.dumps(content))
    report = run_coco(AsgCocoConfig(**paths, output_dir=tmp_path / "out"))
    assert len(report["left_out"]) == 2
    assert "outside the image" in report["left_out"][0]


def test_the_commands(tmp_path, capsys):
    paths = [f"--{name}={path}" for name, path in coco(tmp_path).items()]
    assert main(["asg", "coco", *paths, "--output_dir", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "annotations" / "int2word.npy").is_file()
    phrases = tmp_path / "dev.csv"
    phrases.write_text('caption,scene_graph\na red cup,"( cup , is , red )"\n')
    assert main(["evaluate", "asg", "--phrases", str(phrases)]) == 0
    assert "relationships" in capsys.readouterr().out
    assert main(["evaluate", "asg", "--phrases", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 1},
        {"val_share": 0.6, "val_sub_share": 0.4},
        {"val_share": 1},
        {"min_count": 0},
        {"folds": 2, "splits": "s.json"},
    ],
)
def test_options_outside_their_range(tmp_path, options):
    with pytest.raises(OptionInvalid):
        AsgCocoConfig(captions=tmp_path, instances=tmp_path, output_dir=tmp_path, **options)
