"""What a captioner is trained on: published files and images, or a packed cache of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saaa.errors import DataError, OptionInvalid
from saaa.models.captioner import Vocabulary
from saaa.models.features import FeatureExtractor
from saaa.role_graph import RoleGraph
from training.distributed import World
from training.ega.backbone import identity, make_extractor
from training.ega.batches import CaptionSource
from training.ega.config import EgaConfig
from training.ega.dataset import CaptionSet, RegionFeatures, cached
from training.ega.noticed import cut_graphs, noticed, read_text
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.ega.readable import unreadable
from training.ega.relevance import read_ratings, word_weights
from training.ega.standard import Standard
from training.ega.views import Views, make_views
from training.files import whole
from training.pack.layout import HEAD, SKIPPED
from training.pack.reader import PackedSet


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on."""

    extractor: FeatureExtractor | None
    """What made the features; None where nobody knows."""
    standard: Standard
    """What they are standardised by."""
    vocabulary: Vocabulary
    train: CaptionSource
    val: CaptionSource


def load_data(config: EgaConfig, world: World) -> Data:
    """Read what the options name, the same on all processes; tells what was noticed, and writes skipped.txt.

    Raises:
        DataError: the data are missing or malformed, or fewer than one batch; or a cache was made of another backbone.
        OptionInvalid: the cache was packed for other limits, or the model gives no feature maps.
        ArchiveError, CheckpointError: the backbone's weights, or the archive that proposes graphs, cannot be used.
    """
    ratings = None if config.relevance is None else read_ratings(config.relevance)
    skipped = Skipped()
    read = _read_files if config.cache is None else _read_cache
    data = read(config, world, skipped)
    if ratings is not None:
        unused = Skipped()
        data.train.word_weights = word_weights(ratings, data.train, config.max_nodes, unused)
        used = len(ratings) - len(unused.reasons)
        line = f"{used} relevance ratings weigh words of {config.train_set}"
        world.print(f"{line}; {unused.summary()}" if unused.reasons else line)
        skipped.reasons += unused.reasons
        _write_skipped(config, world, skipped)
    return data


def _read_files(config: EgaConfig, world: World, skipped: Skipped) -> Data:
    assert config.data_path is not None
    notes = AnnotationFolder(config.annotations or config.data_path / "annotations")
    vocabulary = notes.vocabulary()
    splits = (config.train_set, config.val_set)
    regions = {split: notes.regions(split, skipped) for split in splits}
    names = {region.file_name for part in regions.values() for region in part}
    folder = ImageFolder(config.images or config.data_path, names)
    regions = {split: folder.keep_found(part, skipped) for split, part in regions.items()}
    _note_skipped(config, world, skipped)
    _check_enough(_captions_of(regions[config.train_set]), config, world)
    faults = world.first(lambda: unreadable(folder.paths, memory=config.output_dir / "features" / "images.json"))
    if faults:
        regions = {split: folder.keep_found(part, skipped, faults=faults) for split, part in regions.items()}
        _note_skipped(config, world, skipped)
        _check_enough(_captions_of(regions[config.train_set]), config, world)
    for split, part in regions.items():
        report = read_text(part, vocabulary, config.max_tokens) | cut_graphs(part, config.max_nodes)
        for line in noticed(report):
            world.print(f"{split}: {line}")

    extractor = make_extractor(config).to(world.device)
    graphs = {split: [region.graph.role_graph(config.max_nodes) for region in part] for split, part in regions.items()}
    shown = dict(regions)
    views = _views(config, world, regions[config.train_set], folder)
    if views is not None:
        shown[config.train_set] = [*regions[config.train_set], *views.regions]
        graphs[config.train_set] += [graph.role_graph(config.max_nodes) for graph in views.graphs]
    raw = {split: _features(config, world, extractor, split, shown[split], graphs[split], folder) for split in splits}
    trained = raw[config.train_set]
    own = trained.nodes[: trained.starts[len(regions[config.train_set])]]
    extractor.standardise_by(own.to(world.device), trained.image.to(world.device))
    standard = Standard.of(extractor)
    sets = {
        split: CaptionSet(
            regions[split],
            graphs[split],
            raw[split],
            vocabulary,
            config.max_tokens,
            aligned=split == config.val_set or config.explanation_weight > 0,
            views=views if split == config.train_set else None,
        )
        for split in splits
    }
    for made in sets.values():
        made.standardise(standard.to(world.device))
    return Data(
        extractor=extractor,
        standard=standard,
        vocabulary=vocabulary,
        train=sets[config.train_set],
        val=sets[config.val_set],
    )


def _views(config: EgaConfig, world: World, regions: Sequence[Region], folder: ImageFolder) -> Views | None:
    """The graphs to learn along beside the true ones; one process proposes them."""
    if not config.jitter and not config.proposed:
        return None

    def make() -> Views:
        return make_views(
            regions,
            folder,
            jitter=config.jitter,
            proposed=config.proposed,
            proposer=config.proposer,
            seed=config.seed,
            cache=config.output_dir / "features" / "proposed.json",
        )

    views = world.first(make)
    if config.proposed:
        have = int((views.proposed >= 0).sum())
        few = have < round(config.proposed * len(regions))
        world.print(
            f"{config.train_set}: {have} of {len(regions)} regions have a proposed graph"
            + (f", fewer than the share of {config.proposed:g} asked for: all are used in every epoch" if few else "")
        )
    return views


