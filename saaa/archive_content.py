"""A model at rest, and what config.json must say of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from saaa.archive_members import CONFIG
from saaa.errors import ArchiveError
from saaa.work import DECODE_SCALES, MethodInfo, ModelInfo, ModelKind, TargetKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A model at rest."""

    kind: ModelKind
    name: str
    """Starts with a letter or digit; letters, digits, "_", "." and "-", at most 63 characters."""
    version: str
    """Alike, at most 31 characters."""
    config: Mapping[str, Any]
    """config.json without format, kind, name and version (those are the fields above)."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """card.json; any JSON object."""
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Weights by name; any dtype that NumPy and safetensors share."""
    graph: Mapping[str, bytes] = field(default_factory=dict)
    """The members `GRAPH_MEMBERS`, all or none."""
    digest: str = field(default="", compare=False)
    """64 hexadecimal digits, set by `read`; "" before the archive is written."""

    def info(self) -> ModelInfo:
        """Give the model's description; raises `ArchiveError` when config.json lacks a part of it."""
        return _describe(self)


def check_names(archive: Archive) -> None:
    """Refuse a name or version outside the limits; raises `ArchiveError`."""
    for what, value, pattern in (("name", archive.name, _NAME), ("version", archive.version, _VERSION)):
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ArchiveError(
                f"{what} {value!r} is not allowed: start with a letter or digit, then letters, digits, "
                f'"_", "." and "-", at most {63 if what == "name" else 31} characters.'
            )


def _describe(archive: Archive) -> ModelInfo:
    config = archive.config
    try:
        preprocessing = config["preprocessing"]
        size = int(preprocessing["input_size"])
        resize = str(preprocessing["resize"])
        crop = float(preprocessing["crop_fraction"])
        scales = tuple(int(scale) for scale in preprocessing.get("decode_scales", ()))
        margin = float(preprocessing.get("decode_margin", 1))
        classes = tuple(str(c) for c in config.get("classes", ()))
        vocabulary = len(config.get("vocabulary", ()))
        methods = tuple(
            MethodInfo(
                name=str(m["name"]),
                cost_forwards=float(m["cost_forwards"]),
                reference=str(m["reference"]),
                # Archives from before captions could be explained do not say.
                targets=tuple(TargetKind(kind) for kind in m.get("targets", ("class",))),
            )
            for m in config.get("methods", ())
        )
        limits = (int(config.get("max_nodes", 0)), int(config.get("max_words", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"{CONFIG} is incomplete or malformed ({error!r}).") from error
    if not 1 <= size <= 4096 or resize not in ("squash", "crop") or not (math.isfinite(crop) and 0 < crop <= 1):
        raise ArchiveError(
            f"{CONFIG}: preprocessing needs an input_size of 1 to 4096, resize squash or crop, "
            "and a crop_fraction above 0 and at most 1."
        )
    if not set(scales) <= set(DECODE_SCALES) or not 1 <= margin < math.inf:
        raise ArchiveError(f"{CONFIG}: decode_scales are of {DECODE_SCALES}, and decode_margin is at least 1.")
    if archive.kind is ModelKind.EGDD and not (classes and methods):
        raise ArchiveError(f"{CONFIG} of a classifier must list its classes and attribution methods.")
    if archive.kind is ModelKind.EGA and not (vocabulary and min(limits) > 0):
        raise ArchiveError(f"{CONFIG} of a captioner must give its vocabulary, max_nodes and max_words.")
    return ModelInfo(
        name=archive.name,
        version=archive.version,
        kind=archive.kind,
        digest=archive.digest,
        input_size=size,
        resize=resize,
        crop_fraction=crop,
        decode_scales=scales,
        decode_margin=margin,
        classes=classes,
        vocabulary_size=vocabulary,
        max_nodes=limits[0],
        max_words=limits[1],
        methods=methods,
        card_json=json.dumps(archive.card, ensure_ascii=False, sort_keys=True),
    )
