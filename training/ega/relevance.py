"""Annotators' ratings of caption words: how relevant was the word to where the model looked when it said it?

A JSON file, of any of the training set's regions:

    {"<image_id>": {"<region_id>": [
        {"word": "skateboard", "rating": 1.6},
        {"caption": 2, "position": 4, "word": "on", "type": "relationship", "rating": 4.5}
    ]}}

`rating`    1 (not at all) to 5 (entirely); several of one word are averaged.
`word`      which word of the region's captions; all its places, unless the other keys say which.
`position`  which word, counted from 0; of caption 0 unless `caption` says otherwise. Give this, `word` or both.
`caption`   which of the region's captions, counted from 0.
`type`      "object", "attribute" or "relationship": only where the word names such a node. "" says nothing.

These are the answers of RA3's first task (its tasks.json asks for content type and relevance of one word). A word
rated r weighs 1 - r / 5 in the explanation loss, others 1: where people found the model's view fit, there is less to
mend.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saaa.errors import DataError
from saaa.scene_graph import NodeKind
from training.ega.alignment import align
from training.ega.batches import CaptionSource
from training.ega.published import Region, Skipped

LOWEST, HIGHEST = 1, 5
KINDS = {kind.name.lower(): kind for kind in NodeKind}


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One answer."""

    where: str
    """For messages."""
    image_id: str
    region_id: str
    rating: float
    word: str | None = None
    position: int | None = None
    caption: int | None = None
    kind: NodeKind | None = None


def read_ratings(path: Path) -> list[Rating]:
    """The ratings of a file.

    Raises:
        DataError: it cannot be read, or holds something else than the module's text says; which is named.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    return list(_ratings(path, content))


def _ratings(path: Path, content: Any) -> Iterator[Rating]:
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object of images.")
    for image, regions in content.items():
        if not isinstance(regions, dict):
            raise DataError(f"{path}: image {image} must have an object of regions.")
        for region, answers in regions.items():
            if not isinstance(answers, list):
                raise DataError(f"{path}: region {region} of image {image} must have a list of ratings.")
            for number, answer in enumerate(answers):
                where = f"rating {number} of region {region} of image {image}"
                try:
                    yield _rating(answer, where, image.removesuffix(".jpg"), region)
                except ValueError as error:
                    raise DataError(f"{path}: {where} {error}") from None


def _rating(answer: Any, where: str, image_id: str, region_id: str) -> Rating:
    known = {"word", "position", "caption", "type", "rating"}
    if not isinstance(answer, dict):
        raise ValueError("must be a JSON object")
    if other := sorted(answer.keys() - known):
        raise ValueError(f"has a key {other[0]!r}; there are {', '.join(sorted(known))}")
    rating = answer.get("rating")
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
        raise ValueError(f"needs a number as rating, not {rating!r}")
    if not LOWEST <= rating <= HIGHEST:
        raise ValueError(f"is {rating:g}; ratings are {LOWEST} to {HIGHEST}")
    word = answer.get("word")
    if word is not None and (not isinstance(word, str) or len(word.split()) != 1):
        raise ValueError(f"must name one word, not {word!r}")
    places: dict[str, int | None] = {}
    for key in ("position", "caption"):
        places[key] = place = answer.get(key)
        if place is not None and (isinstance(place, bool) or not isinstance(place, int) or place < 0):
            raise ValueError(f"needs a whole number from 0 as {key}, not {place!r}")
    if word is None and places["position"] is None:
        raise ValueError("names no word; give word or position")
    kind = answer.get("type") or None
    if kind is not None and kind not in KINDS:
        raise ValueError(f"has type {kind!r}; types are {', '.join(KINDS)}")
    if places["position"] is not None and places["caption"] is None:
        places["caption"] = 0
    return Rating(
        where=where,
        image_id=image_id,
        region_id=region_id,
        rating=float(rating),
        word=None if word is None else word.strip().lower(),
        kind=None if kind is None else KINDS[kind],
        **places,
    )


def word_weights(ratings: Sequence[Rating], captions: CaptionSource, max_nodes: int, skipped: Skipped) -> Tensor:
    """What each token of captions weighs in the explanation loss.

    Args:
        ratings: of their words.
        captions: what is trained on.
        max_nodes: graphs' nodes that guide.
        skipped: takes the ratings of regions or words that are not there.

    Returns:
        float32 (captions, T), 0 to 0.8 where rated, else 1.

    Raises:
        DataError: there are no ratings, or none is of a word that is there.
    """
    regions = {(region.image_id, region.region_id): row for row, region in enumerate(captions.regions)}
    counts = torch.bincount(captions.region_of, minlength=len(regions))
    firsts = (counts.cumsum(0) - counts).tolist()
    totals, answers = torch.zeros(captions.captions.shape), torch.zeros(captions.captions.shape)
    for rating in ratings:
        row = regions.get((rating.image_id, rating.region_id))
        places = [] if row is None else _places(rating, captions.regions[row], max_nodes)
        # A caption that was cut has lost its last words.
        there = [(c, p) for c, p in places if row is not None and p + 1 < int(captions.lengths[firsts[row] + c])]
        if row is None or not there:
            skipped.add(rating.where, "there is no such region" if row is None else "there is no such word")
            continue
        for caption, place in there:
            totals[firsts[row] + caption, place + 1] += rating.rating  # BOS comes first
            answers[firsts[row] + caption, place + 1] += 1
    if not answers.any():
        raise DataError(f"No relevance rating is of a word of the training set. {skipped.summary()}".strip())
    return torch.where(answers > 0, 1 - totals / answers.clamp(min=1) / HIGHEST, 1.0)


def _places(rating: Rating, region: Region, max_nodes: int) -> list[tuple[int, int]]:
    """(caption, word) of what is rated, both counted from 0."""
    found = []
    for number, caption in enumerate(region.captions):
        words = caption.split()
        if rating.caption not in (None, number):
            continue
        named = None if rating.kind is None else align(words, region.graph, max_nodes)
        nodes = region.graph.nodes()
        for place, word in enumerate(words):
            if rating.word not in (None, word.lower()) or rating.position not in (None, place):
                continue
            if named is None or any(nodes[int(k)].kind is rating.kind for k in named[place].nonzero()):
                found.append((number, place))
    return found
