"""Initial weights: what is taken, what is new, what is refused, and that nothing in a file is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from saaa import archive
from saaa.errors import ArchiveError, CheckpointError
from saaa.models.classifier import Classifier, ClassifierConfig
from tests.training.egdd.plain_vit import features, pretraining, small
from training.checkpoint import save_checkpoint
from training.egdd.evaluation import settings_of
from training.egdd.weights import Loaded, load_initial

HEAD = ("head.bias", "head.weight")
FOUR = ("bath", "den", "hall", "shed")


def published(state: dict[str, Any], path: Path) -> Path:
    """As MAE's scripts save: the options, a Namespace, beside the weights."""
    args = argparse.Namespace(model="mae_vit_base_patch16", input_size=224, device="cuda", blr=1e-3, resume="")
    torch.save(
        {"model": state, "optimizer": {"state": {}}, "epoch": 799, "scaler": {"scale": 65536.0}, "args": args}, path
    )
    return path


def taken(classifier: Classifier, state: dict[str, Tensor]) -> set[str]:
    """The keys whose weights the network now has."""
    own = classifier.net.state_dict()
    return {key for key in own if key in state and torch.equal(own[key], state[key])}


def network(classifier: Classifier) -> Any:
    return classifier.net


def test_pretraining_to_class_token(tmp_path: Path) -> None:
    """All of the encoder, the final norm too, is there: what the head sees is what the file's encoder gives."""
    state, classifier = pretraining(), small()
    loaded = load_initial(classifier, published(state, tmp_path / "mae.pth"))
    assert loaded.missing == HEAD
    assert loaded.unexpected == tuple(sorted(k for k in state if k.startswith(("decoder_", "mask_token"))))
    assert loaded.resampled is None
    assert loaded.taken == len(classifier.net.state_dict()) - 2
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    net = network(classifier).double()
    with torch.inference_mode():
        seen = net.forward_head(net.forward_features(images.double()), pre_logits=True)
    assert torch.allclose(seen, features(state, images, mean_pooling=False), atol=1e-9)
    assert 0 < net.head.weight.abs().max() < 1e-4
    assert not net.head.bias.any()
    assert "new: head (2); left out: decoder_blocks (12)" in str(loaded)


def test_pretraining_to_mean_pooling(tmp_path: Path) -> None:
    """As MAE asserts: exactly the head and fc_norm are new, and the encoder's own norm is left out."""
    state, classifier = pretraining(), small(mean_pooling=True)
    fresh = torch.tensor([5.0])
    network(classifier).fc_norm.weight.data.fill_(5.0)
    loaded = load_initial(classifier, published(state, tmp_path / "mae.pth"))
    assert loaded.missing == ("fc_norm.bias", "fc_norm.weight", *HEAD)
    assert {"norm.weight", "norm.bias"} <= set(loaded.unexpected)
    assert torch.equal(network(classifier).fc_norm.weight.unique(), fresh), "what the network began with"


@pytest.mark.parametrize("mean_pooling", [False, True])
def test_fine_tuned_weights_come_whole(mean_pooling: bool, tmp_path: Path) -> None:
    source = small(mean_pooling=mean_pooling)
    classifier = Classifier(source.config)
    loaded = load_initial(classifier, published(source.net.state_dict(), tmp_path / "tuned.pth"), whole=True)
    assert loaded == Loaded(tmp_path / "tuned.pth", len(source.net.state_dict()), (), (), None)
    assert taken(classifier, source.net.state_dict()) == classifier.net.state_dict().keys()


def test_from_mean_pooling_to_class_token(tmp_path: Path) -> None:
    source, classifier = small(mean_pooling=True), small()
    path = published(source.net.state_dict(), tmp_path / "tuned.pth")
    loaded = load_initial(classifier, path)
    assert loaded.missing == ("norm.bias", "norm.weight")
    assert loaded.unexpected == ("fc_norm.bias", "fc_norm.weight")
    with pytest.raises(CheckpointError, match=r"lack norm\.bias"):
        load_initial(classifier, path, whole=True)


def test_head_of_another_count(tmp_path: Path) -> None:
    source, classifier = small(classes=FOUR), small()
    path = published(source.net.state_dict(), tmp_path / "tuned.pth")
    loaded = load_initial(classifier, path)
    assert loaded.missing == loaded.unexpected == HEAD
    assert 0 < network(classifier).head.weight.abs().max() < 1e-4
    with pytest.raises(CheckpointError, match="no head for the 3 classes bath, den, hall"):
        load_initial(classifier, path, whole=True)


def write_ours(source: Classifier, folder: Path) -> Path:
    content = {"classifier": settings_of(source.config), "model": source.net.state_dict(), "epoch": 1}
    save_checkpoint(folder / "last.pt", "egdd", content)
    return folder / "last.pt"


def write_archive(source: Classifier, folder: Path) -> Path:
    archive.write(folder / "rooms.mar", source.to_archive("rooms", "1.0", {}))
    return folder / "rooms.mar"


@pytest.mark.parametrize("write", [write_ours, write_archive])
def test_our_own(write: Any, tmp_path: Path) -> None:
    """They name their classes: with the same ones in the same order the head is taken, else it is new."""
    source = small()
    path = write(source, tmp_path)
    again = Classifier(source.config)
    assert load_initial(again, path, whole=True).missing == ()
    assert taken(again, source.net.state_dict()) == source.net.state_dict().keys()
    for classes in (("bath", "den", "shed"), ("den", "bath", "hall")):
        other = small(classes=classes)
        assert load_initial(other, path).missing == HEAD
        assert 0 < network(other).head.weight.abs().max() < 1e-4
        with pytest.raises(CheckpointError, match="it is for bath, den, hall"):
            load_initial(other, path, whole=True)


