"""`saaa-train features`: a timm backbone's features of images and of the boxes in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saaa import images
from saaa.errors import DataError, ImageRejected, OptionInvalid
from saaa.models.features import FeatureExtractor
from saaa.scene_graph import SceneGraph
from training.distributed import World, world
from training.ega.backbone import identity, make_extractor
from training.ega.published import AnnotationFolder, ImageFolder, Skipped, image_file
from training.features.config import FeaturesConfig
from training.features.layout import GLOBAL, REGIONS, RUN, BoxKey, global_file, read_own, write_image
from training.files import whole, write_json
from training.progress import progress

SKIPPED = "skipped.txt"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What there is to describe."""

    splits: Mapping[str, Sequence[str]]
    """The images of each split, in the order of its global features."""
    boxes: Mapping[str, Sequence[BoxKey]]
    """The boxes of each image, sorted; every image of a split is here, sorted, too."""


def make_features(config: FeaturesConfig) -> dict[str, Any]:
    """Make MP/ and SA/, see `training.features.layout`; prints a summary and gives the content of features.json.

    An image that cannot be read is named in skipped.txt: it has no file in SA, and its row in MP is not a number.
    Started again, the job goes on where it was; under torchrun the processes share the work. The features are the
    backbone's own, not standardised.

    Raises:
        DataError: the data are missing or malformed, not one image can be read, or the output cannot be written.
        OptionInvalid: the folder holds the features of another backbone, or the model gives no such maps.
        ArchiveError, CheckpointError: the backbone's weights cannot be used.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with world(config.device) as among:
        skipped = Skipped()
        wanted = find_boxes(config, skipped)
        folder = ImageFolder(config.images or config.data_path, {image_file(image) for image in wanted.boxes})
        extractor = make_extractor(config).to(among.device)
        among.first(lambda: _begin(config, identity(extractor)))
        try:
            found = among.gather(_work(config, extractor, wanted, folder, among))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; the same command goes on from here") from None
        failures = dict(pair for part in found for pair in part)
        for image in wanted.boxes:
            if image in failures:
                skipped.add(f"image {image}", failures[image])
        return among.first(lambda: _finish(config, extractor, wanted, skipped, failures))


def find_boxes(config: FeaturesConfig, skipped: Skipped) -> Wanted:
    """The boxes of all regions of the splits: of objects, and the unions of relationships.

    Raises:
        DataError: a file is missing or malformed, or there is no such split.
    """
    notes = AnnotationFolder(config.annotations or config.data_path / "annotations")
    there = notes.splits()
    if unknown := [split for split in config.splits if split not in there] or ([] if there else ["any split"]):
        raise DataError(f"{notes.folder} has no {unknown[0]}; it has {', '.join(there) or 'none'}.")
    splits = {split: notes.image_ids(split) for split in config.splits or there}
    boxes: dict[str, set[BoxKey]] = {image: set() for listed in splits.values() for image in listed}
    for split in splits:
        for region in notes.regions(split, skipped):
            if region.image_id in boxes:
                boxes[region.image_id] |= graph_boxes(region.graph)
            else:
                skipped.add(f"region {region.region_id} of image {region.image_id}", f"{split} does not list the image")
    return Wanted(splits=splits, boxes={image: sorted(boxes[image]) for image in sorted(boxes)})


def graph_boxes(graph: SceneGraph) -> set[BoxKey]:
    """The boxes of a graph's nodes."""
    by_id = {thing.id: thing.box for thing in graph.objects}
    found = {box.key() for box in by_id.values()}
    return found | {by_id[link.subject_id].union(by_id[link.object_id]).key() for link in graph.relationships}


