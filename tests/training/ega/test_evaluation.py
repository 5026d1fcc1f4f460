import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import DataError, OptionInvalid
from saaa.models.guided import GuidedCaptioner
from saaa.work import CaptionOptions
from tests.pages import without_pictures
from tests.training.ega.tiny_run import SIZES, config_for
from tests.training.ega.tiny_world import make
from training.ega import ArchiveConfig, EvaluateConfig, evaluate, run
from training.ega import archive as make_archive
from training.ega.dataset import load_input
from training.ega.mentions import Wording
from training.ega.metrics import bleu, cider
from training.ega.published import AnnotationFolder, Skipped

RESAMPLES = 200


@pytest.fixture(scope="module", autouse=True)
def no_java(tmp_path_factory):
    """METEOR's program takes 10 s to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(tmp_path_factory.mktemp("no java")))
        yield


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A run of six epochs."""
    folder = tmp_path_factory.mktemp("trained")
    run(config_for(world, folder, epochs=6, schedule="cosine", ema=0.9, smoothing=0.1))
    return folder


def config_of(world, trained, **options) -> EvaluateConfig:
    defaults = {"data_path": world, "checkpoint": trained / "best.pt", "resamples": RESAMPLES, "threads": 1}
    return EvaluateConfig(**{**defaults, "device": "cpu", **options})


@pytest.fixture(scope="module")
def figures(world, trained, tiny_models):
    return evaluate(
        config_of(world, trained, output=trained / "out" / "figures.json", proposer=tiny_models / "egdd.mar", diverse=3)
    )


@pytest.fixture(scope="module")
def written(trained, figures):
    return json.loads((trained / "out" / "figures.json").read_text())


@pytest.fixture(scope="module")
def regions(world):
    return AnnotationFolder(world / "annotations").regions("val_sub", Skipped())


def test_every_figure_is_there_and_within_its_range(figures, written):
    assert (figures["regions"], figures["images"]) == (SIZES["val_sub"],) * 2
    shares = [
        figures["ega_object_recall"],
        figures["ega_object_precision"],
        *figures["mention"].values(),
        figures["node_accuracy"],
        figures["said_node_accuracy"],
        *figures["diversity"]["beam"].values(),
        *figures["diversity"]["sample"].values(),
    ]
    assert all(0 <= share <= 1 for share in shares)
    low, high = figures["ega_cider_ratio_interval"]
    assert low <= figures["ega_cider_ratio"] <= high
    above = figures["proposed_above_shuffled"]
    assert above["interval"][0] <= above["difference"] <= above["interval"][1]
    assert set(figures["mention"]) == {"object", "attribute", "relationship"}
    assert set(figures["missing"]) == {"meteor", "spice"}
    assert {name for name, value in figures["metrics"].items() if value is None} == {"meteor", "spice"}
    assert {name: written[name] for name in figures} == figures


def test_figures_are_those_of_the_captions_written_beside_them(figures, written, regions, world):
    references = [region.captions for region in regions]
    captions = written["captions"]
    said = {
        "true": [c["caption"].split() for c in captions],
        "proposed": [c["proposed"]["caption"].split() for c in captions],
        "shuffled": [c["other_graph"]["caption"].split() for c in captions],
    }
    known = AnnotationFolder(world / "annotations").regions("trn", Skipped()) + regions
    wording = Wording([r.graph for r in known], [r.captions for r in known])
    for kind, words in said.items():
        found = wording.count(words, [region.graph for region in regions]).objects
        assert figures["graphs"][kind] == {
            "cider": pytest.approx(cider(words, references).mean()),
            "object_recall": found.recall,
            "object_precision": found.precision,
        }
    assert figures["ega_cider"] == figures["metrics"]["cider"] == figures["graphs"]["true"]["cider"]
    assert figures["ega_cider_shuffled"] == figures["graphs"]["shuffled"]["cider"]
    assert figures["ega_object_recall"] == figures["mention"]["object"] == figures["graphs"]["true"]["object_recall"]
    assert figures["metrics"]["bleu4"] == pytest.approx(bleu(said["true"], references)[3])
    assert [(c["image"], c["region"]) for c in captions] == [(r.image_id, r.region_id) for r in regions]
    assert all(c["image"] != c["other_graph"]["image"] for c in captions)


