"""What `benchmarks.serving` serves and sends: untrained vision transformers and JPEGs of 100 KB, always the same."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.serving_calls import Answer, json_answer
from benchmarks.serving_identity import identity
from benchmarks.serving_model import Model
from saaa import archive
from saaa.images import decode, fit
from saaa.models.classifier import Classifier, ClassifierConfig

CLASSES = tuple(f"class-{index}" for index in range(10))
IMAGES, WIDTH, HEIGHT, BYTES = 8, 640, 480, 100_000
COMPILING = ("saaa/archive*.py", "saaa/attribution", "saaa/models", "saaa/runtime")
"""What runs when a model is compiled."""
FAST, SLOW = "vit_tiny_patch16_224", "vit_small_patch16_224"


@dataclass(frozen=True)
class Material:
    """Files in one folder, made where they are not there.

    Args:
        folder: where.
    """

    folder: Path

    def archive(self, architecture: str) -> Path:
        """The archive of a model, alone in its folder; weights drawn from seed 0, the last layer's large enough that
        answers to different images differ."""
        path = self.folder / "models" / architecture / "bench.mar"
        if not path.is_file():
            torch.manual_seed(0)
            options = {"class_token": False, "global_pool": "avg"}
            config = ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=224, options=options)
            classifier = Classifier(config).eval()
            with torch.no_grad():
                classifier.net.get_classifier().weight.normal_(std=0.5)
            path.parent.mkdir(parents=True, exist_ok=True)
            archive.write(path, classifier.to_archive("bench", "1", {"about": "untrained, for benchmarks.serving"}))
        return path

    def compiled(self, architecture: str) -> Path:
        """The same model with prediction and default attribution compiled, alone in its folder; made anew when the
        code that makes it is another."""
        from saaa.runtime.compiling import add_graph  # openvino is an extra

        path = self.folder / "models" / f"{architecture}-{identity(COMPILING)}" / "bench.mar"
        if not path.is_file():
            plain = archive.read(self.archive(architecture))
            info = plain.info()
            fitted = [
                fit(decode(jpeg), info.input_size, mode=info.resize, crop_fraction=info.crop_fraction)[0]
                for jpeg in self.jpegs()
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            archive.write(path, add_graph(plain, np.stack(fitted)))
        return path

    @property
    def images(self) -> Path:
        """The folder of the JPEGs."""
        folder = self.folder / "images"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(IMAGES):
            path = folder / f"{index}.jpg"
            if not path.is_file():
                path.write_bytes(_jpeg(index))
        return folder

    def jpegs(self) -> list[bytes]:
        """Their bytes."""
        return [path.read_bytes() for path in sorted(self.images.glob("*.jpg"))]

    def right(self, architecture: str) -> Answer:
        """What the model says of the first."""
        return json_answer(Model(self.archive(architecture), 1).answers(self.jpegs()[:1])[0])


def _jpeg(seed: int) -> bytes:
    """Shapes under noise, as large as can be within `BYTES`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, 12, (HEIGHT, WIDTH, 1)).astype(np.float32)
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    best = b""
    for quality in range(30, 96):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() > BYTES:
            break
        best = file.getvalue()
    return best
