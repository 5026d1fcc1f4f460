"""Choose what executes a model: the compiled graph where it may be had and answers right, torch otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from saaa.archive import Archive
from saaa.runtime.blobs import Blobs
from saaa.runtime.fingerprint import processor
from saaa.runtime.graph import Graph, allowed_precisions
from saaa.runtime.options import AUTO, BF16, FP32, OPENVINO, TORCH, RuntimeOptions
from saaa.runtime.reasons import reason
from saaa.work import Execution


class Compiled(Protocol):
    """A compiled graph."""

    name: str
    """What computes, with version and precision."""
    precision: str
    """"fp32" or "bf16"."""


T = TypeVar("T", bound=Compiled)
Open = Callable[[Graph, str, Blobs | None], tuple[T, str | None]]
"""Compiles a graph at a precision, and says why its answers may not be used; None if they may."""


@dataclass(frozen=True, kw_only=True)
class Choice(Generic[T]):
    """What was chosen, and what was not."""

    compiled: T | None
    """None: torch does it all."""
    refused: str = ""
    """Why something faster, or what was asked for, was not taken; "" where nothing was refused."""

    @property
    def execution(self) -> Execution:
        """What a model says of it."""
        if self.compiled is None:
            return Execution(runtime=TORCH, precision=FP32, refused=self.refused)
        return Execution(runtime=OPENVINO, precision=self.compiled.precision, refused=self.refused)

    def engine(self, reference: str) -> str:
        """See `fingerprint`; the reference is torch's name, which computes what is outside the graph."""
        engine = reference if self.compiled is None else f"{self.compiled.name}, {reference}"
        return f"{engine} (refused {self.refused})" if self.refused else engine


def choose(archive: Archive, options: RuntimeOptions, threads: int | None, opened: Open[T]) -> Choice[T]:
    """Compile the archive's graph and repeat the check against the eager model's answers that the archive keeps.

    Never raises: what fails is refused, with the reason in `Choice.refused`.

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
        reasons.append(reason(error))
    return Choice(compiled=compiled, refused="; ".join(reasons))


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
            missed = reason(error)
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
