"""A world of coloured shapes in the published formats, drawn in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210), "yellow": (225, 205, 40)}
SHAPES = ("ball", "brick", "coffee cup")
SIZE = 64


def draw(canvas, shape, colour, x, y, w, h):
    rows, columns = np.mgrid[0:h, 0:w]
    u, v = (columns + 0.5) / w * 2 - 1, (rows + 0.5) / h * 2 - 1
    inside = {"ball": u**2 + v**2 <= 1, "brick": abs(v) < 0.6, "coffee cup": abs(u) < 0.3 + 0.35 * (1 - v)}[shape]
    canvas[y : y + h, x : x + w][inside] = COLOURS[colour]


def scene(rng):
    """Pixels, region and captions of one picture: two different shapes side by side."""
    canvas = np.full((SIZE, SIZE, 3), rng.integers(200, 250), np.uint8)
    shapes = [SHAPES[k] for k in rng.permutation(3)[:2]]
    colours = [list(COLOURS)[k] for k in rng.integers(0, 4, 2)]
    objects = []
    for k, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        w, h = (int(v) for v in rng.integers(18, 28, 2))
        x, y = k * 32 + int(rng.integers(0, 32 - w)), int(rng.integers(0, SIZE - h))
        draw(canvas, shape, colour, x, y, w, h)
        objects.append({"object_id": k + 1, "name": shape, "attributes": [colour], "x": x, "y": y, "w": w, "h": h})
    link = {"relationship_id": 1, "subject_id": 1, "object_id": 2, "name": "left of"}
    one, two = (f"{c} {s}" for c, s in zip(colours, shapes, strict=True))
    captions = [f"a {one} left of a {two}", f"there is a {one} beside a {two}"]
    return canvas, {"objects": objects, "relationships": [link], "phrase": captions[0]}, captions


def make(folder: Path, sizes: dict[str, int], seed: int = 0, *, pickled: bool = False) -> Path:
    """Write a world with `sizes` pictures a split; `pickled` stores names and words the published way."""
    rng = np.random.default_rng(seed)
    notes = folder / "annotations"
    (notes / "regionfiles").mkdir(parents=True)
    (notes / "public_split").mkdir()
    kind = object if pickled else None
    words: set[str] = set()
    number = 0
    for split, size in sizes.items():
        pictures = folder / split / "scene"
        pictures.mkdir(parents=True)
        pairs, said = [], {}
        for _ in range(size):
            number += 1
            name = f"{number:06d}"
            canvas, region, captions = scene(rng)
            Image.fromarray(canvas).save(pictures / f"{name}.jpg", quality=95)
            (notes / "regionfiles" / f"{name}.json").write_text(json.dumps({"0": region}))
            pairs.append((name, "0"))
            said[name] = {"0": captions}
            words |= {word for caption in captions for word in caption.split()}
        np.save(notes / "regionfiles" / f"{split}_names.npy", np.array(pairs, kind), allow_pickle=pickled)
        np.save(
            notes / "public_split" / f"{split}_names.npy",
            np.array([f"{name}.jpg" for name, _ in pairs], kind),
            allow_pickle=pickled,
        )
        (notes / f"cleaned_{split}_region_descriptions.json").write_text(json.dumps(said))
    vocabulary = ["BOS", "EOS", "UNK", *sorted(words)]
    np.save(notes / "int2word.npy", np.array(vocabulary, kind), allow_pickle=pickled)
    (notes / "word2int.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    return folder
