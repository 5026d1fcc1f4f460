"""What a model says of a pool, against the same model asked image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.images import decode, fit
from saaa.models.classifier import Classifier
from tests.tiny_models import CLASSES as KNOWN
from tests.tiny_models import SIZE
from tests.training.debugging.tiny_set import CLASSES, draw_folders
from training.checkpoint import save_checkpoint
from training.debugging.pool import listed, look, readable
from training.egdd.config import ShardsConfig
from training.egdd.evaluation import settings_of
from training.egdd.shards import write_shards


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return draw_folders(tmp_path / "pool", 5, seed=1)


@pytest.fixture
def model(tiny_models: Path) -> Path:
    return tiny_models / "egdd.mar"


def test_looks_at_every_image_as_it_is_served(pool: Path, model: Path) -> None:
    found = look(model, pool, batch_size=4)
    assert found.listing.classes == KNOWN
    assert len(found.listing) == 15
    classifier = Classifier.from_archive(archive.read(model))
    for i, name in enumerate(found.listing.names):
        pixels, _ = fit(decode((pool / name).read_bytes()), SIZE)
        with torch.no_grad():
            inputs = classifier.preprocess(torch.from_numpy(pixels[None]))
            logits = classifier(inputs)[0].numpy()
            last = classifier.net.get_classifier()
            again = last(torch.from_numpy(found.embeddings[i]))
        np.testing.assert_allclose(found.logits[i], logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.logits[i], again.numpy(), rtol=1e-4, atol=1e-4)
        assert KNOWN[found.labels[i]] == name.split("/")[0]
        assert found.wrong[i] == (logits.argmax() != found.labels[i])
    wrong = found.failures
    assert len(wrong.labels) == found.wrong.sum() > 0
    for label in range(len(KNOWN)):
        np.testing.assert_array_equal(wrong.of(label), found.embeddings[(found.labels == label) & found.wrong])


def test_a_checkpoint_and_shards_say_the_same(pool: Path, model: Path, tmp_path: Path) -> None:
    classifier = Classifier.from_archive(archive.read(model))
    content = {"classifier": settings_of(classifier.config), "model": classifier.net.state_dict()}
    save_checkpoint(tmp_path / "best.pt", "egdd", content)
    write_shards(ShardsConfig(data_path=pool, output_dir=tmp_path / "shards"))
    plain, packed = look(model, pool), look(tmp_path / "best.pt", tmp_path / "shards")
    assert packed.listing.names == plain.listing.names
    np.testing.assert_array_equal(packed.logits, plain.logits)
    assert listed(model, tmp_path / "shards").labels == plain.listing.labels


def test_only_the_classes_asked_for_and_only_what_can_be_read(pool: Path, model: Path) -> None:
    (pool / "den" / "00.png").write_bytes(b"no picture")
    found = look(model, pool, ("den", "attic"))
    assert {found.listing.classes[label] for label in found.labels} == {"den", "attic"}
    assert len(found.listing) == 9
    names = readable(listed(model, pool, ("den", "attic"))).names
    assert names == found.listing.names
    assert len(listed(model, pool)) == 15


def test_what_cannot_be_looked_at_is_told(pool: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="knows no class office"):
        look(model, pool, ("office", "den"))
    with pytest.raises(DataError, match="no image of cellar"):
        look(model, pool, ("cellar",))
    with pytest.raises(DataError, match="There is no folder"):
        look(model, tmp_path / "none")
    (pool / "zoo").mkdir()
    with pytest.raises(DataError, match="zoo"):
        look(model, pool)
    with pytest.raises(CheckpointError):
        look(tmp_path / "none.pt", pool)
    assert len(CLASSES) == 3
