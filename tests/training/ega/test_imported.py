"""Checkpoints in the shape of the published programs' ones, made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from saaa import archive
from saaa.errors import CheckpointError, OptionInvalid
from saaa.models.captioner import BOS, Captioner, CaptionerConfig, collate
from saaa.models.captioner.encoder import order_table
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.executor import Executor
from saaa.work import Work, WorkBatch, WorkItem
from tests.saaa.models.captioner import naive
from tests.saaa.models.captioner.conftest import GRAPHS
from tests.tiny_models import make_graph
from training.cli import main
from training.ega.config import ArchiveConfig
from training.ega.imported import load_published, published_name

WORDS = ("BOS", "EOS", "UNK", *(f"word{n}" for n in range(12)))
MODEL, CHANNELS, WIDTH = "test_resnet", 96, 8


def published_shapes(d: int, features: int, words: int, layers: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """The published programs' tensors and their shapes."""
    lstm = {"weight_hh": (4 * d, d), "bias_ih": (4 * d,), "bias_hh": (4 * d,)}
    decoder = {
        "embedding.we.weight": (words, d),
        **{f"attn_lstm.{name}": shape for name, shape in {**lstm, "weight_ih": (4 * d, 3 * d)}.items()},
        **{f"lang_lstm.{name}": shape for name, shape in {**lstm, "weight_ih": (4 * d, 2 * d)}.items()},
        "attn.linear_query.weight": (d, d),
        "attn.linear_query.bias": (d,),
        "attn.attn_w.weight": (1, d),
        "attn_linear_context.weight": (d, d),
    }
    for name, sizes in (
        ("address_layer", (2 * d, d, 4)),
        ("sentinal_layer", (d, d, 1)),
        ("memory_update_layer", (2 * d, d, 2 * d)),
    ):
        for place, (before, after) in ((0, sizes[:2]), (2, sizes[1:])):
            decoder |= {f"{name}.{place}.weight": (after, before), f"{name}.{place}.bias": (after,)}
    encoder = {
        "first_embedding.0.weight": (d, features),
        "first_embedding.0.bias": (d,),
        "node_embedding.weight": (3, features),
        "attr_order_embeds": (20, features),
    }
    for layer in range(layers):
        encoder |= {f"layers.{layer}.loop_weight": (d, d), f"layers.{layer}.weight": (6, d, d)}
    image = {"ft_embed.weight": (d, features + d), "ft_embed.bias": (d,)}
    return {"mp_encoder": image, "attn_encoder": encoder, "decoder": decoder}


