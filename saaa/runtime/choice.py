"""Choose what executes a model: the compiled graph where it may be had and answers right, torch otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from saaa.archive import PARITY, Archive
from saaa.errors import SaaaError
from saaa.runtime.base import ClassifierRuntime
from saaa.runtime.blobs import Blobs
from saaa.runtime.fingerprint import processor
from saaa.runtime.graph import Graph, allowed_precisions
from saaa.runtime.options import AUTO, BF16, FP32, OPENVINO, TORCH, RuntimeOptions
from saaa.runtime.parity import Reference, measure

_log = logging.getLogger(__name__)


class Named(Protocol):
    """Anything that computes."""

    name: str
    """With version and precision."""


T = TypeVar("T", bound=Named)
Open = Callable[[Graph, str, Blobs | None], tuple[T, str | None]]
"""Compiles a graph at a precision, and says why its answers may not be used; None if they may."""


@dataclass(frozen=True, kw_only=True)
class Choice(Generic[T]):
    """What was chosen, and what was not."""

    compiled: T | None
    """None: torch does it all."""
    refused: str = ""
    """Why something faster, or what was asked for, was not taken; "" where nothing was refused."""


def choose(archive: Archive, options: RuntimeOptions, threads: int | None) -> Choice[ClassifierRuntime]:
    """As `choose_checked`, of a classifier: its graph must answer as the eager model's answers in the archive."""

    def open_classifier(graph: Graph, precision: str, blobs: Blobs | None) -> tuple[ClassifierRuntime, str | None]:
        from saaa.runtime.compiled import OpenVinoClassifier

        default = archive.info().methods[0].name
        runtime = OpenVinoClassifier(graph, default=default, precision=precision, threads=threads, blobs=blobs)
        return runtime, measure(Reference.unpack(archive.graph[PARITY]), runtime).refusal()

    return choose_checked(archive, options, threads, open_classifier)


def choose_checked(archive: Archive, options: RuntimeOptions, threads: int | None, opened: Open[T]) -> Choice[T]:
    """Compile the archive's graph and repeat the check against the eager model's answers that the archive keeps.

    Never raises: what fails is refused, with the reason in `Choice.refused` and in the log.

    Args:
        archive: of any kind.
        options: what is wanted.
        threads: for one batch; None is one a processor.
        opened: compiles and checks; may raise anything.
    """
    if options.runtime == TORCH or (options.runtime == AUTO and not archive.graph):
        return Choice(compiled=None)
    reasons: list[str] = []
    compiled = None
    try:
        compiled = _compiled(archive, options, threads, opened, reasons)
    except ImportError as error:
        reasons.append(f"openvino is not usable here ({error})")
    except Exception as error:
        reasons.append(_said(error))
    refused = "; ".join(reasons)
    if refused:
        _log.warning("%s %s: %s: %s", archive.name, archive.version, compiled.name if compiled else TORCH, refused)
    return Choice(compiled=compiled, refused=refused)


def _compiled(
    archive: Archive, options: RuntimeOptions, threads: int | None, opened: Open[T], reasons: list[str]
) -> T | None:
    """The first precision that compiles and answers right; `reasons` gets those of the others."""
    graph = Graph.of(archive)
    if graph is None:
        reasons.append(f"the archive holds no {OPENVINO} graph")
        return None
    from saaa.runtime.engine import VERSION  # openvino is an extra

    for precision in _precisions(archive, options.precision, reasons):
        blobs = None
        if options.cache_dir is not None:
            key = f"{archive.digest} openvino {VERSION} {precision} threads {threads} {processor()}"
            blobs = Blobs(options.cache_dir, key)
        try:
            runtime, missed = opened(graph, precision, blobs)
        except Exception as error:
            missed = _said(error)
        if missed is None:
            return runtime
        reasons.append(f"{precision}: {missed}")
    return None


def _precisions(archive: Archive, wanted: str, reasons: list[str]) -> Iterator[str]:
    """What to try, in order."""
    from saaa.runtime.engine import has_bf16

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
