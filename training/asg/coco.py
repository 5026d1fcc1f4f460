"""`saaa-train asg coco`: region files of COCO's captions, in the published formats.

    annotations/regionfiles/<image_id>.json                  one region a caption: {caption's id: {objects, ...}}
    annotations/regionfiles/<set>_names.npy, public_split/, cleaned_<set>_region_descriptions.json, int2word.npy,
    word2int.json                                            see `training.ega.published`
    asg.json                                                 the options, counts, and what has no box

An image's id is its file name without the ending.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from saaa.errors import DataError
from saaa.models.captioner.vocabulary import Vocabulary
from saaa.scene_graph import SceneGraph
from training.asg.config import AsgCocoConfig
from training.asg.factual import measure, read_rows, table
from training.asg.grounding import Instance, Lost, ground, whole_box
from training.asg.lemmas import words
from training.asg.phrases import parse
from training.files import whole_folder

REPORT = "asg.json"
NAMED = 30
"""The most frequent names without a box that the report lists."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with what people say of it."""

    id: str
    captions: Mapping[str, str]
    """The caption's id to its text."""
    instances: Sequence[Instance]


def run(config: AsgCocoConfig) -> dict[str, Any]:
    """Make the region files; print a summary and give the content of asg.json.

    Raises:
        DataError: a file is missing or not COCO's, not one caption could be grounded, or the output folder holds
            something else or cannot be written.
    """
    _check_output(config.output_dir)
    report = None if config.phrases is None else measure(read_rows(config.phrases))
    pictures, left_out = read_coco(config.captions, config.instances)
    lost = Lost()
    graphs = {
        picture.id: {
            key: (caption, graph)
            for key, caption in picture.captions.items()
            if (graph := ground(parse(caption), picture.instances, lost)) is not None
        }
        for picture in pictures
    }
    if not any(graphs.values()):
        raise DataError(f"No caption of {config.captions} names a thing that {config.instances} has a box of.")
    captions = sum(len(picture.captions) for picture in pictures)
    ids = [picture.id for picture in pictures]
    splits = _splits(ids, config) if config.splits is None else _given_splits(ids, config.splits, left_out)
    counts = _counts(graphs, captions, lost) | {"left_out": left_out}
    counts["splits"] = {name: sum(len(graphs[image]) for image in images) for name, images in splits.items()}
    options = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
    found = {"job": "asg coco", "options": options, **counts, "parser": report}
    _write(config, graphs, splits, found)
    print(_summary(found))
    if report is not None:
        print(table(report))
    return found


