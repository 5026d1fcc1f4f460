"""model.json: what the published preparation step says of the model and its training.

It holds the sizes of the three parts of the model ("subcfgs") and how to train it. Every key is used, must have the
value of the model that is built here, or is named as ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import DataError, OptionInvalid
from training.files import read_json
from training.options import check

IMAGE, GRAPH, DECODER = "mp_encoder", "attn_encoder", "decoder"
WIDTHS = (
    f"{IMAGE}.dim_embed",
    f"{GRAPH}.dim_hidden",
    f"{DECODER}.dim_word",
    f"{DECODER}.hidden_size",
    f"{DECODER}.attn_input_size",
    f"{DECODER}.attn_size",
)
"""Sizes that are one size here."""
USED = (
    "trn_batch_size",
    "tst_batch_size",
    "num_epoch",
    "base_lr",
    f"{IMAGE}.dim_fts",
    *(f"{GRAPH}.{key}" for key in ("dim_input", "num_hidden_layers", "max_attn_len")),
    *(f"{DECODER}.{key}" for key in ("num_words", "hidden_size", "max_words_in_sent", "dropout")),
    *(
        f"{DECODER}.{key}"
        for key in ("schedule_sampling", "ss_rate", "ss_max_rate", "ss_increase_rate", "ss_increase_epoch")
    ),
    *(f"{DECODER}.{key}" for key in ("greedy_or_beam", "beam_width")),
)
"""What may differ from run to run."""
IGNORED = (
    "val_per_epoch",
    "save_per_epoch",
    "val_iter",
    "save_iter",
    "monitor_iter",
    "summary_iter",
    "decay_schema",
    "decay_rate",
    *(f"{part}.opt_alg" for part in (IMAGE, GRAPH, DECODER)),
    f"{GRAPH}.num_bases",
    f"{DECODER}.sent_pool_size",
)
"""Each epoch is validated and the last and the best state are kept; these say otherwise, or nothing in the published
program either."""


def model_content(
    *,
    words: int,
    region_size: int = 2048,
    image_size: int = 2048,
    width: int = 512,
    layers: int = 2,
    max_nodes: int = 10,
    max_tokens: int = 25,
    batch_size: int = 128,
    epochs: int = 100,
    lr: float = 2e-4,
) -> dict[str, Any]:
    """What model.json holds; the defaults are the published values.

    Args:
        words: in the vocabulary, BOS, EOS and UNK among them.
        region_size, image_size: numbers of a region's and of an image's features.
    """
    part = {"freeze": False, "lr_mult": 1.0, "opt_alg": "Adam", "weight_decay": 0}
    return {
        "subcfgs": {
            IMAGE: {
                **part,
                "dim_fts": [image_size, width],
                "dim_embed": width,
                "is_embed": True,
                "dropout": 0,
                "norm": False,
                "nonlinear": False,
            },
            GRAPH: {
                **part,
                "dim_input": region_size,
                "dim_hidden": width,
                "num_rels": 6,
                "num_hidden_layers": layers,
                "max_attn_len": max_nodes,
                "self_loop": True,
                "dropout": 0.0,
                "num_node_types": 3,
                "embed_first": True,
                "num_bases": -1,
            },
            DECODER: {
                **part,
                "rnn_type": "lstm",
                "num_words": words,
                "dim_word": width,
                "hidden_size": width,
                "num_layers": 1,
                "hidden2word": False,
                "tie_embed": True,
                "fix_word_embed": False,
                "max_words_in_sent": max_tokens,
                "dropout": 0.5,
                "schedule_sampling": False,
                "ss_rate": 0.0,
                "ss_max_rate": 0.25,
                "ss_increase_rate": 0.05,
                "ss_increase_epoch": 5,
                "greedy_or_beam": False,
                "beam_width": 1,
                "sent_pool_size": 1,
                "memory_same_key_value": True,
                "attn_input_size": width,
                "attn_size": width,
                "attn_type": "mlp",
            },
        },
        "trn_batch_size": batch_size,
        "tst_batch_size": 128,
        "num_epoch": epochs,
        "val_per_epoch": True,
        "save_per_epoch": True,
        "val_iter": -1,
        "save_iter": -1,
        "monitor_iter": 1000,
        "summary_iter": 1000,
        "base_lr": lr,
        "decay_schema": None,
        "decay_boundarys": [],
        "decay_rate": 1,
    }


@dataclass(frozen=True, kw_only=True)
class Model:
    """What model.json says that has an effect."""

    words: int
    region_size: int
    image_size: int
    width: int
    layers: int
    max_nodes: int
    max_tokens: int
    dropout: float
    batch_size: int
    epochs: int
    lr: float
    scheduled_sampling: float
    scheduled_sampling_epochs: float
    test_batch_size: int
    beam_width: int
    """Of the test; 1 is greedy."""
    ignored: tuple[str, ...]
    """Keys without effect here."""


def read_model(path: Path) -> Model:
    """Read model.json; a key that it lacks has the published value, but for those that tell this model from others.

    Raises:
        OptionInvalid: it describes another model than this captioner, or a value is impossible.
        DataError: it cannot be read, or is not laid out as published.
    """
    content = read_prepared(path)
    parts = content.get("subcfgs")
    if not isinstance(parts, dict) or set(parts) != {IMAGE, GRAPH, DECODER}:
        raise OptionInvalid(
            f"{path} describes another model: its subcfgs must be {IMAGE}, {GRAPH} and {DECODER}.", field="model_json"
        )
    if not all(isinstance(part, dict) for part in parts.values()):
        raise DataError(f"{path}: each of the subcfgs must hold keys and values.")
    found, known = _flat(content), _flat(model_content(words=0))
    if missing := [key for key in USED if "." in key and key not in found]:
        raise OptionInvalid(f"{path} describes another model: it has no {missing[0]}.", field="model_json")
    values = {key: found.get(key, value) for key, value in known.items()}
    for key in USED:
        if not _fits(values[key], known[key]):
            raise DataError(f"{path}: {key} is {values[key]!r}; the published step writes such as {known[key]!r}.")
    width = values[f"{DECODER}.hidden_size"]
    for key in WIDTHS:
        if values[key] != width:
            raise OptionInvalid(
                f"{path}: {key} is {values[key]!r}; it must be {width}, {DECODER}.hidden_size.", field="model_json"
            )
    for key, value in known.items():
        if key not in {*USED, *IGNORED, *WIDTHS} and values[key] != value:
            raise OptionInvalid(f"{path}: {key} is {values[key]!r}; this captioner has {value!r}.", field="model_json")
    sizes = values[f"{IMAGE}.dim_fts"]
    if len(sizes) != 2 or sizes[1] != width:
        raise OptionInvalid(
            f"{path}: {IMAGE}.dim_fts is {sizes}; it must be the size of an image's features and {width}.",
            field="model_json",
        )
    decoder = {key.removeprefix(f"{DECODER}."): value for key, value in values.items()}
    for key in ("tst_batch_size", f"{DECODER}.ss_increase_epoch", f"{DECODER}.beam_width"):
        check(f"{path}: {key}", values[key], at_least=1)
    check(f"{path}: {DECODER}.ss_increase_rate", decoder["ss_increase_rate"], above=0)
    sampled = decoder["schedule_sampling"]
    # The published rate climbs in stairs from ss_rate; ours climbs evenly from 0 and is as high at the same epoch.
    stairs = (decoder["ss_max_rate"] - decoder["ss_rate"]) / decoder["ss_increase_rate"]
    return Model(
        words=decoder["num_words"],
        region_size=values[f"{GRAPH}.dim_input"],
        image_size=sizes[0],
        width=width,
        layers=values[f"{GRAPH}.num_hidden_layers"],
        max_nodes=values[f"{GRAPH}.max_attn_len"],
        max_tokens=decoder["max_words_in_sent"],
        dropout=decoder["dropout"],
        batch_size=values["trn_batch_size"],
        epochs=values["num_epoch"],
        lr=values["base_lr"],
        scheduled_sampling=decoder["ss_max_rate"] if sampled else 0.0,
        scheduled_sampling_epochs=max(0.0, stairs * decoder["ss_increase_epoch"]) if sampled else 0.0,
        test_batch_size=values["tst_batch_size"],
        beam_width=decoder["beam_width"] if decoder["greedy_or_beam"] else 1,
        ignored=(*(key for key in IGNORED if key in found), *sorted(set(found) - set(known))),
    )


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """model.json's keys, those of its parts with the part's name before them."""
    parts = {f"{name}.{key}": value for name, part in content["subcfgs"].items() for key, value in part.items()}
    return {key: value for key, value in content.items() if key != "subcfgs"} | parts


def _fits(value: Any, like: Any) -> bool:
    """Whether a value has the type of the published one; a whole number is a float, too."""
    if isinstance(like, list):
        return isinstance(value, list) and all(_fits(item, 0) for item in value)
    if isinstance(like, float) and not isinstance(value, bool):
        return isinstance(value, int | float)
    return type(value) is type(like)


def read_prepared(path: Path) -> dict[str, Any]:
    """The object in a JSON file that `saaa-train ega prepare` writes.

    Raises:
        DataError: there is no such file, or something else is in it.
    """
    return read_json(path, advice="saaa-train ega prepare writes it")
