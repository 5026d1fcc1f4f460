"""`saaa audit`: make an answer again, from the journal, the archives and the image, and compare.

What was computed together may differ in the last bits from what is computed alone, and so may other versions of torch,
other threads and other processors. So the answer must come out bit for bit where the whole batch can be made again (by
giving the other images in it, too) and the runtime is the recorded one, and within `TOLERANCES` elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saaa import archive, wire
from saaa.errors import ArchiveError, DataError, SaaaError, StartFailed
from saaa.fitting import Picture
from saaa.work import ItemResult, ModelInfo, WorkBatch
from serving.telemetry.journal import pixels_digest, read_journal

if TYPE_CHECKING:
    from saaa.runtime.executor import Executor

TOLERANCES = {
    "probabilities": 1e-4,
    "maps": 1e-3,
    "node weights": 1e-3,
    "effects": 1e-3,
    "deletion drops": 1e-2,
    "completeness gaps": 1e-2,
    "log-probabilities": 1e-3,
}
"""Largest difference allowed where bits may differ; of maps, node weights and effects as a share of their largest
absolute value, of all others absolute."""
_RELATIVE = ("maps", "node weights", "effects")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one model's part of an answer came to."""

    model: str
    version: str
    work: str
    identical: bool
    """Bit for bit."""
    exact: bool
    """Whether it had to be."""
    within: bool
    """Whether all differences are within `TOLERANCES`."""
    differences: dict[str, float]
    """The largest one of each kind; infinite where sizes, targets or words differ."""
    reasons: tuple[str, ...]
    """Why bits may differ; empty where they may not."""

    @property
    def reproduced(self) -> bool:
        """Whether the answer is what it should be."""
        return self.identical or (self.within and not self.exact)

    def __str__(self) -> str:
        """One line for people."""
        who = f"{self.model} {self.version}, {self.work}"
        if self.identical:
            return f"{who}: the same, bit for bit"
        told = ", ".join(f"{name} by {value:.2g}" for name, value in self.differences.items() if value)
        if self.reproduced:
            return f"{who}: the same within the tolerance ({told}); bits may differ: {'; '.join(self.reasons)}"
        why = "" if self.within else " beyond the tolerance"
        return f"{who}: NOT the same{why} ({told})"


def audit(request_id: str, journal: Path, models: Path, images: Sequence[Path]) -> list[Finding]:
    """Make one answer again.

    Args:
        request_id: as the journal has it.
        journal: its file; files put aside lie beside it.
        models: folder with the archives, at any depth.
        images: the request's image, and images that were computed with it, in any order.

    Returns:
        One finding a model that took part.

    Raises:
        DataError: the journal does not know the request, lacks a part of it, or none of the images is the request's.
        ArchiveError: no archive has the recorded digest, or it is damaged.
        ImageRejected: an image is none.
        StartFailed: torch is not installed.
    """
    files = {hashlib.sha256(data).hexdigest(): data for data in map(_read, images)}
    try:
        request = _request(request_id, journal, files)
        own, wanted = request["image_sha256"], {model["batch"] for model in request["models"]}
        batches = {
            entry["id"]: entry
            for entry in read_journal(journal)
            if entry.get("record") == "batch" and entry.get("id") in wanted
        }
        pictures = {digest: Picture(data) for digest, data in files.items()}
        others = [picture for digest, picture in pictures.items() if digest != own]
        return [_again(model, batches, models, pictures[own], others) for model in request["models"]]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"A line of the journal {journal} is damaged: {error!r}") from error


def run_audit(request_id: str, journal: Path, models: Path, images: Sequence[Path]) -> int:
    """`audit`, told on standard output, one line a model.

    Returns:
        0 where the whole answer was reproduced, else 1.
    """
    findings = audit(request_id, journal, models, images)
    for finding in findings:
        print(finding)
    return 0 if all(finding.reproduced for finding in findings) else 1