def _features(
    config: EgaConfig,
    world: World,
    extractor: FeatureExtractor,
    split: str,
    regions: Sequence[Region],
    graphs: Sequence[RoleGraph],
    folder: ImageFolder,
) -> RegionFeatures:
    """As `cached` below output_dir; one process makes what is not there."""

    def read() -> RegionFeatures:
        return cached(config.output_dir / "features" / split, extractor, regions, graphs, folder)

    if world.size > 1:
        world.first(lambda: bool(read()))
    return read()


def _read_cache(config: EgaConfig, world: World, skipped: Skipped) -> Data:
    assert config.cache is not None
    sets: dict[str, PackedSet] = {}
    for split in (config.train_set, config.val_set):
        folder = config.cache / split
        if not (folder / HEAD).is_file():
            there = sorted(path.parent.name for path in config.cache.glob(f"*/{HEAD}"))
            raise DataError(
                f"{config.cache} has no split {split} that saaa-train pack made; it has {', '.join(there) or 'none'}."
            )
        sets[split] = found = PackedSet(folder)
        for name in ("max_nodes", "max_tokens"):
            if found.head[name] != getattr(config, name):
                raise OptionInvalid(
                    f"{folder} was packed with --{name} {found.head[name]}; give the same, or pack it anew.", field=name
                )
        if (folder / SKIPPED).is_file():
            skipped.reasons += (folder / SKIPPED).read_text(encoding="utf-8").splitlines()
        for line in noticed(found.head):
            world.print(f"{split}: {line}")
    train, val = sets[config.train_set], sets[config.val_set]
    for name in ("region_size", "image_size", "features"):
        if train.head[name] != val.head[name]:
            raise DataError(
                f"{train.folder} and {val.folder} hold other features ({name}); pack both from one run of "
                "saaa-train features."
            )
    if train.vocabulary != val.vocabulary:
        raise DataError(f"{train.folder} and {val.folder} have other vocabularies; pack both from one.")
    _note_skipped(config, world, skipped)
    _check_enough(torch.bincount(train.region_of), config, world)
    standard = train.standard()
    extractor = _maker(config, train)
    if extractor is None:
        world.print(
            f"{train.folder}: nobody knows what made the features; `saaa-train archive ega` will need --backbone"
        )
    else:
        extractor.to(world.device)
        standard.give(extractor)
    for found in sets.values():
        found.standardise(standard.to(world.device))
    return Data(extractor=extractor, standard=standard, vocabulary=train.vocabulary, train=train, val=val)


def _maker(config: EgaConfig, packed: PackedSet) -> FeatureExtractor | None:
    """What made the features of a cache, built from the options.

    Raises:
        DataError: the options give another extractor.
    """
    made: Mapping[str, Any] | None = packed.head["features"]
    if made is None:
        return None
    extractor = make_extractor(config)
    given = identity(extractor)
    differs = [name for name in given if made.get(name) != given[name]]
    if differs:
        # Other options give other weights, too.
        shown = [f"{name} {made.get(name)} (here {given[name]})" for name in differs if name != "weights"]
        raise DataError(
            f"{packed.folder}: its features were made with {', '.join(shown) or 'other weights'}; give the backbone's "
            "options of saaa-train features."
        )
    return extractor


def _note_skipped(config: EgaConfig, world: World, skipped: Skipped) -> None:
    _write_skipped(config, world, skipped)
    if skipped.reasons:
        world.print(f"{skipped.summary()}; all in {config.output_dir / SKIPPED}")


def _write_skipped(config: EgaConfig, world: World, skipped: Skipped) -> None:
    def write() -> None:
        with whole(config.output_dir / SKIPPED) as aside:
            aside.write_text("".join(f"{line}\n" for line in skipped.reasons), encoding="utf-8")

    world.first(write)


def _captions_of(regions: Sequence[Region]) -> Tensor:
    """How many captions each has, int64 (regions,)."""
    return torch.tensor([len(region.captions) for region in regions])


def epoch_size(captions: Tensor, per_region: int | None) -> int:
    """How many captions an epoch has, of how many each region has, (regions,)."""
    return int(captions.sum() if per_region is None else captions.clamp(max=per_region).sum())


def _check_enough(captions: Tensor, config: EgaConfig, world: World) -> None:
    """Refuse fewer captions (given for each region) than one batch of all processes."""
    count = epoch_size(captions, config.captions_per_region)
    if count >= config.batch_size * world.size:
        return
    fits = count // world.size
    raise DataError(
        f"{config.train_set} has {count} captions an epoch, less than the {config.batch_size} x {world.size} of one "
        "batch; " + (f"lower --batch_size to {fits}." if fits else "add regions, or use fewer processes.")
    )
