"""What a captioner in training is worth on the validation set."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from saaa.models.captioner import Captioner, Vocabulary, search
from training.distributed import World
from training.ega.batches import CaptionSource
from training.ega.explanation import attended
from training.ega.metrics import cider

BATCH = 64


@dataclass(frozen=True)
class Validation:
    """Figures on the validation set."""

    loss: float
    """Mean over tokens, natural logarithm."""
    cider: float
    """x 100, greedy captions."""
    node_accuracy: float | None
    """Share of the words that name a node whose most attended node is one that they name; None without such words."""


@torch.inference_mode()
def validate(captioner: Captioner, captions: CaptionSource, vocabulary: Vocabulary, world: World) -> Validation:
    """Loss and node accuracy over all captions, and CIDEr of greedy ones; all processes must call it, share the work
    and get the same."""
    captioner.eval()
    cost = tokens = hits = named = 0.0
    parts = torch.split(torch.argsort(captions.lengths, stable=True), BATCH)
    for k in world.share(len(parts)):
        batch = captions.batch(parts[k], world.device)
        taught = captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
        cost += float(captioner.loss(taught)) * len(taught.targets)
        tokens += len(taught.targets)
        found = attended(taught.attention, batch.named[taught.rows, taught.steps + 1])
        hits, named = hits + found[0], named + found[1]
    cost, tokens, hits, named = world.total([cost, tokens, hits, named])

    said: dict[int, list[tuple[str, ...]]] = {}
    regions = torch.split(torch.arange(len(captions.regions)), BATCH)
    for k in world.share(len(regions)):
        state, guide = captioner.begin(*captions.inputs(regions[k], world.device))
        best = search(captioner.decoder, state, guide, width=1, max_words=captioner.config.max_words)
        said[k] = [vocabulary.decode(ids[0]) for ids in best.tokens.tolist()]
    everywhere = {k: words for part in world.gather(said) for k, words in part.items()}
    scores = cider(
        [words for k in range(len(regions)) for words in everywhere[k]],
        [region.captions for region in captions.regions],
    )
    return Validation(cost / tokens, float(scores.mean()), hits / named if named else None)
