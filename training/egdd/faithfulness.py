"""Does the default attribution show what the prediction rests on? Blur that, and see the confidence drop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from saaa.attribution import attribute
from saaa.attribution.removal import blur_sigma, blurred, top_share
from saaa.models.classifier import Classifier
from training.egdd.data import Images
from training.progress import progress

SHARE = 0.2
"""Share of the image that is blurred."""
BATCH = 16


def faithfulness(classifier: Classifier, images: Images, *, count: int, seed: int = 0) -> dict[str, Any]:
    """Measure how far the predicted class's probability drops when the top 20 % of its map is blurred.

    The comparison is a random 20 % of the same grain: random values on the map's grid, enlarged and cut
    alike.

    Args:
        classifier: in evaluation mode.
        images: as `load_for_evaluation` loads them.
        count: how many images to take, spread evenly over the set.
        seed: of the random regions.

    Returns:
        "method", "images", "share", "blur_sigma" (pixels of the input), and the mean drops of probability, in
        [-1, 1]: "drop_top", "drop_random".
    """
    chosen = spread_evenly(len(images), count)
    size = classifier.config.input_size
    draw = torch.Generator().manual_seed(seed)
    drops: dict[str, list[float]] = {"drop_top": [], "drop_random": []}
    method = ""
    for start in progress(range(0, len(chosen), BATCH), "faithfulness"):
        pixels = torch.from_numpy(np.stack([images[i] for i in chosen[start : start + BATCH]]))
        inputs = classifier.preprocess(pixels)
        found = attribute(classifier, inputs, [()] * len(inputs))
        maps = torch.from_numpy(np.stack([of_image[0].values for of_image in found.maps]))
        method = found.maps[0][0].method
        targets = torch.tensor([of_image[0].target for of_image in found.maps])
        before = torch.from_numpy(found.probabilities).gather(1, targets[:, None])[:, 0]
        hazy = blurred(inputs)
        for name, values in (("drop_top", maps), ("drop_random", torch.rand(maps.shape, generator=draw))):
            mask = top_share(values, size, SHARE)
            with torch.inference_mode():
                logits = classifier(torch.where(mask[:, None], hazy, inputs))
            after = logits.float().softmax(dim=1).gather(1, targets[:, None])[:, 0]
            drops[name].extend((before - after).tolist())
    means = {name: round(float(np.mean(values)), 4) for name, values in drops.items()}
    return {"method": method, "images": len(chosen), "share": SHARE, "blur_sigma": round(blur_sigma(size), 2), **means}


def spread_evenly(total: int, count: int) -> list[int]:
    """Choose at most `count` of `total` indices, evenly spread from the first to the last."""
    return sorted(set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()))