def make_state(d: int = WIDTH, features: int = CHANNELS, words: int = len(WORDS), layers: int = 2):
    random = torch.Generator().manual_seed(4)
    state = {
        part: {name: 0.3 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
        for part, shapes in published_shapes(d, features, words, layers).items()
    }
    state["attn_encoder"]["attr_order_embeds"] = order_table(20, features)
    return state


def for_the_equations(state) -> dict[str, np.ndarray]:
    """The same weights under the names that the naive implementation reads."""
    image, encoder, decoder = (
        {name: value.double().numpy() for name, value in state[part].items()}
        for part in ("mp_encoder", "attn_encoder", "decoder")
    )
    found = {"encoder.role.roles.weight": encoder["node_embedding.weight"]}
    for part in ("weight", "bias"):
        found[f"encoder.project.{part}"] = encoder[f"first_embedding.0.{part}"]
        found[f"image.project.{part}"] = image[f"ft_embed.{part}"]
        found[f"decoder.query.{part}"] = decoder[f"attn.linear_query.{part}"]
        for place in (0, 2):
            for own, theirs in (("gate", "address"), ("update", "sentinal"), ("write", "memory_update")):
                found[f"decoder.{own}.{place}.{part}"] = decoder[f"{theirs}_layer.{place}.{part}"]
        for kind in ("ih", "hh"):
            found[f"decoder.lstm1.{part}_{kind}"] = decoder[f"attn_lstm.{part}_{kind}"]
            found[f"decoder.lstm2.{part}_{kind}"] = decoder[f"lang_lstm.{part}_{kind}"]
    for layer in (0, 1):
        found[f"encoder.layers.{layer}.own"] = encoder[f"layers.{layer}.loop_weight"]
        found[f"encoder.layers.{layer}.related"] = encoder[f"layers.{layer}.weight"]
    found["decoder.words.weight"] = decoder["embedding.we.weight"]
    found["decoder.key.weight"] = decoder["attn_linear_context.weight"]
    found["decoder.score.weight"] = decoder["attn.attn_w.weight"]
    return found


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    folder = tmp_path / "annotations"
    folder.mkdir()
    np.save(folder / "int2word.npy", np.array(WORDS))
    (folder / "word2int.json").write_text(json.dumps({word: n for n, word in enumerate(WORDS)}))
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("backbone") / "weights.pth"
    torch.save(timm.create_model(MODEL).state_dict(), path)
    return path


def save(state, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_every_parameter_has_its_published_counterpart_and_none_is_left_over() -> None:
    shapes = published_shapes(8, 24, 30, layers=3)
    theirs = {name: shape for part in shapes.values() for name, shape in part.items()}
    del theirs["attr_order_embeds"]
    config = CaptionerConfig(vocabulary_size=30, width=8, region_size=24, global_size=24, layers=3)
    ours = {published_name(name): tuple(value.shape) for name, value in Captioner(config).state_dict().items()}
    assert ours == theirs


@pytest.mark.parametrize("flat", [False, True])
def test_an_imported_captioner_computes_what_the_equations_say(tmp_path: Path, flat: bool) -> None:
    state = make_state()
    content = {f"{part}.{name}": v for part, values in state.items() for name, v in values.items()} if flat else state
    captioner = load_published(save(content, tmp_path / "epoch.7.th"))
    graph = GRAPHS[1]
    random = np.random.default_rng(0)
    regions, image = random.normal(size=(len(graph.types), CHANNELS)), random.normal(size=CHANNELS)
    ids = [BOS, 5, 9, 4]
    with torch.no_grad():
        taught = captioner.teach(
            torch.tensor(regions).float()[None],
            torch.tensor(image).float()[None],
            collate([graph]),
            torch.tensor([[*ids, 1]]),
            torch.tensor([5]),
        )
        logits = captioner.decoder.logits(taught.hidden).numpy()
    wanted, attention = naive.run(for_the_equations(state), regions, image, graph, ids, layers=2)
    np.testing.assert_allclose(logits, wanted, atol=2e-4)
    np.testing.assert_allclose(taught.attention.numpy(), attention, atol=2e-5)


def command(checkpoint: Path, vocabulary: Path, backbone: Path, output: Path) -> list[str]:
    options = {"checkpoint": checkpoint, "vocabulary": vocabulary, "backbone": backbone, "output": output}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["archive", "ega", *words, "--model", MODEL, "--input_size", "64"]


def test_a_published_checkpoint_becomes_a_servable_archive(tmp_path: Path, vocabulary: Path, backbone: Path) -> None:
    checkpoint = save(make_state(), tmp_path / "epoch.7.th")
    output = tmp_path / "ega.mar"
    assert main(command(checkpoint, vocabulary, backbone, output)) == 0
    read = archive.read(output)
    guided = GuidedCaptioner.from_archive(read)
    assert guided.vocabulary.words == WORDS
    assert (guided.features.region_size, guided.features.image_size) == (CHANNELS, CHANNELS)
    expected = torch.load(backbone, weights_only=True)["conv1.0.weight"]
    assert torch.equal(guided.features.backbone.state_dict()["conv1.0.weight"], expected)
    assert "not public" in read.card["features"]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    batch = WorkBatch(
        model="ega", version="1.0", work=Work.CAPTION, pixels=pixels, items=(WorkItem(graph=make_graph(0)),)
    )
    (result,) = Executor.open(output, threads=1).run(batch)
    assert result.error is None
    assert result.captions[0].node_weights.shape[1] == len(make_graph(0))


def test_what_does_not_fit_is_refused(
    tmp_path: Path, vocabulary: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(state, says: str, **changes: Path) -> None:
        paths = {"checkpoint": save(state, tmp_path / "bad.th"), "vocabulary": vocabulary, "backbone": backbone}
        output = tmp_path / "never.mar"
        assert main(command(**{**paths, **changes}, output=output)) == 2
        assert says in capsys.readouterr().err
        assert not output.exists()

    lacks = make_state()
    del lacks["decoder"]["memory_update_layer.2.bias"]
    refused(lacks, "0 tensors named memory_update_layer.2.bias")
    untied = make_state()
    untied["decoder"]["fc.weight"] = torch.zeros(len(WORDS), WIDTH)
    refused(untied, "decoder.fc.weight")
    strange = make_state()
    strange["attn_encoder"]["attr_order_embeds"] += 1
    refused(strange, "attr_order_embeds")
    refused(make_state(words=20), "20 words, int2word.npy")
    refused(make_state(features=100), "no map of test_resnet has as many channels")
    refused({"model": 3}, "first_embedding.0.weight")
    refused(make_state(), "no checkpoint", backbone=tmp_path / "absent.pth")
    refused(make_state(), "absent", vocabulary=tmp_path / "absent")


def test_vocabulary_and_backbone_go_together(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="--backbone"):
        ArchiveConfig(checkpoint=tmp_path, output=tmp_path, vocabulary=tmp_path)
    with pytest.raises(CheckpointError, match="nothing of it was run"):
        load_published(_pickled(tmp_path / "evil.th"))


def _pickled(path: Path) -> Path:
    torch.save({"decoder": Path}, path)
    return path