def _request(request_id: str, journal: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """The request of that id whose image was given; the last where several are alike."""
    found = [
        entry
        for entry in read_journal(journal)
        if entry.get("record") == "request" and entry.get("request_id") == request_id
    ]
    if not found:
        raise DataError(f"The journal {journal} knows no answered request {request_id!a}.")
    about_these = [entry for entry in found if entry["image_sha256"] in files]
    if about_these:
        return about_these[-1]
    digests = " or ".join(sorted({entry["image_sha256"] for entry in found}))
    raise DataError(
        f"Wrong image: request {request_id!a} was about the image with SHA-256 {digests}; "
        f"given {'is' if len(files) == 1 else 'are'} {', '.join(files)}.",
        field="image",
    )


def _again(
    model: dict[str, Any],
    batches: dict[str, dict[str, Any]],
    folder: Path,
    image: Picture,
    others: Sequence[Picture],
) -> Finding:
    entry = batches.get(model["batch"])
    if entry is None:
        raise DataError(f"The journal has lost the batch that {model['name']} computed for this request.")
    path, info = _archive(folder, model)
    digests, index = entry["pixels_sha256"], model["index"]
    own, _ = image.fit(info)
    if pixels_digest(own) != digests[index]:
        raise DataError(
            "The image is the one that was sent, but decodes to other pixels here: another version of Pillow or "
            "NumPy made the answer."
        )
    try:
        recorded = wire.unpack_results(base64.b64decode(entry["results"]), len(digests))[index]
        batch, missing = _batch(entry, own, [other.fit(info)[0] for other in others], index)
    except (SaaaError, binascii.Error) as error:
        raise DataError(f"A line of the journal is damaged: {error}") from error
    executor = _executor(path, model["runtime"])
    reasons = []
    if missing:
        reasons.append(f"{missing} of {len(digests)} images of its batch are not given")
    if executor.info.runtime != model["runtime"]:
        reasons.append(
            f"the answer was made by {model['runtime'] or 'an unknown runtime'}, here is {executor.info.runtime}"
        )
    made = executor.run(batch)[0 if missing else index]
    differences = dict(_differences(recorded, made))
    return Finding(
        model=info.name,
        version=info.version,
        work=batch.work.value,
        identical=wire.pack_results([recorded]) == wire.pack_results([made]),
        exact=not reasons,
        within=all(value <= TOLERANCES.get(name, 0.0) for name, value in differences.items()),
        differences=differences,
        reasons=tuple(reasons),
    )


def _batch(
    entry: dict[str, Any], own: NDArray[np.uint8], others: Sequence[NDArray[np.uint8]], index: int
) -> tuple[WorkBatch, int]:
    """The batch, and how many of its images are missing; where any is, the batch of this item alone."""
    digests = entry["pixels_sha256"]
    pixels = {pixels_digest(array): array for array in (own, *others)}
    missing = sum(digest not in pixels for digest in digests)
    stack = np.stack([pixels.get(digest, own) for digest in digests])
    batch = wire.unpack_batch(base64.b64decode(entry["header"]), stack.tobytes())
    if batch is None:
        raise DataError("it holds no work.")
    if missing:
        batch = replace(batch, pixels=own[None], items=(batch.items[index],))
    return batch, missing


def _archive(folder: Path, model: dict[str, Any]) -> tuple[Path, ModelInfo]:
    """The archive with the recorded digest."""
    others = []
    for path in sorted(folder.rglob("*.mar")):
        info = archive.info(path)
        if info.digest == model["archive_sha256"]:
            return path, info
        if info.name == model["name"]:
            others.append(f"{path.name} is {info.name} {info.version} with digest {info.digest}")
    told = f"; {', '.join(others)}" if others else ""
    raise ArchiveError(
        f"Wrong archive: {folder} holds no archive of {model['name']} {model['version']} with digest "
        f"{model['archive_sha256']}{told}."
    )


def _executor(path: Path, runtime: str) -> Executor:
    try:
        from saaa.runtime.executor import Executor
        from saaa.runtime.fingerprint import threads_of

        return Executor.open(path, threads=threads_of(runtime) or 1)
    except ImportError as error:
        raise StartFailed(
            f"An audit computes with torch, which is not usable here ({error}); install saaa[model]."
        ) from error


def _differences(left: ItemResult, right: ItemResult) -> Iterator[tuple[str, float]]:
    """The largest difference of each kind of number."""
    told = (_said(left), _said(right))
    yield "targets and words", 0.0 if told[0] == told[1] else float("inf")
    ours, theirs = _numbers(left), _numbers(right)
    for name, values in ours.items():
        if [array.shape for array in values] != [array.shape for array in theirs[name]]:
            yield name, float("inf")
            continue
        largest = 0.0
        for one, other in zip(values, theirs[name], strict=True):
            scale = float(np.abs(one).max(initial=0)) if name in _RELATIVE else 1.0
            difference = float(np.abs(one - other).max(initial=0))
            largest = max(largest, difference / scale if scale else (float("inf") if difference else 0.0))
        yield name, largest


def _said(result: ItemResult) -> object:
    """All that is not a number."""
    return (
        result.error,
        [(m.kind, m.target, m.method) for m in result.maps],
        [caption.words for caption in result.captions],
    )


def _numbers(result: ItemResult) -> dict[str, list[NDArray[np.float64]]]:
    maps, captions = result.maps, result.captions

    def arrays(*values: ArrayLike | None) -> list[NDArray[np.float64]]:
        return [np.asarray(value, np.float64) for value in values if value is not None]

    return {
        "probabilities": arrays(result.probabilities),
        "maps": arrays(*(m.values for m in maps)),
        "node weights": arrays(*(m.node_weights for m in maps), *(caption.node_weights for caption in captions)),
        "effects": arrays(*(m.effects for m in maps)),
        "deletion drops": arrays(*(m.deletion_drop for m in maps)),
        "completeness gaps": arrays(*(m.completeness_gap for m in maps)),
        "log-probabilities": arrays(
            *(caption.log_probabilities for caption in captions), *(caption.log_probability for caption in captions)
        ),
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The image {path} cannot be read ({error.strerror or error}).") from error
