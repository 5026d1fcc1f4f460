"""model.json and path.json: the published keys, what is refused, what is named as ignored; `saaa-train ega prepare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saaa.errors import DataError, OptionInvalid, SaaaError
from tests.training.ega.tiny_world import make
from training.ega import PrepareConfig, PublishedConfig, prepare
from training.ega.published_model import Model, model_content, read_model
from training.ega.published_paths import read_paths
from training.features.layout import GLOBAL, REGIONS, write_image

Change = Callable[[dict[str, Any]], object]


def change(part: str | None, **values: Any) -> Change:
    """Sets values in a part of model.json, None is the outermost."""

    def apply(content: dict[str, Any]) -> None:
        (content if part is None else content["subcfgs"][part]).update(values)

    return apply


def read(tmp_path: Path, *changes: Change, words: int = 9) -> Model:
    content = model_content(words=words)
    for apply in changes:
        apply(content)
    (tmp_path / "model.json").write_text(json.dumps(content))
    return read_model(tmp_path / "model.json")


def test_the_published_values(tmp_path: Path) -> None:
    model = read(tmp_path, words=10_000)
    assert (model.words, model.region_size, model.image_size) == (10_000, 2048, 2048)
    assert (model.width, model.layers, model.max_nodes, model.max_tokens, model.dropout) == (512, 2, 10, 25, 0.5)
    assert (model.batch_size, model.test_batch_size, model.epochs, model.lr) == (128, 128, 100, 2e-4)
    assert (model.scheduled_sampling, model.scheduled_sampling_epochs, model.beam_width) == (0, 0, 1)


def test_what_is_honoured(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        change(None, trn_batch_size=32, tst_batch_size=4, num_epoch=3, base_lr=1e-3),
        change("mp_encoder", dim_fts=[96, 64], dim_embed=64),
        change("attn_encoder", dim_input=80, dim_hidden=64, num_hidden_layers=1, max_attn_len=7),
        change("decoder", dim_word=64, hidden_size=64, attn_input_size=64, attn_size=64, max_words_in_sent=12),
        change("decoder", dropout=0.1, greedy_or_beam=True, beam_width=4),
    )
    assert (model.region_size, model.image_size, model.width, model.layers) == (80, 96, 64, 1)
    assert (model.max_nodes, model.max_tokens, model.dropout) == (7, 12, 0.1)
    assert (model.batch_size, model.test_batch_size, model.epochs, model.lr) == (32, 4, 3, 1e-3)
    assert model.beam_width == 4


def test_scheduled_sampling_reaches_its_maximum_at_the_published_epoch(tmp_path: Path) -> None:
    """0.05 more every 5 epochs: 0.25 after 25."""
    model = read(tmp_path, change("decoder", schedule_sampling=True))
    assert model.scheduled_sampling == 0.25
    assert model.scheduled_sampling_epochs == pytest.approx(25)


def other(value: Any) -> Any:
    """A value of the same type that is not `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [4, 512] if value else [1]
    return f"{value}x" if isinstance(value, str) else (value or 0) + 1


@pytest.mark.parametrize("part", [None, "mp_encoder", "attn_encoder", "decoder"])
def test_every_key_is_used_checked_or_named(tmp_path: Path, part: str | None) -> None:
    """A changed value of any key changes the model read, is refused, or the key is in the list of ignored ones."""
    # What makes scheduled sampling and beam search matter.
    on = (change("decoder", schedule_sampling=True), change("decoder", greedy_or_beam=True, beam_width=3))
    plain = read(tmp_path, *on)
    content = model_content(words=9)
    for apply in on:
        apply(content)
    keys = content if part is None else content["subcfgs"][part]
    for key in set(keys) - {"subcfgs"}:
        try:
            found = read(tmp_path, *on, change(part, **{key: other(keys[key])}))
            dealt_with = found != plain or (key if part is None else f"{part}.{key}") in found.ignored
        except SaaaError as error:
            dealt_with = key in error.message
        assert dealt_with, key


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    model = read(tmp_path, change(None, mood=1), change("decoder", tone="low"))
    assert {"mood", "decoder.tone", "monitor_iter", "attn_encoder.num_bases"} <= set(model.ignored)


def test_a_missing_key_has_the_published_value(tmp_path: Path) -> None:
    assert read(tmp_path, lambda content: content.pop("base_lr")).lr == 2e-4


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (change("decoder", hidden2word=True), "hidden2word is True"),
        (change("decoder", dim_word=300), "dim_word is 300"),
        (change("attn_encoder", embed_first=False), "embed_first is False"),
        (change("mp_encoder", dim_fts=[2048]), "dim_fts"),
        (change(None, decay_boundarys=[10]), "decay_boundarys"),
        (lambda c: c["subcfgs"].pop("attn_encoder"), "another model"),
        (lambda c: c["subcfgs"].update(encoder={}), "another model"),
        # ASG2Caption's "node": a plain encoder of nodes.
        (
            lambda c: c["subcfgs"].update(attn_encoder={"dim_fts": [2048], "dim_embed": 512}),
            "no attn_encoder.dim_input",
        ),
    ],
)
def test_another_model_is_refused(tmp_path: Path, apply: Change, says: str) -> None:
    with pytest.raises(OptionInvalid, match=says):
        read(tmp_path, apply)


@pytest.mark.parametrize("value", ["many", True, None, 2.5])
def test_a_value_of_another_type_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match="num_epoch"):
        read(tmp_path, change(None, num_epoch=value))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="saaa-train ega prepare"):
        read_model(tmp_path / "absent.json")
    (tmp_path / "noise.json").write_text("[1")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_model(tmp_path / "noise.json")


def test_other_model_types_and_formats_are_refused() -> None:
    files = {"model_json": Path("m"), "path_json": Path("p")}
    assert PublishedConfig(**files).mtype == "rgcn.flow.memory"
    with pytest.raises(OptionInvalid, match=r"'rgcn' is not known"):
        PublishedConfig(**files, mtype="rgcn")
    with pytest.raises(OptionInvalid, match="outcap_format"):
        PublishedConfig(**files, outcap_format=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with made-up features: 6 numbers a region, 4 an image."""
    folder = make(tmp_path_factory.mktemp("world"), {"trn": 2, "val": 2, "val_sub_opt": 1}, pickled=True)
    (folder / "features" / GLOBAL).mkdir(parents=True)
    for split, count in (("trn", 2), ("val", 2), ("val_sub_opt", 1)):
        np.save(folder / "features" / GLOBAL / f"{split}_ft.npy", np.zeros((count, 4), np.float32))
    boxes = np.zeros((1, 4), np.int32)
    write_image(
        folder / "features" / REGIONS, "000001", boxes, np.zeros((1, 6), np.float32), np.zeros(4, np.float32), (64, 64)
    )
    return folder


def test_prepare_writes_what_the_program_reads(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results"
    prepare(PrepareConfig(data_path=world, output_dir=output, width=16, epochs=3))
    assert capsys.readouterr().out == f"{output}\n"
    model = read_model(output / "model.json")
    assert (model.region_size, model.image_size, model.width, model.epochs) == (6, 4, 16, 3)
    assert model.words == np.load(world / "annotations" / "int2word.npy", allow_pickle=True).size
    content = json.loads((output / "path.json").read_text())
    assert set(content) == {
        "output_dir", "mp_ft_file", "name_file", "word2int_file", "int2word_file", "region_anno_dir", "obj_ft_dir"
    }  # fmt: skip
    assert set(content["name_file"]) == {"trn", "val", "val_sub_opt"}
    paths = read_paths(output / "path.json", ["trn", "val_sub_opt"])
    assert paths.output_dir == output
    assert paths.annotations == world / "annotations"
    assert paths.global_features["trn"] == world / "features" / GLOBAL
    assert paths.region_features["val_sub_opt"] == world / "features" / REGIONS
    assert paths.ignored == ()


def test_prepare_names_what_is_missing(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no features of regions"):
        prepare(PrepareConfig(data_path=world, output_dir=tmp_path, region_features=tmp_path))
    alone = make(tmp_path / "alone", {"trn": 1})
    with pytest.raises(DataError, match="trn and val"):
        prepare(PrepareConfig(data_path=alone, output_dir=tmp_path))


@pytest.mark.parametrize(
    ("apply", "splits", "says"),
    [
        (lambda c: None, ["val_sub"], "has no split 'val_sub'; it has trn, val, val_sub_opt"),
        (lambda c: c.pop("output_dir"), ["trn"], "output_dir must be a path"),
        (lambda c: c.update(mp_ft_file="x"), ["trn"], "mp_ft_file must be the path of each split"),
        (lambda c: c["name_file"].update(trn="elsewhere/trn_names.npy"), ["trn"], "the published layout has it at"),
        (lambda c: c["mp_ft_file"].update(trn="features/trn.npy"), ["trn"], "trn_ft.npy"),
    ],
)
def test_paths_that_do_not_lie_as_published(
    world: Path, tmp_path: Path, apply: Change, splits: list[str], says: str
) -> None:
    prepare(PrepareConfig(data_path=world, output_dir=tmp_path))
    content = json.loads((tmp_path / "path.json").read_text())
    apply(content)
    (tmp_path / "path.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        read_paths(tmp_path / "path.json", splits)
