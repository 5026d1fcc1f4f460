"""Object classifiers on the procedural world: which of the 33 kinds are in the picture. Their explanations have a known
truth, the object's mask.

A vision transformer learns this from scratch in minutes because each patch is labelled, too, through a head of its own
(token labelling: Jiang et al. 2021, All Tokens Matter, arXiv:2104.10858), and because parts of the pictures are removed
while it learns, with the labels following what is left (as for the surrogate of Covert et al. 2023, ViT-Shapley,
arXiv:2206.05282). To a network that never saw a removed patch every removal is out of distribution; deletion, insertion
and Shapley values would measure that instead of the explanation. The head that is explained sees only which kinds the
whole picture shows.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, layer_norm

from saaa.models.classifier import Classifier, ClassifierConfig
from training.progress import progress
from training.scenes.kinds import KINDS

NAMES = tuple(sorted(KINDS))
SPREAD = 64 / 255
"""Standard deviation by which pixels are divided, of values in [0, 1]."""
SHIFT = 8
"""Pixels that a picture is moved by, at most, in training."""
WARM_UP = 200
"""Steps until the learning rate is at its peak."""
PHASE_SEED = 1000
"""Between the seeds of two phases."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training, from the averaged weights of the one before."""

    epochs: int
    rate: float
    """Peak learning rate of AdamW."""
    token_weight: float
    """Of the patches' loss beside the picture's."""
    removal: float
    """Share of the pictures of which something is removed."""
    objects: float
    """Of these, the share in which whole objects are removed."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an object classifier is built and trained.

    The second phase breaks habits: bowls stand on tables, so that a bowl speaks for a table until the network has seen
    enough bowls whose table is gone. What is left then is what the masks say, and only pictures are labelled.
    """

    pooling: str = "avg"
    """"avg" or "token": timm's `global_pool`."""
    patch: int = 8
    width: int = 96
    depth: int = 5
    heads: int = 3
    batch: int = 64
    phases: tuple[Phase, ...] = (
        Phase(epochs=14, rate=2e-3, token_weight=0.5, removal=0.5, objects=0.2),
        Phase(epochs=4, rate=5e-4, token_weight=0.0, removal=0.8, objects=0.7),
    )
    seed: int = 0

    def digest(self, phases: int) -> str:
        """Twelve hexadecimal digits that change with any option of the first so many phases."""
        used = asdict(self) | {"phases": [asdict(phase) for phase in self.phases[:phases]]}
        return hashlib.sha256(json.dumps(used).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Scenes:
    """Pictures with the kind of each pixel's object."""

    images: NDArray[np.uint8]
    """(n, S, S, 3)"""
    kinds: NDArray[np.uint8]
    """(n, S, S), 0 for the room, k + 1 for `NAMES[k]`."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean colour in [0, 1]: the neutral colour of the classifiers."""
        red, green, blue = (self.images.mean((0, 1, 2), dtype=np.float64) / 255).tolist()
        return red, green, blue

    def present(self) -> NDArray[np.bool_]:
        """(n, 33): which kinds each picture shows."""
        return np.stack([shown(kinds) > 0 for kinds in self.kinds])


def read_scenes(world: Path, split: str) -> Scenes:
    """Read one split of a world that `saaa-train scenes` made; two objects of a kind count as one."""
    rows = [json.loads(line) for line in (world / "scenes.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == split]
    images = np.stack([np.asarray(Image.open(world / row["file"])) for row in rows])
    kinds = np.zeros(images.shape[:3], np.uint8)
    for place, row in enumerate(rows):
        table = np.zeros(256, np.uint8)
        for thing in row["objects"]:
            table[thing["object_id"]] = NAMES.index(thing["name"]) + 1
        kinds[place] = table[np.asarray(Image.open(world / "masks" / f"{row['id']}.png"))]
    return Scenes(images, kinds)


def shown(kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(33,): how many pixels of each kind a label map holds."""
    return np.bincount(kinds.ravel(), minlength=len(NAMES) + 1)[1:]


def build(recipe: Recipe, size: int, mean: tuple[float, float, float]) -> Classifier:
    """A freshly initialised vision transformer with one logit a kind."""
    torch.manual_seed(recipe.seed)
    config = ClassifierConfig(
        architecture="vit_tiny_patch16_224",
        options={
            "patch_size": recipe.patch,
            "embed_dim": recipe.width,
            "depth": recipe.depth,
            "num_heads": recipe.heads,
            "global_pool": recipe.pooling,
            "class_token": recipe.pooling == "token",
        },
        classes=NAMES,
        input_size=size,
        mean=mean,
        std=(SPREAD, SPREAD, SPREAD),
    )
    return Classifier(config)


def trained(recipe: Recipe, scenes: Scenes, folder: Path) -> Classifier:
    """The classifier of a recipe, frozen; what `folder` holds of it, from an earlier run, is not trained again."""
    classifier = build(recipe, scenes.images.shape[1], scenes.mean)
    folder.mkdir(parents=True, exist_ok=True)
    for place, phase in enumerate(recipe.phases):
        path = folder / f"objects-{recipe.digest(place + 1)}.safetensors"
        if not path.exists():
            seed = recipe.seed + place * PHASE_SEED
            if place:  # else it was set for the weights
                torch.manual_seed(seed)
            partial = path.with_suffix(".partial")
            save_file(train(classifier, recipe, phase, seed, scenes), partial)
            partial.rename(path)
        classifier.net.load_state_dict(load_file(path))
    return classifier.eval().requires_grad_(False)


def train(classifier: Classifier, recipe: Recipe, phase: Phase, seed: int, scenes: Scenes) -> dict[str, Tensor]:
    """Train for one phase, and give the averaged weights (exponential moving average) of the network."""
    rng = np.random.default_rng(seed)
    net = classifier.net.train()
    average = copy.deepcopy(net).requires_grad_(False)
    tokens = nn.Linear(recipe.width, len(NAMES) + 1)
    parameters = [*net.parameters(), *tokens.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=phase.rate, weight_decay=0.05, betas=(0.9, 0.98))
    steps = phase.epochs * (len(scenes.images) // recipe.batch)
    order: list[int] = []
    for step in progress(range(steps), f"objects, {recipe.pooling} {seed}", unit="step"):
        order = order if len(order) >= recipe.batch else rng.permutation(len(scenes.images)).tolist()
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        pixels, kinds, keep = _varied(scenes.images[chosen], scenes.kinds[chosen], recipe.patch, phase, rng)
        inputs = classifier.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        inputs = inputs * torch.from_numpy(keep)[:, None]
        inputs = inputs * (1 + 0.2 * (torch.rand(len(inputs), 1, 1, 1) - 0.5))
        seen = net.forward_features(inputs)
        loss = binary_cross_entropy_with_logits(net.forward_head(seen), _labels(kinds, keep))
        if phase.token_weight:
            patches = tokens(layer_norm(seen[:, net.num_prefix_tokens :], (recipe.width,)))
            labels = _patch_labels(np.where(keep, kinds, 0), recipe.patch)
            loss = loss + phase.token_weight * cross_entropy(patches.flatten(0, 1), labels)
        for group in optimiser.param_groups:
            group["lr"] = phase.rate * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(0.995, (2 + step) / (11 + step)))
    return dict(average.state_dict())


def _varied(
    images: NDArray[np.uint8], kinds: NDArray[np.uint8], patch: int, phase: Phase, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Mirror and move the pictures (around the edges), and say which pixels stay."""
    images, kinds = images.copy(), kinds.copy()
    cells = images.shape[1] // patch
    keep = np.ones((len(images), cells, cells), bool)
    for place in range(len(images)):
        way = 1 if rng.random() < 0.5 else -1
        move = tuple(rng.integers(-SHIFT, SHIFT + 1, 2))
        images[place] = np.roll(images[place, :, ::way], move, (0, 1))
        kinds[place] = np.roll(kinds[place, :, ::way], move, (0, 1))
        if rng.random() < phase.removal:
            keep[place] = _kept(kinds[place], cells, phase, rng)
    return images, kinds, keep.repeat(patch, 1).repeat(patch, 2)


def _kept(kinds: NDArray[np.uint8], cells: int, phase: Phase, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(cells, cells): the patches that stay: any share of them, all but those of some objects, or a rectangle."""
    way = rng.random()
    others = 1 - phase.objects
    if way < 0.75 * others:
        return rng.random((cells, cells)) > rng.random()
    if way < 0.75 * others + phase.objects:
        there = np.flatnonzero(shown(kinds)) + 1
        gone = np.isin(kinds, there[rng.random(len(there)) < 0.5])
        patch = len(kinds) // cells
        return ~gone.reshape(cells, patch, cells, patch).any((1, 3))
    keep = np.zeros((cells, cells), bool)
    high, wide = rng.integers(3, cells + 1, 2)
    top, left = rng.integers(0, cells - high + 1), rng.integers(0, cells - wide + 1)
    keep[top : top + high, left : left + wide] = True
    return keep


def _labels(kinds: NDArray[np.uint8], keep: NDArray[np.bool_]) -> Tensor:
    """(n, 33): 0 where less than a twentieth of a kind's pixels is left, 1 from about a third on, a ramp between."""
    whole = np.stack([shown(one) for one in kinds])
    left = np.stack([shown(one) for one in np.where(keep, kinds, 0)])
    share = left / np.maximum(whole, 1)
    return torch.from_numpy(np.clip((share - 0.05) / 0.3, 0, 1).astype(np.float32))


def _patch_labels(kinds: NDArray[np.uint8], patch: int) -> Tensor:
    """(n x patches, 34): the share of each patch that the room and each kind take."""
    cells = kinds.shape[1] // patch
    pixels = kinds.reshape(len(kinds), cells, patch, cells, patch).transpose(0, 1, 3, 2, 4).reshape(-1, patch * patch)
    several = np.arange(len(pixels))[:, None] * (len(NAMES) + 1) + pixels
    counts = np.bincount(several.ravel(), minlength=len(pixels) * (len(NAMES) + 1))
    return torch.from_numpy((counts.reshape(len(pixels), -1) / patch**2).astype(np.float32))