def _begin(config: FeaturesConfig, wanted: Mapping[str, Any]) -> None:
    """Claim the folder.

    Raises:
        DataError: it holds something else.
        OptionInvalid: it holds another backbone's features.
    """
    run = config.output_dir / RUN
    if not run.exists():
        if config.output_dir.is_dir() and any(config.output_dir.iterdir()):
            raise DataError(f"{config.output_dir} holds something else; give an empty or new folder with --output_dir.")
    else:
        try:
            known = json.loads(run.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{run} is not of a run of this job; give another --output_dir.") from error
        if known != wanted:
            if not config.overwrite:
                differs = next((name for name in wanted if known.get(name) != wanted[name]), "backbone")
                raise OptionInvalid(
                    f"{config.output_dir} holds features of another backbone (another {differs}). Give the same "
                    "options to go on, another --output_dir, or --overwrite.",
                    field="output_dir",
                )
            for old in (config.output_dir / REGIONS).glob("*.hdf5"):
                old.unlink()
    write_json(run, {"job": "features", "complete": False, "identity": dict(wanted)})


def _work(
    config: FeaturesConfig, extractor: FeatureExtractor, wanted: Wanted, folder: ImageFolder, among: World
) -> list[tuple[str, str]]:
    """Do this process's share; give the images that cannot be read, with the reason.

    Batches are of the same images however often the job is started and whoever does them, so that the features are.
    """
    names = list(wanted.boxes)
    batches = [names[k : k + config.batch_size] for k in range(0, len(names), config.batch_size)]
    target = config.output_dir / REGIONS
    mine = [batches[k] for k in among.share(len(batches))]
    todo = [batch for batch in mine if not all(_done(target, image, wanted.boxes[image]) for image in batch)]
    if len(todo) < len(mine):
        print(f"goes on: {len(mine) - len(todo)} of {len(mine)} batches are done")
    failures: list[tuple[str, str]] = []
    for batch, loaded in progress(_ahead(todo, folder, extractor, config.workers), "features", total=len(todo)):
        good: list[tuple[str, Loaded]] = []
        for image, found in zip(batch, loaded, strict=True):
            if isinstance(found, str):
                failures.append((image, found))
            else:
                good.append((image, found))
        if good:
            _describe(good, wanted, extractor, target)
    return failures


def _done(target: Path, image: str, boxes: Sequence[BoxKey]) -> bool:
    own = read_own(target, image)
    return own is not None and own[0] == set(boxes)


@dataclass(frozen=True)
class Loaded:
    """An image as the backbone takes it."""

    pixels: NDArray[np.uint8]
    geometry: images.Geometry
    size: tuple[int, int]
    """Width and height of the upright image."""


def _load(image: str, folder: ImageFolder, extractor: FeatureExtractor) -> Loaded | str:
    """One image, or why it cannot be used."""
    path = folder.paths.get(image_file(image))
    if path is None:
        return f"there is no {image_file(image)} below {folder.folder}"
    try:
        pixels = images.decode(path.read_bytes())
    except (OSError, ImageRejected) as error:
        return str(error)
    c = extractor.config
    fitted, geometry = images.fit(pixels, c.input_size, mode=c.resize, crop_fraction=c.crop_fraction)
    return Loaded(fitted, geometry, (pixels.shape[1], pixels.shape[0]))


def _ahead(
    batches: Sequence[Sequence[str]], folder: ImageFolder, extractor: FeatureExtractor, workers: int
) -> Iterator[tuple[Sequence[str], list[Loaded | str]]]:
    """Each batch with its images, the next batch read meanwhile."""
    with ThreadPoolExecutor(workers) as pool:

        def begin(batch: Sequence[str]) -> list[Future[Loaded | str]]:
            return [pool.submit(_load, image, folder, extractor) for image in batch]

        coming = [begin(batch) for batch in batches[:1]]
        for k, batch in enumerate(batches):
            coming += [begin(later) for later in batches[k + 1 : k + 2]]
            yield batch, [future.result() for future in coming.pop(0)]


def _describe(good: Sequence[tuple[str, Loaded]], wanted: Wanted, extractor: FeatureExtractor, target: Path) -> None:
    """Compute one batch and write its files."""
    device = extractor.region_mean.device
    keys = [np.array(wanted.boxes[image], np.int32).reshape(-1, 4) for image, _ in good]
    ends = np.array([0, 0, 1, 1])  # stored boxes end with their last pixel
    boxes = [
        torch.from_numpy(loaded.geometry.to_input(key + ends)).float().to(device)
        for key, (_, loaded) in zip(keys, good, strict=True)
    ]
    pixels = torch.from_numpy(np.stack([loaded.pixels for _, loaded in good])).to(device)
    regions, whole_images = (values.cpu() for values in extractor(pixels, boxes))
    parts = regions.split([len(key) for key in keys])
    for (image, loaded), key, part, one in zip(good, keys, parts, whole_images, strict=True):
        write_image(target, image, key, part.numpy(), one.numpy(), loaded.size)


def _finish(
    config: FeaturesConfig,
    extractor: FeatureExtractor,
    wanted: Wanted,
    skipped: Skipped,
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """Write MP/, skipped.txt and features.json."""
    if len(failures) == len(wanted.boxes):
        image, why = next(iter(failures.items()))
        raise DataError(f"Not one of {len(failures)} images can be read, {image} for instance: {why}.")
    rows: dict[str, NDArray[np.float32]] = {}
    for image in wanted.boxes:
        if image not in failures:
            own = read_own(config.output_dir / REGIONS, image)
            if own is None:
                raise DataError(f"The features of image {image} are gone; start the job again.")
            rows[image] = own[1]
    missing = np.full(extractor.image_size, np.nan, np.float32)
    for split, listed in wanted.splits.items():
        path = global_file(config.output_dir / GLOBAL, split)
        with whole(path) as aside, aside.open("wb") as file:
            np.save(file, np.stack([rows.get(image, missing) for image in listed]))
    with whole(config.output_dir / SKIPPED) as aside:
        aside.write_text("".join(f"{reason}\n" for reason in skipped.reasons), encoding="utf-8")
    report = {
        "job": "features",
        "complete": True,
        "identity": identity(extractor),
        "images": len(rows),
        "boxes": sum(len(wanted.boxes[image]) for image in rows),
        "region_size": extractor.region_size,
        "image_size": extractor.image_size,
        "splits": {split: len(listed) for split, listed in wanted.splits.items()},
        "skipped": len(skipped.reasons),
    }
    write_json(config.output_dir / RUN, report)
    print(
        f"{config.output_dir}: {report['images']} images of {report['image_size']} values, {report['boxes']} boxes of "
        f"{report['region_size']}" + (f"\n{skipped.summary()}" if skipped.reasons else "")
    )
    return report
