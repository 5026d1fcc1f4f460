import dataclasses
import json

import pytest

from saaa import archive
from saaa.errors import DataError, OptionInvalid
from saaa.models.guided import GuidedCaptioner
from tests.training.ega.tiny_run import config_for
from training.ega import ArchiveConfig, EvaluateConfig, evaluate, run
from training.ega import archive as make_archive
from training.ega.evaluation import other_regions
from training.ega.published import AnnotationFolder, Skipped


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A run of six epochs."""
    folder = tmp_path_factory.mktemp("trained")
    run(config_for(world, folder, epochs=6, schedule="cosine", ema=0.9, smoothing=0.1))
    return folder


@pytest.fixture(scope="module")
def figures(world, trained):
    return evaluate(
        EvaluateConfig(
            data_path=world, checkpoint=trained / "best.pt", output=trained / "figures.json", resamples=200, threads=1
        )
    )


def test_evaluation_gives_the_named_figures(trained, figures):
    assert figures["regions"] == 8
    for name in ("ega_object_recall", "ega_object_precision"):
        assert 0 <= figures[name] <= 1
    assert figures["ega_cider"] > 0
    assert figures["ega_cider_shuffled"] >= 0
    low, high = figures["ega_cider_ratio_interval"]
    assert low <= figures["ega_cider_ratio"] <= high
    written = json.loads((trained / "figures.json").read_text())
    assert len(written["captions"]) == 8
    assert all(c["image"] != c["other_graph"]["image"] for c in written["captions"])


def test_the_archive_measures_like_its_checkpoint(world, trained, figures, tmp_path):
    path = tmp_path / "ega.mar"
    make_archive(
        ArchiveConfig(checkpoint=trained / "best.pt", output=path, version="2", metrics=trained / "figures.json")
    )
    whole = archive.read(path)
    assert whole.card["metrics"]["ega_cider"] == figures["ega_cider"]
    assert whole.card["recipe"]["width"] == 16
    again = evaluate(EvaluateConfig(data_path=world, archive=path, resamples=200))
    assert again["ega_cider"] == figures["ega_cider"]
    assert GuidedCaptioner.from_archive(whole).captioner.config.max_words == 24


def test_evaluation_needs_one_model(world, trained):
    with pytest.raises(OptionInvalid, match="either"):
        EvaluateConfig(data_path=world)
    with pytest.raises(OptionInvalid, match="either"):
        EvaluateConfig(data_path=world, archive=trained, checkpoint=trained)


def test_other_regions_are_of_other_images(world):
    regions = AnnotationFolder(world / "annotations").regions("trn", Skipped())
    twice = [dataclasses.replace(r, region_id=str(k)) for r in regions for k in range(2)]
    others = other_regions(twice, seed=3)
    assert all(one.image_id != two.image_id for one, two in zip(twice, others, strict=True))
    assert len({(o.image_id, o.region_id) for o in others}) == len(twice)
    with pytest.raises(DataError, match="needs two"):
        other_regions(twice[:2], seed=3)
