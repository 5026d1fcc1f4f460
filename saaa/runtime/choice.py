"""Choose what executes a classifier: the compiled graph where it may be had and answers right, torch otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from saaa.archive import PARITY, Archive
from saaa.errors import SaaaError
from saaa.runtime.base import ClassifierRuntime
from saaa.runtime.blobs import Blobs
from saaa.runtime.fingerprint import processor
from saaa.runtime.graph import Graph, allowed_precisions
from saaa.runtime.options import AUTO, BF16, FP32, OPENVINO, TORCH, RuntimeOptions
from saaa.runtime.parity import Reference, measure


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and what was not."""

    compiled: ClassifierRuntime | None
    """None: torch does it all."""
    refused: str = ""
    """Why something faster, or what was asked for, was not taken; "" where nothing was refused."""


def choose(archive: Archive, options: RuntimeOptions, threads: int | None) -> Choice:
    """Compile the archive's graph and repeat the check against the eager model's answers that the archive keeps.

    Never raises: what fails is refused, with the reason in `Choice.refused`.

    Args:
        archive: of a classifier.
        options: what is wanted.
        threads: for one batch; None is one a processor.
    """
    if options.runtime == TORCH or (options.runtime == AUTO and not archive.graph):
        return Choice(compiled=None)
    reasons: list[str] = []
    try:
        compiled = _compiled(archive, options, threads, reasons)
    except ImportError as error:
        compiled = None
        reasons.append(f"openvino is not usable here ({error})")
    except Exception as error:
        compiled = None
        reasons.append(_said(error))
    return Choice(compiled=compiled, refused="; ".join(reasons))


def _compiled(
    archive: Archive, options: RuntimeOptions, threads: int | None, reasons: list[str]
) -> ClassifierRuntime | None:
    """The first precision that compiles and answers right; `reasons` gets those of the others."""
    graph = Graph.of(archive)
    if graph is None:
        reasons.append(f"the archive holds no {OPENVINO} graph")
        return None
    from saaa.runtime.compiled import VERSION, OpenVinoClassifier  # openvino is an extra

    reference = Reference.unpack(archive.graph[PARITY])
    for precision in _precisions(archive, options.precision, reasons):
        blobs = None
        if options.cache_dir is not None:
            key = f"{archive.digest} openvino {VERSION} {precision} threads {threads} {processor()}"
            blobs = Blobs(options.cache_dir, key)
        try:
            runtime = OpenVinoClassifier(
                graph, default=archive.info().methods[0].name, precision=precision, threads=threads, blobs=blobs
            )
            missed = measure(reference, runtime).refusal()
        except Exception as error:
            missed = _said(error)
        if missed is None:
            return runtime
        reasons.append(f"{precision}: {missed}")
    return None


def _precisions(archive: Archive, wanted: str, reasons: list[str]) -> Iterator[str]:
    """What to try, in order."""
    from saaa.runtime.compiled import has_bf16

    allowed = allowed_precisions(archive)
    if wanted in (AUTO, BF16):
        if BF16 in allowed and has_bf16():
            yield BF16
        elif wanted == BF16:
            reasons.append(
                "bf16: this processor has no units for it" if BF16 in allowed else "bf16: the archive does not allow it"
            )
    if FP32 in allowed:
        yield FP32
    else:
        reasons.append("fp32: the archive does not allow it")


def _said(error: Exception) -> str:
    """The first line that tells something."""
    if isinstance(error, SaaaError):
        return error.message
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("Exception from")), type(error).__name__)[:300]