def test_captions_are_what_serving_says_along_each_graph(world, trained, written, regions):
    """The regions' own graphs, and other images' (all pictures have one size), one by one through the archive."""
    path = trained / "served.mar"
    make_archive(ArchiveConfig(checkpoint=trained / "best.pt", output=path))
    guided = GuidedCaptioner.from_archive(archive.read(path))
    by_id = {region.image_id: region for region in regions}
    for entry in written["captions"][:4]:
        region = by_id[entry["image"]]
        pixels, geometry = load_input(next(world.rglob(region.file_name)), guided.features.config)
        for graph, told in ((region.graph, entry), (by_id[entry["other_graph"]["image"]].graph, entry["other_graph"])):
            role = graph.role_graph()
            ((caption,),) = guided.caption(
                torch.from_numpy(pixels)[None],
                [role.with_boxes(geometry.to_input(role.boxes))],
                CaptionOptions(beam_width=3),
            )
            assert " ".join(caption.words) == told["caption"]


def test_the_archive_measures_like_its_checkpoint(world, trained, figures, tmp_path):
    path = tmp_path / "ega.mar"
    report = trained / "out" / "figures.json"
    make_archive(ArchiveConfig(checkpoint=trained / "best.pt", output=path, version="2", metrics=report))
    whole = archive.read(path)
    assert whole.card["metrics"]["ega_cider"] == figures["ega_cider"]
    assert whole.card["recipe"]["width"] == 16
    again = evaluate(EvaluateConfig(data_path=world, archive=path, resamples=RESAMPLES, diverse=1))
    assert (again["digest"], figures["digest"]) == (whole.digest, None)
    assert again["ega_cider"] == figures["ega_cider"]
    assert again["node_accuracy"] == pytest.approx(figures["node_accuracy"])
    assert again["diversity"] == {}
    assert (again["graphs"].keys(), again["proposed_above_shuffled"]) == ({"true", "shuffled"}, None)
    assert GuidedCaptioner.from_archive(whole).captioner.config.max_words == 24


