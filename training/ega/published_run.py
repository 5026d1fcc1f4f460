"""`saaa-train ega model.json path.json`: train or test as the published program does, from its own two files.

<output_dir>/cache/<set>                      what path.json names, packed (`saaa-train pack`); kept while it fits
<output_dir>/best.pt, last.pt, config.yaml    of the training; best.pt is best by CIDEr on val
<output_dir>/pred/<set>/<checkpoint>.json     {"<image_id>_<region_id>": [caption]}
<output_dir>/pred/<set>/scores.csv            a line a test: checkpoint, BLEU-4, METEOR, ROUGE-L, CIDEr, SPICE, x 100
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saaa.errors import DataError, OptionInvalid
from saaa.models.captioner import search
from training.checkpoint import BEST
from training.distributed import torch_device
from training.ega.checkpoints import load_captioner
from training.ega.config import EgaConfig
from training.ega.metrics import score
from training.ega.published_config import PublishedConfig
from training.ega.published_model import Model, read_model, read_prepared
from training.ega.published_paths import Paths, read_paths
from training.ega.train import train
from training.features.layout import GLOBAL, REGIONS, RUN, global_file
from training.files import whole, write_json
from training.options import load_values
from training.pack import PackConfig
from training.pack.job import pack
from training.pack.layout import HEAD
from training.pack.reader import PackedSet
from training.progress import progress

TRAIN, VAL = "trn", "val"
MADE = "made.json"
"""In the cache: from what each split was packed."""
SCORES = ("bleu4", "meteor", "rouge_l", "cider", "spice")
"""The published order."""


def run(config: PublishedConfig) -> None:
    """Train on trn and val, or caption and measure eval_set.

    Raises:
        DataError: a file is missing or malformed, or the features are of other sizes than model.json says.
        OptionInvalid: model.json describes another model, or an option is outside its range.
        CheckpointError: the checkpoint to go on from or to test does not fit.
        TrainingDiverged, Stopped: as `training.ega.train.train`.
    """
    model = read_model(config.model_json)
    splits = (TRAIN, VAL) if config.is_train else (config.eval_set,)
    paths = read_paths(config.path_json, splits)
    if config.max_attn_len is not None:
        model = replace(model, max_nodes=config.max_attn_len)
    if config.is_train:
        ega = training_options(config, model, paths)

        def prepare() -> None:
            _tell_ignored(config, model, paths)
            make_cache(model, paths, splits)

        train(ega, before=prepare)
    else:
        _tell_ignored(config, model, paths)
        make_cache(model, paths, splits)
        test(config, model, paths)


def training_options(config: PublishedConfig, model: Model, paths: Paths) -> EgaConfig:
    """The options of `saaa-train ega` that the published ones amount to."""
    values: dict[str, Any] = {
        "width": model.width,
        "layers": model.layers,
        "max_nodes": model.max_nodes,
        "max_tokens": model.max_tokens,
        "dropout": model.dropout,
        "batch_size": model.batch_size,
        "epochs": model.epochs,
        "lr": model.lr,
        "scheduled_sampling": model.scheduled_sampling,
        "scheduled_sampling_epochs": model.scheduled_sampling_epochs,
        **_backbone(paths),
    }
    if config.options is not None:
        values |= load_values(config.options, EgaConfig)
    return EgaConfig(
        **values
        | {
            "cache": paths.output_dir / "cache",
            "output_dir": paths.output_dir,
            "train_set": TRAIN,
            "val_set": VAL,
            "resume": config.resume_file,
            "num_workers": config.num_workers,
            "device": config.device,
            "threads": config.threads,
        }
    )


def _backbone(paths: Paths) -> dict[str, Any]:
    """The options of the backbone that made the features, as far as `saaa-train features` noted it."""
    root = _features(paths, TRAIN)
    if root is None or not (root / RUN).is_file():
        return {}
    made = read_prepared(root / RUN).get("identity")
    if not isinstance(made, dict):
        raise DataError(f"{root / RUN} is not of saaa-train features; remove it if the features are not, either.")
    names = {"architecture": "model", **{name: name for name in ("grid", "input_size", "resize", "crop_fraction")}}
    values = {option: made[name] for name, option in names.items() if name in made}
    # Its only weights that need no file; others come by `options`. The digest says whether they are those.
    if made.get("architecture") == "tf_efficientnet_lite0":
        values["pretrained"] = "efficientnet_lite0"
    return values | {"levels": tuple(made.get("levels", ()))}


def _features(paths: Paths, split: str) -> Path | None:
    """The folder of MP and SA, when path.json names both in one."""
    images, regions = paths.global_features[split], paths.region_features[split]
    together = images.name == GLOBAL and regions.name == REGIONS and images.parent.resolve() == regions.parent.resolve()
    return images.parent if together else None


def make_cache(model: Model, paths: Paths, splits: Iterable[str]) -> None:
    """Pack those splits that are not packed yet, or from other files.

    Raises:
        DataError: see `training.pack.job.pack`; or the features are of other sizes than model.json says.
    """
    cache = paths.output_dir / "cache"
    made: dict[str, Any] = read_prepared(cache / MADE) if (cache / MADE).is_file() else {}
    for split in splits:
        source = _source(model, paths, split)
        if made.get(split) != source or not (cache / split / HEAD).is_file():
            together = _features(paths, split)
            pack(
                PackConfig(
                    data_path=paths.annotations.parent,
                    annotations=paths.annotations,
                    features=together or paths.annotations.parent,
                    # Features whose folder is given apart are taken for published ones: nobody knows what made them.
                    global_features=None if together else paths.global_features[split],
                    region_features=None if together else paths.region_features[split],
                    output_dir=cache,
                    splits=(split,),
                    max_nodes=model.max_nodes,
                    max_tokens=model.max_tokens,
                )
            )
            made[split] = source
            write_json(cache / MADE, made)
        head = PackedSet(cache / split)
        found = {"region_size": head.head["region_size"], "image_size": head.head["image_size"]}
        for name, size in {**found, "words": len(head.vocabulary)}.items():
            if size != getattr(model, name):
                raise DataError(
                    f"model.json says {name} {getattr(model, name)}, the data of {split} have {size}; saaa-train ega "
                    "prepare writes what fits."
                )


def _source(model: Model, paths: Paths, split: str) -> dict[str, Any]:
    """What a packed split depends on: the limits, and the files by size and time; of folders the time alone tells."""
    notes = paths.annotations
    files = (
        notes / "int2word.npy",
        notes / "public_split" / f"{split}_names.npy",
        notes / "regionfiles" / f"{split}_names.npy",
        notes / f"cleaned_{split}_region_descriptions.json",
        notes / "regionfiles",
        global_file(paths.global_features[split], split),
        paths.region_features[split],
    )
    stats = {str(file): file.stat() for file in files if file.exists()}
    return {
        "max_nodes": model.max_nodes,
        "max_tokens": model.max_tokens,
        **{name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
    }


def test(config: PublishedConfig, model: Model, paths: Paths) -> dict[str, float | None]:
    """Caption eval_set, greedily unless model.json wants beam search; measure the captions unless told not to.

    Returns:
        The figures, see `training.ega.metrics.Scores`; none with no_evaluate.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: it was trained with another vocabulary, or a file cannot be written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    checkpoint = config.resume_file or paths.output_dir / BEST
    captioner, vocabulary, standard = load_captioner(checkpoint)
    device = torch_device(config.device)
    captioner = captioner.to(device)
    data = PackedSet(paths.output_dir / "cache" / config.eval_set)
    if data.vocabulary != vocabulary:
        raise DataError(f"{checkpoint} was trained with another vocabulary than {paths.annotations} has.")
    if len(standard.region_mean) != model.region_size or len(standard.image_mean) != model.image_size:
        raise OptionInvalid(f"{checkpoint} reads features of other sizes than model.json says.", field="resume_file")
    data.standardise(standard.to(device))
    said: list[tuple[str, ...]] = []
    with torch.inference_mode():
        for rows in progress(torch.split(torch.arange(len(data.regions)), model.test_batch_size), "captions"):
            state, guide = captioner.begin(*data.inputs(rows, device))
            best = search(captioner.decoder, state, guide, width=model.beam_width, max_words=captioner.config.max_words)
            said += [vocabulary.decode(ids[0]) for ids in best.tokens.tolist()]
    folder = paths.output_dir / "pred" / config.eval_set
    captions = {f"{r.image_id}_{r.region_id}": [" ".join(w)] for r, w in zip(data.regions, said, strict=True)}
    write_json(folder / f"{checkpoint.stem}.json", captions)
    print(f"{folder / f'{checkpoint.stem}.json'}: {len(captions)} captions")
    if config.no_evaluate:
        return {}
    found = score(said, [region.captions for region in data.regions])
    for name, why in found.missing.items():
        print(f"{name}: {why}")
    shown = ("" if value is None else f"{value:.2f}" for value in map(found.values.get, SCORES))
    line = ",".join([checkpoint.name, *shown])
    print(f"checkpoint,{','.join(SCORES)}\n{line}")
    scores = folder / "scores.csv"
    before = scores.read_text(encoding="utf-8") if scores.is_file() else f"checkpoint,{','.join(SCORES)}\n"
    with whole(scores) as aside:
        aside.write_text(f"{before}{line}\n", encoding="utf-8")
    return found.values


def _tell_ignored(config: PublishedConfig, model: Model, paths: Paths) -> None:
    """Name what has no effect."""
    flags = [f"--{name}" for name in ("selfcritic",) if getattr(config, name)]
    for what, names in ((config.model_json, model.ignored), (config.path_json, paths.ignored), ("options", flags)):
        if names:
            print(f"{what}: without effect here: {', '.join(names)}")
