"""Writes a world to disk in the published formats (layout: this package's docstring)."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import numpy as np
import PIL
from PIL import Image

from saaa.errors import DataError
from training.files import whole_folder
from training.progress import progress
from training.scenes.classes import evidence_of
from training.scenes.config import CONFOUNDED_SPLITS, ScenesConfig, confound_cue
from training.scenes.regions import Region, choose_regions, graph_of
from training.scenes.renderer import evidence_is_exact
from training.scenes.sampler import NO_BIAS, sample_scene
from training.scenes.sheet import contact_sheet

SPLITS = {"train": "trn", "val": "val", "test": "val_sub"}
"""Our splits and their names in the published formats."""
FOLDERS = (*SPLITS, "pool")
"""Ids count over these in turn, so that a pool leaves every other scene as it is."""
SPECIAL_WORDS = ("BOS", "EOS", "UNK")
SMALL_WORLD = 64
"""Below this many scenes starting processes costs more than it saves."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run made.

    Attributes:
        output_dir: the world.
        images: number of pictures.
        regions: number of regions.
        words: size of the vocabulary, BOS, EOS and UNK included.
        digest: SHA-256 over all data files of the world.
        seconds: how long it took.
        reused: whether the world was there already.
    """

    output_dir: Path
    images: int
    regions: int
    words: int
    digest: str
    seconds: float
    reused: bool


def run(config: ScenesConfig) -> Summary:
    """Makes the world that `config` describes, or reuses it where it is already there.

    Raises:
        DataError: the output folder holds something that is not a world, or cannot be written.
    """
    started = perf_counter()
    wanted = _description(config)
    folder = config.output_dir.resolve()
    found = _existing(folder)
    if found is not None and found.get("config") == wanted["config"] and found.get("code") == wanted["code"]:
        counts = {key: found[key] for key in ("images", "regions", "words", "digest")}
        summary = Summary(output_dir=config.output_dir, seconds=perf_counter() - started, reused=True, **counts)
    else:
        with whole_folder(config.output_dir) as aside:
            counts = _write_world(config, aside)
            _dump(aside / "world.json", {**wanted, **counts})
        summary = Summary(output_dir=config.output_dir, seconds=perf_counter() - started, reused=False, **counts)
    verb = "reused" if summary.reused else "made"
    print(
        f"{verb} {summary.images} scenes, {summary.regions} regions, {summary.words} words in {summary.seconds:.1f} s: "
        f"{summary.output_dir} (digest {summary.digest[:12]})"
    )
    return summary


def _existing(folder: Path) -> dict[str, Any] | None:
    """world.json of a world that is there; None for a folder that is missing or empty.

    Raises:
        DataError: for anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / "world.json").read_text())
        if not isinstance(found, dict) or "digest" not in found:
            raise ValueError
    except (OSError, ValueError):
        raise DataError(
            f"{folder} is not empty and not a world made by saaa-train scenes; give another --output_dir",
            field="output_dir",
        ) from None
    return found


def _description(config: ScenesConfig) -> dict[str, Any]:
    """The options that shape the world, and the code that draws it."""
    options = {key: value for key, value in asdict(config).items() if key not in ("output_dir", "workers")}
    options |= {"confound": sorted(config.confound), "classes": list(config.labels())}
    return {"config": options, "code": fingerprint(), "classes": list(config.labels()), "splits": SPLITS}