class Page(HTMLParser):
    """What a page shows and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.captions: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if found.get("class") == "caption":
            self.captions.append(found["aria-label"])
        self.sources += [found[name] for name in ("src", "href") if name in found]


def test_the_page_shows_all_graphs_of_an_image_side_by_side(trained, written):
    text = (trained / "out" / "figures.html").read_text()
    page = Page(text)
    entries = [(c["caption"], c["proposed"]["caption"], c["other_graph"]["caption"]) for c in written["captions"]]
    assert page.captions == [caption for entry in entries for caption in entry]
    assert len(page.sources) == 3 * SIZES["val_sub"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "http" not in without_pictures(text)
    assert re.findall("<h2>(.*?),", text) == [f"{c['image']}.jpg" for c in written["captions"]]


def test_a_swapped_graph_changes_the_caption(written):
    changed = [c for c in written["captions"] if c["caption"] != c["other_graph"]["caption"]]
    assert len(changed) > len(written["captions"]) / 2


def test_several_regions_of_an_image_share_what_is_the_image_s(world, trained, tiny_models, tmp_path):
    """Diversity is of images, the proposed graph too; batches that cut an image in two change nothing."""
    folder = tmp_path / "world"
    shutil.copytree(world, folder)
    notes = folder / "annotations"
    pairs = np.load(notes / "regionfiles" / "val_sub_names.npy", allow_pickle=True)[:3]
    said = json.loads((notes / "cleaned_val_sub_region_descriptions.json").read_text())
    for image, _ in pairs:
        path = notes / "regionfiles" / f"{image}.json"
        path.write_text(json.dumps(dict.fromkeys("0123", json.loads(path.read_text())["0"])))
        said[image] = dict.fromkeys("0123", said[image]["0"])
    (notes / "cleaned_val_sub_region_descriptions.json").write_text(json.dumps(said))
    np.save(notes / "regionfiles" / "val_sub_names.npy", np.array([(i, r) for i, _ in pairs for r in "0123"]))
    options = {"proposer": tiny_models / "egdd.mar", "diverse": 2}
    many = evaluate(config_of(folder, trained, batch_size=3, **options))
    np.save(notes / "regionfiles" / "val_sub_names.npy", pairs)
    few = evaluate(config_of(folder, trained, **options))
    assert [(found["regions"], found["images"]) for found in (many, few)] == [(12, 3), (3, 3)]
    assert many["mention"] == few["mention"]
    assert many["node_accuracy"] == pytest.approx(few["node_accuracy"])
    assert many["said_node_accuracy"] == pytest.approx(few["said_node_accuracy"])
    assert many["diversity"]["beam"]["distinct_1"] == pytest.approx(few["diversity"]["beam"]["distinct_1"])


def test_a_damaged_image_costs_its_regions_only(trained, tmp_path):
    world = make(tmp_path / "world", SIZES)
    whole = evaluate(config_of(world, trained))
    (world / "val_sub" / "scene" / "000031.jpg").write_bytes(b"no picture")
    found = evaluate(config_of(world, trained))
    assert found["skipped"] == whole["skipped"] + 1
    assert found["images"] == whole["images"] - 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("split", r"has no split 'absent'; choose one of trn, val, val_sub"),
        ("image", "All regions are of image 000031; comparing with another's graph needs two"),
        ("captions", r"region 0 of image 000031 must have a list of captions"),
        ("references", r"leaves no usable region\. skipped 8: .* it has no caption"),
        ("pictures", r"None of the images is below"),
        ("damaged", r"None of the images .* can be used\. skipped 8: .*000031\.jpg cannot be read as an image"),
    ],
)
def test_data_that_cannot_be_measured_on_are_named(trained, tmp_path, spoil, message):
    world = make(tmp_path / "world", SIZES)
    notes = world / "annotations"
    options = {}
    if spoil == "split":
        options["eval_set"] = "absent"
    elif spoil == "image":
        names = notes / "regionfiles" / "val_sub_names.npy"
        np.save(names, np.load(names)[:1])
    elif spoil == "captions":
        (notes / "cleaned_val_sub_region_descriptions.json").write_text(json.dumps({"000031": {"0": [" "]}}))
    elif spoil == "references":
        (notes / "cleaned_val_sub_region_descriptions.json").unlink()
        for path in (notes / "regionfiles").glob("*.json"):
            region = json.loads(path.read_text())["0"]
            path.write_text(json.dumps({"0": {**region, "phrase": ""}}))
    elif spoil == "pictures":
        options["images"] = notes
    else:
        for picture in (world / "val_sub" / "scene").glob("*.jpg"):
            picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match=message):
        evaluate(config_of(world, trained, **options))


def test_what_is_skipped_is_counted(trained, tmp_path, capsys):
    world = make(tmp_path / "world", SIZES)
    (world / "val_sub" / "scene" / "000033.jpg").unlink()
    found = evaluate(config_of(world, trained, diverse=1))
    assert (found["regions"], found["skipped"]) == (7, 1)
    assert "skipped 1: region 0 of image 000033: there is no such image" in capsys.readouterr().out


def test_options_are_checked(world, trained, tiny_models):
    with pytest.raises(OptionInvalid, match="either"):
        EvaluateConfig(data_path=world)
    with pytest.raises(OptionInvalid, match="either"):
        EvaluateConfig(data_path=world, archive=trained, checkpoint=trained)
    with pytest.raises(OptionInvalid, match="an EGDD archive"):
        evaluate(config_of(world, trained, proposer=tiny_models / "ega.mar"))
