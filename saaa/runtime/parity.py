"""Whether a compiled classifier answers as the eager one does: the measure, and the gate that it must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.errors import ArchiveError
from saaa.runtime.base import ClassifierRuntime
from saaa.work import ExplainOptions, WorkItem

MIN_AGREEMENT, MIN_MEDIAN, MIN_P1 = 0.995, 0.99, 0.95
SAMPLES = 4
"""Images that an archive keeps for the check at load."""
_MAP = "map/"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the eager model says of some images."""

    pixels: NDArray[np.uint8]
    """(images, S, S, 3)."""
    logits: NDArray[np.float32]
    """(images, classes)."""
    maps: Mapping[str, NDArray[np.float32]]
    """For each method (images, rows, columns), of the most probable class."""

    @classmethod
    def make(cls, runtime: ClassifierRuntime, pixels: NDArray[np.uint8], methods: Sequence[str]) -> Reference:
        """Ask the eager runtime."""
        logits = _logits(runtime, pixels)
        best = logits.argmax(axis=1)
        maps = {method: _maps(runtime, pixels, best, method) for method in methods}
        return cls(pixels=pixels, logits=logits, maps=maps)

    def surest(self, count: int) -> Reference:
        """Only the images whose class is the clearest: a check on few images must not fail on a tie."""
        ordered = np.sort(self.logits, axis=1)
        chosen = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")[:count]
        maps = {method: values[chosen] for method, values in self.maps.items()}
        return Reference(pixels=self.pixels[chosen], logits=self.logits[chosen], maps=maps)

    def pack(self) -> bytes:
        """The archive's member `PARITY`."""
        from safetensors.numpy import save

        maps = {f"{_MAP}{method}": np.ascontiguousarray(values) for method, values in self.maps.items()}
        return save({"pixels": self.pixels, "logits": self.logits, **maps})

    @classmethod
    def unpack(cls, data: bytes) -> Reference:
        """The opposite of `pack`.

        Raises:
            ArchiveError: it is something else.
        """
        from safetensors.numpy import load

        try:
            arrays = load(data)
            maps = {name.removeprefix(_MAP): array for name, array in arrays.items() if name.startswith(_MAP)}
            return cls(pixels=arrays["pixels"], logits=arrays["logits"], maps=maps)
        except Exception as error:  # safetensors raises its own and built-in types
            raise ArchiveError(f"The parity samples cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the answers differ."""

    images: int
    agreement: float
    """Share of the images with the same most probable class."""
    logit_gap: float
    """The largest difference of a logit."""
    map_cosine_median: float
    """Of the maps of the most probable class, over images; of several methods the worst."""
    map_cosine_p1: float
    """Alike, the first percentile."""

    def refusal(self) -> str | None:
        """Why it does not pass, in figures; None when it does."""
        figures = (
            ("top-1 agreement", self.agreement, MIN_AGREEMENT),
            ("median of the maps' cosine", self.map_cosine_median, MIN_MEDIAN),
            ("first percentile of the maps' cosine", self.map_cosine_p1, MIN_P1),
        )
        missed = [f"{name} {value:.4f} < {least}" for name, value, least in figures if not value >= least]
        return "; ".join(missed) or None

    def describe(self) -> dict[str, Any]:
        """For the model card; what is not a number is null."""
        told: dict[str, Any] = {key: round(v, 7) if np.isfinite(v) else None for key, v in asdict(self).items()}
        return told | {"refused": self.refusal()}


def measure(reference: Reference, runtime: ClassifierRuntime) -> Parity:
    """Compare a runtime with the reference, on the reference's images."""
    logits = _logits(runtime, reference.pixels)
    best = reference.logits.argmax(axis=1)
    finite = np.isfinite(logits).all(axis=1)
    cosines = [
        _cosines(expected, _maps(runtime, reference.pixels, best, method))
        for method, expected in reference.maps.items()
    ]
    return Parity(
        images=len(best),
        agreement=float(((logits.argmax(axis=1) == best) & finite).mean()),
        logit_gap=float(np.abs(logits - reference.logits).max()),
        map_cosine_median=min((float(np.median(values)) for values in cosines), default=1.0),
        map_cosine_p1=min((float(np.percentile(values, 1)) for values in cosines), default=1.0),
    )


def _logits(runtime: ClassifierRuntime, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate([runtime.predict(pixels[few]) for few in _few(len(pixels))])


def _maps(
    runtime: ClassifierRuntime, pixels: NDArray[np.uint8], targets: NDArray[np.int64], method: str
) -> NDArray[np.float32]:
    items = [WorkItem(targets=(int(target),)) for target in targets]
    options = ExplainOptions(method=method)
    made = [runtime.explain(pixels[few], items[few], options) for few in _few(len(pixels))]
    return np.stack([entries[0].values for part in made for entries in part.maps])


def _few(count: int) -> list[slice]:
    """Some images at a time: all at once would take much memory."""
    return [slice(start, start + 8) for start in range(0, count, 8)]


def _cosines(expected: NDArray[np.float32], made: NDArray[np.float32]) -> NDArray[np.float64]:
    """One an image; 1 where both maps are empty, 0 where one is or is not finite."""
    left, right = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (expected, made))
    sizes = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    product = sizes[0] * sizes[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(product > 0, (left * right).sum(axis=1) / product, 0.0)
    found = np.where((sizes[0] == 0) & (sizes[1] == 0), 1.0, found)
    return np.where(np.isfinite(found), found, 0.0)