def fingerprint() -> str:
    """SHA-256 of the code that draws scenes, and of the library it draws with."""
    code = hashlib.sha256(f"pillow {PIL.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def _write_world(config: ScenesConfig, folder: Path) -> dict[str, Any]:
    plans = list(_plans(config))
    for split in dict.fromkeys(split for split, _, _ in plans):
        for label in config.labels():
            (folder / split / label).mkdir(parents=True, exist_ok=True)
    for name in ("masks", "annotations/regionfiles", "annotations/public_split"):
        (folder / name).mkdir(parents=True)
    tasks = [(config, folder, *plan) for plan in plans]
    processes = config.processes()
    if processes == 1 or len(tasks) < SMALL_WORLD:
        records = list(progress(map(_write_scene, tasks), "scenes", total=len(tasks), unit="scene"))
    else:
        # Fresh processes, not forks: the caller may already have threads of its own (torch, gRPC).
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            records = list(
                progress(pool.map(_write_scene, tasks, chunksize=8), "scenes", total=len(tasks), unit="scene")
            )
    words = _write_annotations(folder, records)
    with (folder / "scenes.jsonl").open("w") as lines:
        for record in records:
            lines.write(json.dumps(record["scene"], separators=(",", ":")) + "\n")
    contact_sheet(folder, [record["scene"] for record in records]).save(folder / "contact_sheet.png")
    regions = sum(len(record["regions"]) for record in records)
    return {"images": len(records), "regions": regions, "words": words, "digest": digest_of(folder)}


def _plans(config: ScenesConfig) -> Iterator[tuple[str, str, str]]:
    """(split, image id, class) of every scene; ids count over the whole world."""
    labels = config.labels()
    index = 0
    for split in FOLDERS:
        for k in range(getattr(config, split)):
            yield split, f"{index:06d}", labels[k % len(labels)]
            index += 1


def _write_scene(task: tuple[ScenesConfig, Path, str, str, str]) -> dict[str, Any]:
    """Draws one scene and writes its picture, its mask and its region file; returns what the indexes need."""
    config, folder, split, image_id, label = task
    seed = f"{config.seed}/{image_id}"
    carried = config.cue_of(label, split, Random(f"{seed}/confound"))
    # Held-out scenes without a cue of somebody's are as chance has it; in training every class lacks the others' cues.
    bias = config.bias_for(carried) if carried or split in CONFOUNDED_SPLITS else NO_BIAS
    confound = None
    if carried is not None:
        kind = config.confounds()[carried]
        confound = {"kind": kind, "cue": confound_cue(carried, kind)}
        if config.confound_held_out is not None:
            confound["of"] = carried
    regions: list[Region] = []
    attempt = 0
    while len(regions) < config.regions:
        # A scene whose objects make too few captioned regions, or whose evidence fails the check, is drawn anew.
        scene, rendered = sample_scene(label, f"{seed}/{attempt}", size=config.size, bias=bias)
        rng = Random(f"{seed}/{attempt}/regions")
        regions = choose_regions(scene, rendered, rng, config.regions)
        if len(regions) == config.regions and not evidence_is_exact(scene, rendered):
            regions = []
        attempt += 1
    picture = io.BytesIO()
    Image.fromarray(rendered.image).save(picture, "JPEG", quality=config.quality, subsampling=0)
    (folder / split / label / f"{image_id}.jpg").write_bytes(picture.getvalue())
    Image.fromarray(rendered.labels).save(folder / "masks" / f"{image_id}.png")
    files = {str(int(image_id) * 10 + k + 1): region for k, region in enumerate(regions)}
    _dump(
        folder / "annotations" / "regionfiles" / f"{image_id}.json",
        {region_id: region.to_json() for region_id, region in files.items()},
    )
    graph = graph_of(scene, rendered).to_region()
    return {
        "split": split,
        "image_id": image_id,
        "regions": {region_id: list(region.captions) for region_id, region in files.items()},
        "scene": {
            "id": image_id,
            "split": split,
            "class": label,
            "file": f"{split}/{label}/{image_id}.jpg",
            "size": config.size,
            "objects": graph["objects"],
            "relationships": graph["relationships"],
            "evidence": list(evidence_of(scene)),
            "confound": confound,
        },
    }


def _write_annotations(folder: Path, records: list[dict[str, Any]]) -> int:
    """Splits, captions and the vocabulary (of the training captions); returns the vocabulary's size."""
    annotations = folder / "annotations"
    words: set[str] = set()
    for split, name in SPLITS.items():
        mine = [record for record in records if record["split"] == split]
        pairs = [(record["image_id"], region_id) for record in mine for region_id in record["regions"]]
        np.save(annotations / "public_split" / f"{name}_names.npy", np.array([f"{r['image_id']}.jpg" for r in mine]))
        np.save(annotations / "regionfiles" / f"{name}_names.npy", np.array(pairs))
        captions = {record["image_id"]: record["regions"] for record in mine}
        _dump(annotations / f"cleaned_{name}_region_descriptions.json", captions)
        if split == "train":
            texts = [text for regions in captions.values() for group in regions.values() for text in group]
            words = {word for text in texts for word in text.split()}
    vocabulary = [*SPECIAL_WORDS, *sorted(words)]
    np.save(annotations / "int2word.npy", np.array(vocabulary))
    _dump(annotations / "word2int.json", {word: k for k, word in enumerate(vocabulary)})
    return len(vocabulary)


def digest_of(folder: Path) -> str:
    """SHA-256 over names and bytes of all data files; world.json and the contact sheet are left out."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in ("world.json", "contact_sheet.png"):
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1 if path.name == "world.json" else None) + "\n")
