"""Annotation tasks of a run of `saaa-train attribute`.

tasks.json                  task 1 (model attribution) as Scale's, one task a highlighted picture
label_studio/attribution.json, .xml    the same for Label Studio, and its labeling configuration
label_studio/rationale.json, .xml      task 2 (human rationale): one plain picture an image
pictures/                   p1_<image>__caption_<word>_attr_result.jpg (or __class_<number>), photo_<image>.jpg
skipped.txt                 what made no task, and why; absent when nothing did
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from PIL import Image

from saaa.annotations import AnswerRejected, Unit
from saaa.annotations.content import ARTICLES, clean
from saaa.annotations.ratings import check_image
from saaa.client.attributions import Region
from saaa.errors import DataError, ImageRejected
from saaa.images import decode
from training.annotation.config import ExportConfig
from training.annotation.tasks import ATTRIBUTION_LABELS, RATIONALE_LABELS, scale_task, studio_task
from training.attribute.gallery import choose, overlay
from training.attribute.store import INDEX, JOB, RUN
from training.ega.published import Skipped
from training.files import whole
from training.progress import progress

TASKS, STUDIO, PICTURES, SKIPPED = "tasks.json", "label_studio", "pictures", "skipped.txt"
UNASKED = ARTICLES | {"and", "is", "are", "of", "there", "it"}
"""Words of a caption that show nothing: no task is made of them."""
JPEG_QUALITY = 90
_LONGEST_NAME = 120


def export_tasks(config: ExportConfig) -> dict[str, Any]:
    """Make the tasks; print a summary.

    The same run gives the same tasks, with the same ids.

    Returns:
        Counts: `images`, `attribution`, `rationale`, `skipped`.

    Raises:
        DataError: the run is not there or not finished, its images are gone, or `out` is not empty, or not writable.
    """
    run, records = open_run(config.run)
    data = config.data or Path(run["options"]["data"])
    if not data.is_dir():
        raise DataError(f"There is no folder {data}; name the images of {config.run} with --data.")
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise DataError(f"{config.out} is not an empty folder; give another --out.")
    sound = [record for record in records if record["error"] is None]
    chosen = choose(sound, config.order, config.limit or len(sound))
    maker = _Maker(config, data, run["model"]["digest"])
    try:
        (config.out / PICTURES).mkdir(parents=True, exist_ok=True)
        with ExitStack() as shards:
            for record in progress(chosen, "annotate export"):
                maker.add(record, shards)
    except OSError as error:
        raise DataError(f"{config.out} cannot be written: {error.strerror or error}") from error
    for record in records:
        if record["error"] is not None:
            maker.skipped.add(record["file"], record["error"]["message"])
    return _finish(config, maker, len(chosen))


def open_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A finished run of `saaa-train attribute`: run.json, and the lines of its index.

    Raises:
        DataError: it is none, or not finished.
    """
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if run["job"] != JOB:
            raise KeyError("job")
        if run["complete"]:
            lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
            return run, [json.loads(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is not a run of `saaa-train attribute`: {error}") from error
    raise DataError(f"The run in {folder} is not finished; start the same command again to go on with it.")


def image_id(record: dict[str, Any]) -> str:
    """How ratings name a record's image: its published id where the data have regions, else its path."""
    file = str(record["file"])
    return file if record["region"] is None else file.rsplit("/", 1)[-1].removesuffix(".jpg")


class _Maker:
    """Gathers the tasks of one record after the other."""

    def __init__(self, config: ExportConfig, data: Path, digest: str) -> None:
        self._config, self._data, self._digest = config, data, digest
        self._names: set[str] = set()
        self._shards: dict[str, Any] = {}
        self.scale: list[dict[str, Any]] = []
        self.attribution: list[dict[str, Any]] = []
        self.rationale: list[dict[str, Any]] = []
        self.skipped = Skipped()

    def add(self, record: dict[str, Any], shards: ExitStack) -> None:
        """Draw the pictures of a record and make its tasks."""
        path = self._data / record["file"]
        try:
            image = check_image(image_id(record))
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise AnswerRejected("the image has changed since it was explained")
            pixels = decode(content)
        except OSError as error:
            self.skipped.add(record["file"], f"the image cannot be read: {error.strerror or error}")
            return
        except (AnswerRejected, ImageRejected) as error:
            self.skipped.add(record["file"], str(error))
            return
        base = self._base(record, image)
        scale = min(1.0, self._config.side / max(pixels.shape[:2]))
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        self._save(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), f"photo_{base}.jpg")
        self._ask_rationale(record, Unit(image=image, region=record["region"]), f"photo_{base}.jpg")
        for number, made in enumerate(record["maps"]):
            unit = _unit(image, record["region"], made)
            if unit is None:
                continue
            values = self._shard(record["shard"], shards)[made["data"]][()]
            _, blend = overlay(pixels, np.asarray(values, np.float32), Region(**record["covered"]), size)
            mark = "class" if unit.target == "class" else "caption"
            picture = f"p1_{base}__{mark}_{made['target']}_attr_result.jpg"
            self._save(blend, picture)
            self._ask_attribution(record, number, unit, picture)

    def _ask_attribution(self, record: dict[str, Any], number: int, unit: Unit, picture: str) -> None:
        id_ = self._id(record, number)
        more = {"item": record["item"], "label": record["label"], "archive_sha256": self._digest}
        self.scale.append(scale_task(id_, picture, unit, more))
        url = self._config.pictures_url
        self.attribution.append(studio_task(id_, picture, unit, str(unit.word), url))

    def _ask_rationale(self, record: dict[str, Any], unit: Unit, picture: str) -> None:
        said = record.get("caption")
        prompt = " ".join(said["words"]) if said else record["label"] or record["predictions"][0]["class"]
        id_ = self._id(record, -1)
        size = record["width"], record["height"]
        self.rationale.append(studio_task(id_, picture, unit, clean(prompt), self._config.pictures_url, size))

    def _id(self, record: dict[str, Any], number: int) -> str:
        """Of a task: the same for the same question, whenever it is made."""
        told = json.dumps([self._digest, record["file"], record["region"], record["sha256"], number])
        return hashlib.sha256(told.encode()).hexdigest()[:24]

    def _base(self, record: dict[str, Any], image: str) -> str:
        """A part of a file name that no other record has."""
        parts = [image.removesuffix(".jpg"), *([record["region"]] if record["region"] is not None else [])]
        base = re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts)).strip(".")[:_LONGEST_NAME]
        if base in self._names or not base:
            base = f"{base}-item{record['item']}"
        self._names.add(base)
        return base

    def _shard(self, name: str, shards: ExitStack) -> Any:
        if name not in self._shards:
            self._shards[name] = shards.enter_context(h5py.File(self._config.run / name, "r"))
        return self._shards[name]

    def _save(self, picture: Image.Image, name: str) -> None:
        picture.save(self._config.out / PICTURES / name, quality=JPEG_QUALITY)


