"""The classifier: its configuration, preprocessing and way through an archive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.work import ModelKind, TargetKind

CLASSES = ("bath", "den", "hall")


def make(architecture: str = "test_efficientnet", size: int = 32, **options: Any) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=size, **options)
    return Classifier(config).eval()


def pixels(count: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"architecture": "efficientnet_lite99"}, "model"),
        ({"classes": ("one",)}, "classes"),
        ({"classes": ("a", "a")}, "classes"),
        ({"input_size": 8}, "input_size"),
        ({"input_size": 4096}, "input_size"),
        ({"resize": "stretch"}, "resize"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
        ({"options": {"checkpoint_path": "weights.pth"}}, "options.checkpoint_path"),
        ({"options": {"num_classes": 5}}, "options.num_classes"),
        ({"options": {"patch_size": (8, 8)}}, "options.patch_size"),
    ],
)
def test_config_refuses(wrong: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {"architecture": "test_efficientnet", "classes": CLASSES, "input_size": 32}
    ClassifierConfig(**good)
    with pytest.raises(OptionInvalid) as caught:
        ClassifierConfig(**{**good, **wrong})
    assert caught.value.field == field


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(OptionInvalid, match="Did you mean tf_efficientnet_lite"):
        ClassifierConfig(architecture="tf_efficientnet_lite", classes=CLASSES, input_size=32)


def test_size_that_the_network_cannot_take() -> None:
    with pytest.raises(OptionInvalid, match="40 pixels"):
        make("nest_tiny", size=40)


def test_options_reach_the_network() -> None:
    options = {"global_pool": "avg", "class_token": False, "patch_size": 8, "embed_dim": 96, "num_heads": 3}
    net: Any = make("test_vit", size=48, options=options).net
    assert (net.global_pool, net.num_prefix_tokens, net.embed_dim) == ("avg", 0, 96)
    assert net.patch_embed.grid_size == (6, 6)


@pytest.mark.parametrize(
    ("architecture", "options", "field", "message"),
    [
        ("test_vit", {"pool": "avg"}, "options.pool", "test_vit has no option 'pool'"),
        ("resnet10t", {"patch_size": 8}, "options.patch_size", "resnet10t has no option 'patch_size'"),
        ("test_vit", {"global_pool": "best"}, "options", "best"),
        ("test_vit", {"embed_dim": 65}, "options", "65.*divisible"),
        ("test_vit", {"patch_size": 0}, "options", "zero"),
    ],
)
def test_options_that_the_network_refuses(architecture: str, options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(OptionInvalid, match=message) as caught:
        make(architecture, options=options)
    assert caught.value.field == field


def test_preprocess_by_hand() -> None:
    classifier = make(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    image = torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
    image[0, 3, 5] = torch.tensor([255, 255, 0], dtype=torch.uint8)
    inputs = classifier.preprocess(image)
    assert inputs.shape == (1, 3, 32, 32)
    assert inputs.dtype == torch.float32
    assert inputs[0, :, 3, 5].tolist() == pytest.approx([1.0, 1.0, -4.0])
    assert inputs[0, :, 5, 3].tolist() == pytest.approx([0.0, -1.0, -4.0])


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros((1, 31, 32, 3), dtype=torch.uint8),
        torch.zeros((1, 3, 32, 32), dtype=torch.uint8),
        torch.zeros((32, 32, 3), dtype=torch.uint8),
        torch.zeros((1, 32, 32, 3)),
    ],
)
def test_preprocess_refuses_other_shapes_and_types(bad: torch.Tensor) -> None:
    with pytest.raises(OptionInvalid):
        make().preprocess(bad)


@pytest.mark.parametrize(("architecture", "size"), [("test_efficientnet", 32), ("resnet10t", 48), ("test_vit", 64)])
def test_archive_round_trip(architecture: str, size: int) -> None:
    before = make(architecture, size, resize="crop", crop_fraction=0.875)
    archive = before.to_archive("rooms", "1.0", {"note": "test"})
    after = Classifier.from_archive(archive)
    assert after.config == before.config
    assert not after.training
    assert not any(p.requires_grad for p in after.parameters())
    with torch.inference_mode():
        inputs = before.preprocess(pixels(2, size))
        assert torch.equal(before(inputs), after(after.preprocess(pixels(2, size))))
    info = archive.info()
    assert info.classes == CLASSES
    assert info.input_size == size
    assert "grad_cam" in {method.name for method in info.methods}


def test_archive_keeps_options() -> None:
    before = make("test_vit", options={"global_pool": "avg", "class_token": False, "depth": 2})
    archive = before.to_archive("rooms", "1.0", {})
    assert archive.config["architecture"]["options"] == {"global_pool": "avg", "class_token": False, "depth": 2}
    assert Classifier.from_archive(archive).config == before.config
    methods = {method.name: method for method in archive.info().methods}
    assert methods["cp_lrp"].targets == (TargetKind.CLASS,)


def test_older_archive_without_options() -> None:
    archive = make().to_archive("rooms", "1.0", {})
    config = {**archive.config, "architecture": {"model": "test_efficientnet"}}
    assert Classifier.from_archive(replace(archive, config=config)).config.options == {}


@pytest.mark.parametrize("options", [{"pool": 3}, {"cache_dir": "x"}, ["depth"], 7])
def test_archive_with_unusable_options(options: Any) -> None:
    archive = make().to_archive("rooms", "1.0", {})
    config = {**archive.config, "architecture": {"model": "test_efficientnet", "options": options}}
    with pytest.raises(ArchiveError):
        Classifier.from_archive(replace(archive, config=config))


def test_archive_of_another_kind() -> None:
    archive = make().to_archive("rooms", "1.0", {})
    with pytest.raises(ArchiveError, match="kind ega"):
        Classifier.from_archive(replace(archive, kind=ModelKind.EGA))


@pytest.mark.parametrize("part", ["architecture", "preprocessing", "classes"])
def test_archive_without_a_part(part: str) -> None:
    archive = make().to_archive("rooms", "1.0", {})
    config = {key: value for key, value in archive.config.items() if key != part}
    with pytest.raises(ArchiveError):
        Classifier.from_archive(replace(archive, config=config))


def test_archive_whose_weights_do_not_fit() -> None:
    archive = make().to_archive("rooms", "1.0", {})
    name = next(iter(archive.tensors))
    fewer = {key: value for key, value in archive.tensors.items() if key != name}
    with pytest.raises(ArchiveError, match=name):
        Classifier.from_archive(replace(archive, tensors=fewer))
    wrong = {**archive.tensors, name: np.zeros((1, 2, 3), np.float32)}
    with pytest.raises(ArchiveError, match=name):
        Classifier.from_archive(replace(archive, tensors=wrong))
