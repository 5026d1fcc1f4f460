"""Archives of published checkpoints: states in the shape that MAE's fine-tuning script writes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saaa import archive
from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier
from tests.training.egdd.conftest import CLASSES
from training.checkpoint import save_checkpoint
from training.egdd.config import ArchiveConfig
from training.egdd.evaluation import settings_of
from training.egdd.networks import mae_config
from training.egdd.packing import pack

TWELVE = tuple(f"room {i}" for i in range(12))


def network(
    classes: tuple[str, ...] = CLASSES, *, model: str = "test_vit", mean_pooling: bool = False, size: int = 32
) -> Classifier:
    torch.manual_seed(0)
    config = mae_config(model, classes, mean_pooling=mean_pooling, input_size=size, crop_fraction=0.875)
    return Classifier(config).eval()


def publish(state: dict[str, Tensor], path: Path, **args: Any) -> Path:
    """All that the script saves; its options among them hold paths, and some that are not ours."""
    defaults: dict[str, Any] = {
        "model": "test_vit", "input_size": 32, "nb_classes": len(CLASSES), "batch_size": 64, "accum_iter": 4,
        "epochs": 100, "blr": 5e-4, "lr": 2e-3, "layer_decay": 0.65, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0,
        "cutmix_minmax": None, "reprob": 0.25, "finetune": "/home/someone/mae_pretrain_vit_base.pth",
        "data_path": "/home/someone/data", "output_dir": "/home/someone/out", "log_dir": "/home/someone/out",
        "device": "cuda", "gpu": 0, "rank": 0, "distributed": True, "dist_backend": "nccl", "world_size": 4,
    }  # fmt: skip
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr_scale": 0.65}])
    weight.grad = torch.ones(2)
    optimizer.step()
    content = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 98,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "args": argparse.Namespace(**(defaults | args)),
    }
    torch.save(content, path)
    return path


def name_classes(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    path = folder / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return path


@pytest.mark.parametrize("mean_pooling", [False, True])
def test_published_checkpoint_can_be_served(mean_pooling: bool, tmp_path: Path) -> None:
    source = network(mean_pooling=mean_pooling, size=48)
    checkpoint = publish(source.net.state_dict(), tmp_path / "checkpoint-98.pth")
    digest = pack(
        ArchiveConfig(
            checkpoint=checkpoint, classes=name_classes(tmp_path), output=tmp_path / "new" / "a.mar", name="rooms"
        )
    )
    found = archive.read(tmp_path / "new" / "a.mar")
    assert found.digest == digest
    served = Classifier.from_archive(found)
    assert served.config == source.config
    assert served.config.input_size == 48, "of the position embedding, whatever the options say"
    inputs = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(served(inputs), source(inputs))


def test_model_card(tmp_path: Path) -> None:
    """What is known and shaped the weights; nothing of the machine that trained them."""
    checkpoint = publish(network().net.state_dict(), tmp_path / "checkpoint-98.pth")
    pack(ArchiveConfig(checkpoint=checkpoint, classes=name_classes(tmp_path), output=tmp_path / "a.mar"))
    card = archive.read(tmp_path / "a.mar").card
    assert card["source"] == "MAE's fine-tuning script"
    assert card["epoch"] == 99
    assert card["data"] == {"train": None, "val": None}
    assert card["metrics"] == {"val": None}
    assert card["faithfulness"] is None
    recipe = card["recipe"]
    assert (recipe["blr"], recipe["accum_iter"], recipe["world_size"], recipe["cutmix_minmax"]) == (5e-4, 4, 4, None)
    assert recipe["finetune"] == "mae_pretrain_vit_base.pth"
    assert not {"data_path", "output_dir", "log_dir", "device", "gpu", "rank", "distributed"} & recipe.keys()
    assert "/home" not in json.dumps(card)


def test_faithfulness_with_validation_images(class_folders: Path, tmp_path: Path) -> None:
    config = ArchiveConfig(
        checkpoint=publish(network().net.state_dict(), tmp_path / "checkpoint.pth"),
        classes=name_classes(tmp_path),
        output=tmp_path / "a.mar",
        data_path=class_folders,
        faithfulness_images=4,
    )
    pack(config)
    card = archive.read(tmp_path / "a.mar").card
    assert card["faithfulness"]["images"] == 4
    assert card["data"]["val"]["images"] == 12
    assert len(card["data"]["val"]["digest"]) == 64


@pytest.mark.slow
def test_graph_with_validation_images(class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    config = ArchiveConfig(
        checkpoint=publish(network().net.state_dict(), tmp_path / "checkpoint.pth"),
        classes=name_classes(tmp_path),
        output=tmp_path / "a.mar",
        data_path=class_folders,
        faithfulness_images=0,
        runtime="openvino",
        parity_images=8,
    )
    pack(config)
    found = archive.read(tmp_path / "a.mar")
    figures = found.card["runtime"]["openvino"]["fp32"]
    assert (figures["images"], figures["agreement"], figures["refused"]) == (8, 1.0, None)
    assert figures["map_cosine_p1"] > 0.9999
    assert found.card["faithfulness"] is None
    assert found.config["runtime"]["methods"] == [found.info().methods[0].name]
    assert "fp32: the same class for 100.0% of 8 images" in capsys.readouterr().out


def test_a_graph_needs_validation_images(tmp_path: Path) -> None:
    config = ArchiveConfig(
        checkpoint=publish(network().net.state_dict(), tmp_path / "checkpoint.pth"),
        classes=name_classes(tmp_path),
        output=tmp_path / "a.mar",
        runtime="openvino",
    )
    with pytest.raises(DataError, match="measured on validation images; name the data by --data_path"):
        pack(config)
    assert not config.output.exists()
    with pytest.raises(OptionInvalid, match="runtime is 'tpu'; choose torch or openvino"):
        dataclasses.replace(config, runtime="tpu")


def test_network_told_by_its_shapes(tmp_path: Path) -> None:
    """Without the script's options; shapes that none of MAE's networks has are named."""
    state = network().net.state_dict()
    torch.save({"model": state}, tmp_path / "weights.pth")
    config = ArchiveConfig(
        checkpoint=tmp_path / "weights.pth", classes=name_classes(tmp_path), output=tmp_path / "a.mar"
    )
    with pytest.raises(
        CheckpointError, match=r"none of vit_base_patch16, .*: width 64, 6 blocks, patches of 16 pixels"
    ):
        pack(config)


@pytest.mark.slow
@pytest.mark.parametrize(("mean_pooling", "known"), [(False, True), (True, False)])
def test_the_published_network(mean_pooling: bool, known: bool, tmp_path: Path) -> None:
    """ViT-B/16 at 224 pixels for 12 classes, as the seven are; with and without the script's options."""
    source = network(TWELVE, model="vit_base_patch16_224", mean_pooling=mean_pooling, size=224)
    path = tmp_path / "checkpoint.pth"
    if known:
        publish(source.net.state_dict(), path, model="vit_base_patch16", input_size=224, nb_classes=12)
    else:
        torch.save({"model": source.net.state_dict()}, path)
    pack(ArchiveConfig(checkpoint=path, classes=name_classes(tmp_path, TWELVE), output=tmp_path / "a.mar"))
    served = Classifier.from_archive(archive.read(tmp_path / "a.mar"))
    assert served.config == source.config
    assert served.config.crop_fraction == 224 / 256
    inputs = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(served(inputs), source(inputs))