def _unit(image: str, region: str | None, made: dict[str, Any]) -> Unit | None:
    """What a map shows; None where nothing is asked of it."""
    word, kind = clean(made["name"]), made["kind"]
    if not word or (kind == "word" and word in UNASKED):
        return None
    if kind not in ("word", "class"):
        return None  # a node of the graph is given to the captioner: nothing to name
    return Unit(image=image, region=region, target=kind, position=int(made["target"]), word=word)


def _finish(config: ExportConfig, maker: _Maker, images: int) -> dict[str, Any]:
    """Write the lists and say what came of it."""
    counts = {
        "images": images,
        "attribution": len(maker.scale),
        "rationale": len(maker.rationale),
        "skipped": len(maker.skipped.reasons),
    }
    if not maker.rationale:
        raise DataError(f"No image of {config.run} makes a task. {maker.skipped.summary()}".strip())
    studio = config.out / STUDIO
    for name, tasks, labels in (
        ("attribution", maker.attribution, ATTRIBUTION_LABELS),
        ("rationale", maker.rationale, RATIONALE_LABELS),
    ):
        _write(studio / f"{name}.json", json.dumps(tasks, indent=1))
        _write(studio / f"{name}.xml", labels)
    if maker.skipped.reasons:
        _write(config.out / SKIPPED, "\n".join(map(clean, maker.skipped.reasons)))
    _write(config.out / TASKS, json.dumps(maker.scale, indent=1))
    print(f"{counts['attribution']} tasks of attribution and {counts['rationale']} of rationale on {images} images")
    if summary := maker.skipped.summary():
        print(summary)
    print(f"{config.out}: {TASKS}, {STUDIO}, {PICTURES}")
    return counts


def _write(path: Path, text: str) -> None:
    with whole(path) as aside:
        aside.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
