"""gallery.html: pictures with their maps laid over them, the most telling first."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from heapq import nsmallest
from html import escape
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saaa.client.attributions import Region
from saaa.errors import ImageRejected
from saaa.images import decode
from saaa.report import colors, markup
from saaa.report.heatmap import Scale, spread
from saaa.work import ModelInfo
from training.attribute.config import AttributeConfig, GalleryOrder
from training.attribute.store import GALLERY, GALLERY_PICTURES, Store, write_whole
from training.attribute.table import top_concepts

SIDE = 256
"""Longer side of a picture, pixels."""
MAPS_SHOWN, CONCEPTS_SHOWN, FAILURES_SHOWN = 15, 3, 100
LEAST_WEIGHT = 0.005
"""Of a node that is named for a word: smaller ones round to nothing."""
MOST_COLUMNS = 4
JPEG_QUALITY = 90

_STYLE = """
main, header.top { max-width: 1400px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 540px), 1fr));
  gap: 16px; margin: 24px 0; }
.gallery .card { margin: 0; padding: 16px; min-width: 0; }
.gallery h2 { font-size: 16px; }
.gallery table { font-size: 14px; }
.gallery th { width: 22%; vertical-align: top; }
.pictures { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 10px;
  margin: 12px 0; align-items: start; }
