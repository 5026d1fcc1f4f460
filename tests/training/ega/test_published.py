import json

import numpy as np
import pytest

from saaa.errors import DataError
from tests.training.ega.tiny_world import make
from training.ega.published import AnnotationFolder, ImageFolder, Skipped, image_file

SIZES = {"trn": 4, "val": 2}


@pytest.fixture(params=[False, True], ids=["text", "pickled"])
def world(tmp_path, request):
    return make(tmp_path, SIZES, pickled=request.param)


def test_regions_come_in_the_splits_order_with_their_captions(world):
    skipped = Skipped()
    regions = AnnotationFolder(world / "annotations").regions("trn", skipped)
    assert [r.image_id for r in regions] == ["000001", "000002", "000003", "000004"]
    assert not skipped.reasons
    for region in regions:
        assert len(region.captions) == 2
        assert all(thing.name in region.captions[0] for thing in region.graph.objects)


def test_vocabulary_has_the_markers_first(world):
    vocabulary = AnnotationFolder(world / "annotations").vocabulary()
    assert vocabulary.words[:3] == ("BOS", "EOS", "UNK")
    assert "coffee" in vocabulary.ids


def test_images_are_found_below_the_folder(world):
    annotations = AnnotationFolder(world / "annotations")
    regions = annotations.regions("trn", Skipped())
    (world / "trn" / "scene" / "000002.jpg").unlink()
    folder = ImageFolder(world, {r.file_name for r in regions})
    skipped = Skipped()
    assert [r.image_id for r in folder.keep_found(regions, skipped)] == ["000001", "000003", "000004"]
    assert "000002" in skipped.summary()
    with pytest.raises(DataError, match="None of the images"):
        ImageFolder(world / "annotations", {"000001.jpg"}).keep_found(regions, Skipped())


def test_two_images_of_one_name_are_refused(world):
    (world / "val" / "000001.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="one name"):
        ImageFolder(world, {"000001.jpg"})


def change_region(world, image, change):
    path = world / "annotations" / "regionfiles" / f"{image}.json"
    content = json.loads(path.read_text())
    change(content["0"])
    path.write_text(json.dumps(content))


def test_unusable_regions_are_named_and_the_rest_is_kept(world):
    change_region(world, "000001", lambda r: r["relationships"][0].update(object_id=99))
    change_region(world, "000002", lambda r: r.update(objects=[]))
    captions_file = world / "annotations" / "cleaned_trn_region_descriptions.json"
    captions = json.loads(captions_file.read_text())
    del captions["000003"]
    captions_file.write_text(json.dumps(captions))
    skipped = Skipped()
    regions = AnnotationFolder(world / "annotations").regions("trn", skipped)
    assert [r.image_id for r in regions] == ["000004"]
    assert len(skipped.reasons) == 3
    assert "refers to object 99" in skipped.reasons[0]
    assert "objects" in skipped.reasons[1]
    assert "no caption" in skipped.reasons[2]
    assert skipped.summary().startswith("skipped 3: region 0 of image 000001")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("regionfiles/trn_names.npy", None, "There is no file"),
        ("cleaned_trn_region_descriptions.json", b"{", "cannot be read as JSON"),
        ("cleaned_trn_region_descriptions.json", b'{"000001": {"0": "not a list"}}', "list of captions"),
        ("regionfiles/trn_names.npy", b"no numpy", "cannot be read"),
    ],
)
def test_missing_and_damaged_files_are_named(world, file, content, message):
    path = world / "annotations" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        AnnotationFolder(world / "annotations").regions("trn", Skipped())
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "There is no file"), (b"{", "cannot be read as JSON"), (b"[]", "must hold a JSON object")],
)
def test_an_image_without_its_region_file_is_named_and_the_rest_is_kept(world, content, message):
    path = world / "annotations" / "regionfiles" / "000001.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    skipped = Skipped()
    regions = AnnotationFolder(world / "annotations").regions("trn", skipped)
    assert [r.image_id for r in regions] == ["000002", "000003", "000004"]
    assert message in skipped.summary()
    assert str(path) in skipped.summary()


def test_without_cleaned_captions_a_regions_caption_is_its_phrase(world):
    notes = AnnotationFolder(world / "annotations")
    said = [region.captions for region in notes.regions("trn", Skipped())]
    (world / "annotations" / "cleaned_trn_region_descriptions.json").unlink()
    change_region(world, "000004", lambda r: r.pop("phrase"))
    skipped = Skipped()
    assert [region.captions for region in notes.regions("trn", skipped)] == [captions[:1] for captions in said[:3]]
    assert "000004: it has no caption" in skipped.summary()


def test_images_of_a_split_are_in_the_order_of_its_global_features(world):
    notes = AnnotationFolder(world / "annotations")
    assert notes.splits() == ["trn", "val"]
    assert notes.image_ids("val") == ["000005", "000006"]
    np.save(world / "annotations" / "public_split" / "val_names.npy", np.array(["1.jpg", "2.jpg", "1.jpg"]))
    with pytest.raises(DataError, match="twice"):
        notes.image_ids("val")


def test_vocabularies_that_disagree_are_refused(world):
    path = world / "annotations" / "word2int.json"
    ids = json.loads(path.read_text())
    path.write_text(json.dumps({**ids, "a": ids["a"] + 1}))
    with pytest.raises(DataError, match="disagree on the word 'a'"):
        AnnotationFolder(world / "annotations").vocabulary()


def test_names_that_are_no_pairs_are_refused(world):
    np.save(world / "annotations" / "regionfiles" / "trn_names.npy", np.array(["000001"]))
    with pytest.raises(DataError, match="pairs"):
        AnnotationFolder(world / "annotations").regions("trn", Skipped())


def test_a_slash_in_an_id_is_an_underscore_in_file_names():
    assert image_file("set/12") == "set_12.jpg"
    assert image_file("12.jpg") == "12.jpg"