def refusal(error: type[Exception], message: str, checkpoint: Path, classes: Path | None) -> None:
    output = checkpoint.parent / "a.mar"
    with pytest.raises(error, match=message):
        pack(ArchiveConfig(checkpoint=checkpoint, classes=classes, output=output))
    assert not output.exists()


def test_class_names_that_do_not_fit(tmp_path: Path) -> None:
    checkpoint = publish(network().net.state_dict(), tmp_path / "checkpoint.pth")
    refusal(DataError, "tells 3 classes apart; .* names 12", checkpoint, name_classes(tmp_path, TWELVE))
    refusal(DataError, "cannot be read", checkpoint, tmp_path / "none.txt")


def test_class_names_are_needed(tmp_path: Path) -> None:
    checkpoint = publish(network().net.state_dict(), tmp_path / "checkpoint.pth")
    refusal(CheckpointError, "needs --classes FILE", checkpoint, None)
    refusal(CheckpointError, r"There is no \S+ \S+none\.pth\.$", tmp_path / "none.pth", None)


def test_our_own_name_their_classes(tmp_path: Path) -> None:
    source = network()
    content = {"classifier": settings_of(source.config), "model": source.net.state_dict()}
    save_checkpoint(tmp_path / "last.pt", "egdd", content)
    refusal(OptionInvalid, "leave --classes out", tmp_path / "last.pt", name_classes(tmp_path))


def test_pretraining_is_no_classifier(tmp_path: Path) -> None:
    state = network().net.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("head.")}
    checkpoint = publish(state | {"mask_token": torch.zeros(1, 1, 8)}, tmp_path / "mae.pth")
    refusal(CheckpointError, r"head\.weight missing\. It comes from pretraining", checkpoint, name_classes(tmp_path))


def test_weights_that_do_not_fit_the_network(tmp_path: Path) -> None:
    state = network().net.state_dict()
    del state["blocks.3.mlp.fc1.bias"]
    checkpoint = publish(state, tmp_path / "odd.pth")
    refusal(CheckpointError, r"lack blocks\.3\.mlp\.fc1\.bias", checkpoint, name_classes(tmp_path))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.exit, ("the checkpoint was run",)


def test_nothing_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    checkpoint = publish(network().net.state_dict(), tmp_path / "bad.pth", model=Hostile())
    refusal(CheckpointError, "nothing of it was run", checkpoint, name_classes(tmp_path))
