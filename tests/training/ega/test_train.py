import dataclasses
import json

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.models.guided import GuidedCaptioner
from tests.training.ega.tiny_world import make
from training.ega import ArchiveConfig, EgaConfig, EvaluateConfig, evaluate, run
from training.ega import archive as make_archive
from training.ega.dataset import CaptionSet, cached, extract, load_input
from training.ega.evaluation import other_regions
from training.ega.published import AnnotationFolder, ImageFolder, Skipped
from training.ega.train import Trainer, load_data, load_guided
from training.progress import curves
from training.seeding import seed_everything

SIZES = {"trn": 24, "val": 6, "val_sub": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"), SIZES, pickled=True)


def config_for(world, folder, **options) -> EgaConfig:
    defaults = {
        "model": "test_efficientnet",
        "levels": (1, 2),
        "input_size": 64,
        "width": 16,
        "epochs": 2,
        "batch_size": 16,
        "lr": 3e-3,
        "threads": 1,
    }
    return EgaConfig(**{**defaults, "data_path": world, "output_dir": folder, **options})


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A run of six epochs."""
    folder = tmp_path_factory.mktemp("trained")
    run(config_for(world, folder, epochs=6, schedule="cosine", ema=0.9, smoothing=0.1))
    return folder


def test_training_learns_and_leaves_its_files(trained):
    epochs = json.loads((trained / "metrics.json").read_text())["epochs"]
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1]["train/loss"] < 0.9 * epochs[0]["train/loss"]
    assert epochs[-1]["val/loss"] < epochs[0]["val/loss"]
    assert {"best.pt", "last.pt", "skipped.txt"} <= {path.name for path in trained.iterdir()}
    assert list(trained.glob("events.out.tfevents.*"))


def test_resuming_gives_what_an_uninterrupted_run_gives(world, tmp_path):
    """Weights, optimiser, random state and schedule all come back: the second epoch is bit for bit the same."""
    config = config_for(world, tmp_path, ema=0.5, schedule="cosine", captions_per_region=1, naming_weight=0.5)
    seed_everything(config.seed)
    data = load_data(config)
    with curves(tmp_path) as board:
        whole = Trainer(config, data)
        whole.run_epoch(board)
        first = torch.load(tmp_path / "last.pt", weights_only=True)
        whole.run_epoch(board)

        torch.save(first, tmp_path / "stopped.pt")
        seed_everything(99)
        resumed = Trainer(config, data)
        resumed.resume(tmp_path / "stopped.pt")
        assert (resumed.epoch, resumed.step) == (1, first["step"])
        resumed.run_epoch(board)
    for one, two in ((whole.captioner, resumed.captioner), (whole.served, resumed.served)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert whole.history == resumed.history


def test_the_explanation_loss_draws_attention_to_the_named_nodes(world, tmp_path):
    found = []
    for name, weight in (("without", 0.0), ("with", 3.0)):
        config = config_for(
            world, tmp_path / name, epochs=8, batch_size=8, lr=1e-2, explanation_weight=weight, feature_dropout=0.1
        )
        run(config)
        data = load_data(dataclasses.replace(config, explanation_weight=1.0))
        guided, _ = load_guided(tmp_path / name / "last.pt")
        batch = data.train.batch(torch.arange(len(data.train)), "cpu")
        taught = guided.captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
        wanted = batch.named[taught.rows, taught.steps + 1]
        assert 0.5 < float((wanted.sum(1) > 0).float().mean()) < 0.9
        found.append(float((taught.attention * wanted).sum() / wanted.sum()))
    assert found[1] > found[0] + 0.05


def test_equal_seeds_give_equal_models(world, tmp_path):
    for name in ("one", "two"):
        run(config_for(world, tmp_path / name, epochs=1))
    one, two = (load_guided(tmp_path / name / "last.pt")[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_checkpoint_of_other_sizes_or_kind_is_refused(world, trained, tmp_path):
    with pytest.raises(CheckpointError, match="other sizes"):
        run(config_for(world, tmp_path, width=24, resume=trained / "last.pt"))
    with pytest.raises(CheckpointError, match=r"resume from last\.pt"):
        run(config_for(world, tmp_path, resume=trained / "best.pt"))
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(config_for(world, tmp_path, resume=tmp_path / "noise.pt"))


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


def test_features_are_those_of_serving(world, trained):
    """What training read from its cache and standardised is what the served model computes of the same picture."""
    guided, _ = load_guided(trained / "best.pt")
    seed_everything(0)  # the backbone is random
    data = load_data(config_for(world, trained))

    regions = data.val.regions
    folder = ImageFolder(world, {region.file_name for region in regions})
    pixels, geometry = load_input(folder.paths[regions[2].file_name], guided.features.config)
    graph = regions[2].graph.role_graph()
    nodes, image = guided.features(
        torch.from_numpy(pixels)[None], [torch.from_numpy(geometry.to_input(graph.boxes)).float()]
    )
    mine, mine_image, _ = data.val.inputs(torch.tensor([2]), "cpu")
    assert torch.allclose(nodes, mine[0, : len(graph)], rtol=1e-3, atol=1e-3)
    assert torch.allclose(image, mine_image, rtol=1e-3, atol=1e-3)


def test_the_cache_is_used_only_while_it_fits(world, tmp_path):
    data = load_data(config_for(world, tmp_path / "out"))
    regions = AnnotationFolder(world / "annotations").regions("val", Skipped())
    graphs = [region.graph.role_graph() for region in regions]
    folder = ImageFolder(world, {region.file_name for region in regions})
    cache = tmp_path / "cache"
    first = cached(cache, data.extractor, regions, graphs, folder)
    np.save(cache / "image.npy", np.zeros_like(first.image.numpy()))  # leaves a trace if the cache is read
    assert not cached(cache, data.extractor, regions, graphs, folder).image.any()
    moved = [graph.with_boxes(graph.boxes + 1) for graph in graphs]
    assert cached(cache, data.extractor, regions, moved, folder).image.any()
    (cache / "nodes.npy").write_bytes(b"cut")
    assert torch.equal(cached(cache, data.extractor, regions, moved, folder).image, first.image)


def test_extraction_keeps_regions_apart_when_images_repeat(world, tmp_path):
    """Regions of one image that do not follow each other still get the rows of their own boxes."""
    data = load_data(config_for(world, tmp_path))
    regions = AnnotationFolder(world / "annotations").regions("val", Skipped())
    folder = ImageFolder(world, {region.file_name for region in regions})
    shuffled = [regions[0], regions[1], regions[0], regions[2]]
    graphs = [region.graph.role_graph(limit) for region, limit in zip(shuffled, (10, 3, 2, 1), strict=True)]
    together = extract(data.extractor, shuffled, graphs, folder)
    for row in range(4):
        alone = extract(data.extractor, shuffled[row : row + 1], graphs[row : row + 1], folder)
        mine = together.nodes[together.starts[row] : together.starts[row + 1]]
        assert torch.allclose(mine, alone.nodes, rtol=1e-4, atol=1e-4)
        assert torch.allclose(together.image[together.image_of[row]], alone.image[0], rtol=1e-4, atol=1e-4)


def test_an_epoch_holds_every_caption_once_or_as_many_as_asked(world, tmp_path):
    captions: CaptionSet = load_data(config_for(world, tmp_path)).train
    everything = torch.cat(list(captions.epoch(7, None, torch.Generator().manual_seed(1))))
    assert sorted(everything.tolist()) == list(range(len(captions)))
    drawn = torch.cat(list(captions.epoch(7, 1, torch.Generator().manual_seed(1))))
    assert sorted(captions.region_of[drawn].tolist()) == list(range(24))
    again = torch.cat(list(captions.epoch(7, 1, torch.Generator().manual_seed(2))))
    assert set(again.tolist()) != set(drawn.tolist())


def test_long_captions_and_graphs_are_cut_and_reported(world, tmp_path, capsys):
    data = load_data(config_for(world, tmp_path, max_tokens=6, max_nodes=3))
    assert data.train.captions.shape[1] == 6
    assert data.train.cut == len(data.train)
    assert data.train.graphs.mask.shape[1] == 3
    said = capsys.readouterr().out
    assert "48 captions were cut to 6 tokens" in said
    assert "24 graphs were cut to 3 nodes" in said


def test_the_backbone_of_an_egdd_archive_is_taken(world, tmp_path):
    torch.manual_seed(5)
    classifier = Classifier(
        ClassifierConfig(
            architecture="test_efficientnet",
            classes=("a", "b"),
            input_size=48,
            mean=(0.4, 0.4, 0.4),
            std=(0.2, 0.3, 0.2),
        )
    )
    path = tmp_path / "egdd.mar"
    archive.write(path, classifier.to_archive("egdd", "1", {}))
    data = load_data(config_for(world, tmp_path, backbone_archive=path))
    assert data.extractor.config.std == (0.2, 0.3, 0.2)
    wanted = classifier.net.state_dict()
    assert torch.equal(data.extractor.backbone.state_dict()["conv_stem.weight"], wanted["conv_stem.weight"])


def test_missing_data_is_named(world, tmp_path):
    with pytest.raises(DataError, match="no annotation folder"):
        run(config_for(tmp_path / "nowhere", tmp_path))
    with pytest.raises(DataError, match="absent_names"):
        run(config_for(world, tmp_path, train_set="absent"))
    damaged = make(tmp_path / "damaged", {"trn": 2, "val": 2})
    (damaged / "trn" / "scene" / "000001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000001\.jpg cannot be read as an image"):
        run(config_for(damaged, tmp_path / "out"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"max_tokens": 2},
        {"ema": 1.0},
        {"lr": 0.0},
        {"warmup_epochs": 2.0},
        {"pretrained": "efficientnet_lite0"},
    ],
)
def test_impossible_options_are_refused(world, tmp_path, wrong):
    with pytest.raises(OptionInvalid) as caught:
        config_for(world, tmp_path, **wrong)
    assert caught.value.field == next(iter(wrong))


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