def test_ways_that_timm_saves(tmp_path: Path) -> None:
    """Bare, with DDP's prefix, with a moving average (which is taken), as safetensors; a network that is no ViT."""
    torch.manual_seed(0)
    config = ClassifierConfig(architecture="test_efficientnet", classes=FOUR, input_size=32)
    source = Classifier(config).net.state_dict()
    zeros = {key: torch.zeros_like(value) for key, value in source.items()}
    torch.save(source, tmp_path / "bare.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in source.items()}}, tmp_path / "ddp.pth")
    torch.save({"state_dict": zeros, "state_dict_ema": source, "arch": "test_efficientnet"}, tmp_path / "ema.pth.tar")
    save_file(source, tmp_path / "plain.safetensors")
    for name in ("bare.pth", "ddp.pth", "ema.pth.tar", "plain.safetensors"):
        classifier = Classifier(config)
        assert load_initial(classifier, tmp_path / name).missing == ()
        assert taken(classifier, source) == source.keys(), name


def cubic(grid: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.75, pixel centres at halves, edges repeated: torch's bicubic."""
    side = len(grid)
    matrix = np.zeros((size, side))
    for row in range(size):
        at = (row + 0.5) * side / size - 0.5
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d = abs(at - tap)
            weight = 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, min(max(tap, 0), side - 1)] += weight
    return np.einsum("ai,bj,ijc->abc", matrix, matrix, grid)


@pytest.mark.parametrize("size", [32, 96])
def test_position_embedding_of_another_grid(size: int, tmp_path: Path) -> None:
    """Smaller and larger than the file's 4 x 4; the class token's stays."""
    state, classifier = pretraining(size=64), small(size=size)
    loaded = load_initial(classifier, published(state, tmp_path / "mae.pth"))
    assert loaded.resampled == (4, size // 16)
    found = network(classifier).pos_embed.detach().double().numpy()[0]
    given = state["pos_embed"].double().numpy()[0]
    assert np.array_equal(found[0], given[0])
    expected = cubic(given[1:].reshape(4, 4, -1), size // 16).reshape((size // 16) ** 2, -1)
    assert np.allclose(found[1:], expected, atol=1e-5)
    assert "resampled from 4 to" in str(loaded)


def test_gaps_that_nothing_explains(tmp_path: Path) -> None:
    state = pretraining()
    for key in ("blocks.1.attn.proj.weight", "patch_embed.proj.bias"):
        del state[key]
    state["blocks.2.norm1.weight"] = torch.zeros(32)
    net = small()
    before = {key: value.clone() for key, value in net.net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_initial(net, published(state, tmp_path / "mae.pth"))
    assert "lack blocks.1.attn.proj.weight, patch_embed.proj.bias" in caught.value.message
    assert "hold blocks.2.norm1.weight besides" in caught.value.message
    assert taken(net, before) == before.keys(), "the network is as it was"


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    state = pretraining()
    state["blocks.0.mlp.fc1.weight"] = torch.zeros(96, 32)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.mlp\.fc1\.weight \(96, 32\) for \(128, 32\)"):
        load_initial(small(), published(state, tmp_path / "mae.pth"))


def test_position_embedding_that_is_no_square(tmp_path: Path) -> None:
    state = pretraining()
    state["pos_embed"] = torch.zeros(1, 13, 32)
    with pytest.raises(CheckpointError, match=r"pos_embed \(1, 13, 32\) for \(1, 17, 32\)"):
        load_initial(small(), published(state, tmp_path / "mae.pth"))


RAN: list[str] = []


def note(text: str) -> str:
    """What a hostile file would have run."""
    RAN.append(text)
    return text


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return note, ("run",)


class Harmless:
    """Not hostile, and not allowed either."""


@pytest.mark.parametrize(
    ("guest", "named"),
    [(Hostile(), r"note"), (Harmless(), r"Harmless"), (argparse.ArgumentTypeError(), r"argparse\.ArgumentTypeError")],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_file_is_run(guest: object, named: str, zipped: bool, tmp_path: Path) -> None:
    """Neither in the present format nor in the old one, nor hidden inside the Namespace that is allowed."""
    RAN.clear()
    for content in (
        {"model": pretraining(), "args": guest},
        {"model": pretraining(), "args": argparse.Namespace(model="vit_base_patch16", extra=guest)},
    ):
        torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=rf"holds \S*{named}, which is neither .* nothing of it was run"):
            load_initial(small(), tmp_path / "bad.pth")
    assert RAN == []
    assert argparse.Namespace not in torch.serialization.get_safe_globals(), "allowed while reading only"


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_no_such_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{name}"):
        load_initial(small(), tmp_path / name)
    with pytest.raises(ArchiveError, match="no such archive"):
        load_initial(small(), tmp_path / "none.mar")


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_no_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("weights, honestly\n" * 9)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_initial(small(), tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"epoch": 3}, [1, 2], {"model": {"a": 1}}])
def test_no_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_initial(small(), tmp_path / "odd.pth")


def test_an_archive_of_a_captioner(tiny_models: Path) -> None:
    with pytest.raises(CheckpointError, match="kind ega"):
        load_initial(small(), tiny_models / "ega.mar")
