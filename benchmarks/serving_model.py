"""What every server of `benchmarks.serving` computes, apart from saaa's own: JPEG in, JSON of class probabilities out.

Plain code as a user of any of these servers would write it. It runs inside their environments, so it imports nothing
but Pillow, NumPy, torch and saaa's model.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from saaa import archive
from saaa.models.classifier import Classifier
from saaa.runtime.lean import import_vision

COUNT_VARIABLE = "SERVING_COUNT"
"""Environment variable with a file that grows by one byte for each image computed, whoever waits for it."""


class Model:
    """A classifier; one a thread or process, or shared by threads.

    Args:
        path: its archive.
        threads: torch's threads for one forward, at least 1.
    """

    def __init__(self, path: Path | str, threads: int) -> None:
        import_vision()
        self.threads = threads
        self.classifier = Classifier.from_archive(archive.read(path))
        self.classes = self.classifier.config.classes
        self._count = os.environ.get(COUNT_VARIABLE)
        torch.set_num_threads(threads)

    def answers(self, jpegs: Sequence[bytes]) -> list[bytes]:
        """The JSON answer of each image of one forward: {class: probability}."""
        with torch.inference_mode():
            rows = self.classifier(self.inputs(jpegs)).softmax(dim=1).tolist()
        self.computed(len(jpegs))
        return [json.dumps(dict(zip(self.classes, row, strict=True))).encode() for row in rows]

    def inputs(self, jpegs: Sequence[bytes]) -> torch.Tensor:
        """float32 (images, 3, S, S), decoded, resized and normalised."""
        if torch.get_num_threads() != self.threads:  # it belongs to the calling thread
            torch.set_num_threads(self.threads)
        size = self.classifier.config.input_size
        pixels = np.stack([_pixels(jpeg, size) for jpeg in jpegs])
        return self.classifier.preprocess(torch.from_numpy(pixels))

    def computed(self, images: int) -> None:
        """Note that so many images were computed."""
        if self._count:
            handle = os.open(self._count, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, b"." * images)
            os.close(handle)


def _pixels(jpeg: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def told() -> argparse.Namespace:
    """What every server script is told: archive, port, workers, threads, batch, ports of its own (two more)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--archive", required=True)
    parser.add_argument("--folder", default=".", help="for what it writes")
    parser.add_argument("--ports", type=int, nargs=3, default=(0, 0, 0), help="the first is asked by the benchmark")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="of integrated gradients; 0 only predicts")
    return parser.parse_args()