def read_coco(captions: Path, instances: Path) -> tuple[list[Picture], list[str]]:
    """The images in the order of their names, and what was left out.

    Raises:
        DataError: a file is missing or not as COCO writes it.
    """
    said, boxed = _json(captions), _json(instances)
    left_out: list[str] = []
    try:
        categories = {c["id"]: str(c["name"]) for c in boxed["categories"]}
        images = {i["id"]: i for i in said["images"]}
        texts: dict[Any, dict[str, str]] = {}
        for note in said["annotations"]:
            texts.setdefault(note["image_id"], {})[str(note["id"])] = str(note["caption"])
        things: dict[Any, list[Instance]] = {}
        for note in boxed["annotations"]:
            if (image := images.get(note["image_id"])) is None:
                left_out.append(f"instance {note['id']}: {captions.name} has no image {note['image_id']}")
                continue
            box = whole_box(note["bbox"], image["width"], image["height"])
            if box is None:
                left_out.append(f"instance {note['id']}: its box lies outside the image")
                continue
            crowd = bool(note.get("iscrowd", 0))
            things.setdefault(image["id"], []).append(
                Instance(category=categories[note["category_id"]], box=box, crowd=crowd)
            )
        pictures = [
            Picture(id=Path(i["file_name"]).stem, captions=texts.get(key, {}), instances=things.get(key, []))
            for key, i in sorted(images.items(), key=lambda pair: str(pair[1]["file_name"]))
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{captions} and {instances} are not as COCO writes them: {error!r}.") from error
    left_out += [f"image {p.id}: it has no caption" for p in pictures if not p.captions]
    return [p for p in pictures if p.captions], left_out


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object.")
    return content


def _splits(images: Sequence[str], config: AsgCocoConfig) -> dict[str, list[str]]:
    """Split names to images; an image is in one split of a fold only.

    Raises:
        DataError: there are fewer images than folds, or splits.
    """
    order = list(images)
    Random(config.seed).shuffle(order)
    if config.folds:
        if len(order) < config.folds:
            raise DataError(f"There are {len(order)} images, fewer than {config.folds} folds; lower --folds.")
        splits: dict[str, list[str]] = {}
        for fold in range(config.folds):
            held = set(order[fold :: config.folds])
            splits[f"trn_{fold + 1}"] = [image for image in images if image not in held]
            splits[f"val_{fold + 1}"] = [image for image in images if image in held]
        return splits
    sizes = {"val": config.val_share, "val_sub": config.val_sub_share}
    splits = {}
    first = 0
    for name, share in sizes.items():
        count = max(round(share * len(order)), 1) if share else 0
        splits[name] = sorted(order[first : first + count])
        first += count
    splits["trn"] = sorted(order[first:])
    if not splits["trn"]:
        raise DataError(f"{len(order)} images are too few for the splits; lower --val_share and --val_sub_share.")
    return {name: members for name, members in splits.items() if members}


def _given_splits(images: Sequence[str], path: Path, left_out: list[str]) -> dict[str, list[str]]:
    """The splits of a file; images that are not there are named in `left_out`.

    Raises:
        DataError: it is not as `AsgCocoConfig.splits` says, has no split to train on, or a split has no image.
    """
    splits: dict[str, list[str]] = {}
    for name, members in _json(path).items():
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise DataError(f"{path}: {name} must be a list of image ids or file names.")
        wanted = {Path(member).stem for member in members}
        splits[name] = [image for image in images if image in wanted]
        absent = sorted(wanted - set(images))
        left_out += [f"split {name}: there is no image {image} with captions" for image in absent]
        if not splits[name]:
            raise DataError(f"{path}: not one image of {name} has captions here. {', '.join(absent[:1])}".strip())
    if not any(name.startswith("trn") for name in splits):
        raise DataError(f"{path} must have a split trn; it has {', '.join(splits) or 'none'}.")
    return splits


Graphs = Mapping[str, Mapping[str, tuple[str, SceneGraph]]]


def _counts(graphs: Graphs, captions: int, lost: Lost) -> dict[str, Any]:
    made = [graph for regions in graphs.values() for _, graph in regions.values()]
    return {
        "images": len(graphs),
        "captions": captions,
        "regions": len(made),
        "objects": sum(len(g.objects) for g in made),
        "attributes": sum(len(o.attributes) for g in made for o in g.objects),
        "relationships": sum(len(g.relationships) for g in made),
        "without_box": {
            "captions": captions - len(made),
            "no_category": lost.unboxed.total(),
            "no_instance": lost.absent.total(),
            "relationships": lost.relationships,
            "most_frequent": {
                "no_category": dict(lost.unboxed.most_common(NAMED)),
                "no_instance": dict(lost.absent.most_common(NAMED)),
            },
        },
    }


def _check_output(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / REPORT).is_file())):
        raise DataError(f"{folder} holds something else; give an empty or new folder with --output_dir.")


def _write(config: AsgCocoConfig, graphs: Graphs, splits: Mapping[str, Sequence[str]], report: Any) -> None:
    """Write everything aside, then put it in place."""
    with whole_folder(config.output_dir) as aside:
        notes = aside / "annotations"
        (notes / "regionfiles").mkdir(parents=True)
        (notes / "public_split").mkdir()
        for image, regions in graphs.items():
            content = {key: graph.to_region(words(caption)) for key, (caption, graph) in regions.items()}
            _dump(notes / "regionfiles" / f"{image}.json", content)
        for name, images in splits.items():
            pairs = [(image, key) for image in images for key in graphs[image]]
            np.save(notes / "regionfiles" / f"{name}_names.npy", np.array(pairs, np.str_).reshape(-1, 2))
            np.save(notes / "public_split" / f"{name}_names.npy", np.array([f"{image}.jpg" for image in images]))
            said = {image: {key: [words(c)] for key, (c, _) in graphs[image].items()} for image in images}
            _dump(notes / f"cleaned_{name}_region_descriptions.json", said)
        vocabulary = _vocabulary(graphs, splits, config.min_count)
        np.save(notes / "int2word.npy", np.array(vocabulary.words))
        _dump(notes / "word2int.json", vocabulary.ids)
        _dump(aside / REPORT, report)


def _vocabulary(graphs: Graphs, splits: Mapping[str, Sequence[str]], min_count: int) -> Vocabulary:
    """The words of the training captions."""
    training = dict.fromkeys(image for name, images in splits.items() if name.startswith("trn") for image in images)
    used = Counter(w for image in training for caption, _ in graphs[image].values() for w in words(caption).split())
    return Vocabulary.of([word for word, count in used.items() if count >= min_count])


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _summary(found: Mapping[str, Any]) -> str:
    lost = found["without_box"]
    most = ", ".join(f"{name} ({count})" for name, count in list(lost["most_frequent"]["no_category"].items())[:5])
    return (
        f"{found['regions']} regions of {found['captions']} captions of {found['images']} images: "
        f"{found['objects']} objects, {found['attributes']} attributes, {found['relationships']} relationships\n"
        f"no box: {lost['captions']} captions, {lost['no_category']} names of no category ({most}), "
        f"{lost['no_instance']} names without an instance in the image, {lost['relationships']} relationships"
        + (f"\nleft out {len(found['left_out'])}: {found['left_out'][0]}" if found["left_out"] else "")
    )