.pictures figcaption { padding: 4px 8px; font-size: 13px; color: #606874; overflow-wrap: anywhere; }
.wrong { color: var(--bad); font-weight: 600; }
"""
_ORDERS = {
    "least_confident": "the least confident first",
    "most_confident": "the most confident first",
    "mistakes": "mistakes first, the most confident ones at the top",
    "name": "in the order of the index",
}


def write_gallery(config: AttributeConfig, store: Store, model: ModelInfo) -> None:
    """Draw the gallery of a run whose index and maps are there, replacing an earlier one.

    Raises:
        OSError: the folder cannot be written.
    """
    pictures = store.folder / GALLERY_PICTURES
    shutil.rmtree(pictures, ignore_errors=True)
    (store.folder / GALLERY).unlink(missing_ok=True)
    if config.gallery == 0:
        return
    pictures.mkdir()
    sound = (record for record in store.records() if record["error"] is None)
    chosen = choose(sound, config.gallery_order, config.gallery)
    cards = [_card(record, _draw(record, config.data / record["file"], store.folder)) for record in chosen]
    failed = [record for record in store.records() if record["error"] is not None]
    write_whole(store.folder / GALLERY, _page(cards, failed, config, model))


def choose(records: Iterable[dict[str, Any]], order: GalleryOrder, count: int) -> list[dict[str, Any]]:
    """The first `count` records in an order; ties go by number."""
    keys: dict[str, Callable[[dict[str, Any]], tuple[float, ...]]] = {
        "least_confident": lambda r: (confidence(r), r["item"]),
        "most_confident": lambda r: (-confidence(r), r["item"]),
        "mistakes": lambda r: (not mistaken(r), -confidence(r), r["item"]),
        "name": lambda r: (r["item"],),
    }
    return nsmallest(count, records, key=keys[order])


def confidence(record: dict[str, Any]) -> float:
    """Probability of the predicted class, or the geometric mean of the caption's words; 0 to 1."""
    if record.get("predictions"):
        return float(record["predictions"][0]["probability"])
    chances = record["caption"]["log_probabilities"]
    return math.exp(sum(chances) / len(chances)) if chances else 0.0


def mistaken(record: dict[str, Any]) -> bool:
    """Whether the data give another class than the prediction."""
    told = record.get("predictions", [])
    return bool(told and record["label"] not in (None, told[0]["class"]))


def overlay(
    image: NDArray[np.uint8], grid: NDArray[np.float32], region: Region, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """The picture at `size` (width, height), and the same with the map over it, faded where the map does not reach."""
    photo = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    levels = Scale.of(grid)
    values = spread(grid, region, size, size[0] / image.shape[1])
    seen = ~np.isnan(values)[..., None]
    places = levels.place(np.where(seen[..., 0], values, levels.low))
    strength = np.abs(2 * places - 1) if levels.signed else places
    opacity = (0.15 + 0.6 * strength)[..., None]
    grey = np.asarray(photo.convert("L"), np.float64)[..., None]
    base = (np.asarray(photo, np.float64) + grey) / 2
    blend = np.where(seen, base * (1 - opacity) + colors.apply(levels.table, places) * opacity, 0.4 * grey + 150)
    return photo, Image.fromarray(np.rint(np.clip(blend, 0, 255)).astype(np.uint8))


def _draw(record: dict[str, Any], path: Path, folder: Path) -> list[tuple[str, str]]:
    """Draw the pictures of one item; gives (file, caption) of each. An image that is gone since gives none."""
    try:
        image = decode(path.read_bytes())
    except (OSError, ImageRejected):
        return []
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    region = Region(**record["covered"])
    name = f"{GALLERY_PICTURES}/{record['item']:08d}"
    drawn = [(f"{name}.jpg", "picture")]
    if record["shard"] is None:
        Image.fromarray(image).resize(size).save(folder / drawn[0][0], quality=JPEG_QUALITY)
        return drawn
    with h5py.File(folder / record["shard"], "r") as shard:
        for k, made in enumerate(record["maps"][:MAPS_SHOWN]):
            photo, blend = overlay(image, shard[made["data"]][()], region, size)
            if k == 0:
                photo.save(folder / drawn[0][0], quality=JPEG_QUALITY)
            drawn.append((f"{name}-{k}.jpg", _target(made)))
            blend.save(folder / drawn[-1][0], quality=JPEG_QUALITY)
    return drawn


def _target(made: dict[str, Any]) -> str:
    chance = "" if made["probability"] is None else f" {made['probability']:.1%}"
    return f"{made['name']}{chance}"


def _card(record: dict[str, Any], pictures: list[tuple[str, str]]) -> str:
    title = record["file"] if record["region"] is None else f"{record['file']}, region {record['region']}"
    columns = max(2, min(len(pictures), MOST_COLUMNS))
    figures = "".join(
        f'<figure><img loading="lazy" alt="{escape(what)}" src="{escape(file)}">'
        f"<figcaption>{escape(what)}</figcaption></figure>"
        for file, what in pictures
    )
    shown = figures or '<p class="refused">The image is gone or cannot be read any more.</p>'
    return (
        f'<section class="card"><h2>{escape(title)}</h2><div class="pictures" style="--columns:{columns}">{shown}</div>'
        f"{_answer(record)}{_facts(record)}</section>"
    )


def _answer(record: dict[str, Any]) -> str:
    if record.get("caption"):
        return f"<p><b>{escape(' '.join(record['caption']['words']))}</b></p>"
    best = record["predictions"][0]
    width = f"{100 * best['probability']:.1f}%"
    bar = f'<span class="track"><span style="width:{width}"></span></span>'
    row = f'<div class="prediction first"><span>{escape(best["class"])}</span>{bar}<span>{width}</span></div>'
    if record["label"] is not None:
        row += f'<p class="{"wrong" if mistaken(record) else "muted"}">true class: {escape(record["label"])}</p>'
    return row


def _facts(record: dict[str, Any]) -> str:
    shown = record["maps"][:MAPS_SHOWN]
    if not shown:
        return ""
    rows = []
    for made in shown:
        facts = [
            f"{n.replace('_', ' ')} {made[n]:.3f}" for n in ("completeness_gap", "deletion_drop") if made[n] is not None
        ]
        if best := [_concept(concept) for concept in top_concepts(made, CONCEPTS_SHOWN)]:
            facts.append(", ".join(filter(None, best)) or "no node of the graph")
        if facts:
            rows.append(f"<tr><th>{escape(made['name'])}</th><td>{escape(' · '.join(facts))}</td></tr>")
    first = shown[0]
    how = f"{first['method']}, {first['columns']} x {first['rows']} cells"
    if (rest := len(record["maps"]) - len(shown)) > 0:
        how += f"; {rest} more maps are in the index"
    return f'<p class="muted">{escape(how)}</p><table>{"".join(rows)}</table>'


def _concept(concept: dict[str, Any]) -> str:
    if "weight" in concept:
        # Negligible and negative weights are not what a word is about.
        return f"{concept['name']} ({concept['weight']:.2f})" if concept["weight"] >= LEAST_WEIGHT else ""
    if "effect" in concept:
        return f"{concept['name']} (effect {concept['effect']:+.2f}, density {concept['density']:.1f})"
    return f"{concept['name']} (density {concept['density']:.1f}, mass {concept['mass']:.0%})"


def _page(cards: list[str], failed: list[dict[str, Any]], config: AttributeConfig, model: ModelInfo) -> str:
    facts = (
        f"{model.name} {model.version} · method {config.method} · {len(cards)} shown, {_ORDERS[config.gallery_order]}"
    )
    rows = "".join(
        f"<tr><td>{escape(r['file'])}</td><td>{escape(r['error']['reason'])}</td>"
        f"<td>{escape(r['error']['message'])}</td></tr>"
        for r in failed[:FAILURES_SHOWN]
    )
    more = f"<p>{len(failed) - FAILURES_SHOWN} more are in the index.</p>" if len(failed) > FAILURES_SHOWN else ""
    head = "<tr><th>Image</th><th>Reason</th><th>What happened</th></tr>"
    failures = f'<section class="card"><h3>{len(failed)} failed</h3><table>{head}{rows}</table>{more}</section>'
    return markup.document(
        f"Attribution of {config.data.name}",
        header=f'<p class="muted">{escape(facts)}</p>\n<p class="muted"><code>{escape(model.digest)}</code></p>',
        main=f'{failures if failed else ""}\n<div class="gallery">\n{chr(10).join(cards)}\n</div>',
        style=_STYLE,
    )
