"""Where a request's time goes: `python -m benchmarks.waterfall`.

A client, the real facade and TorchServe with the compiled vision transformer of `benchmarks.serving` tell an
OpenTelemetry collector of every request, one request at a time, predictions and explained predictions in turn. Of each
kind the request of median duration is drawn, span by span, in `build/bench/waterfall.png`; the table has medians over
all requests, piece by piece. With `--write_doc` both also go to `docs/performance.md`. `build/bench/waterfall.json`,
which is the last line printed, has the same figures in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import grpc
import numpy as np
import tyro
from opentelemetry.trace import SpanKind

from benchmarks.documents import into_doc, machine
from benchmarks.otlp_collector import Collector, collecting
from benchmarks.serving_calls import CHANNEL, analyze
from benchmarks.serving_identity import ROOT
from benchmarks.serving_material import FAST, Material
from benchmarks.serving_stress import FACADE, Stress
from benchmarks.serving_systems import ANALYZE, Place, Setting
from benchmarks.waterfall_spans import CLIENT, PACK, Request, median_request, requests_of
from saaa.traces import open_provider, traceparent_of

KINDS = {"prediction": ["predictions"], "explained prediction": ["predictions", "attributions"]}
WARM_UP = 8
"""Requests of each kind that do not count."""
TIMEOUT_S = 60.0
DOC, COMMAND = ROOT / "docs/performance.md", "python -m benchmarks.waterfall"

Found = Mapping[str, Sequence[Request]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to ask, and where to write."""

    output: Path = Path("build/bench")
    requests: int = 200
    """Of each kind, at least 1."""
    write_doc: bool = False
    """Also put picture and table into docs/performance.md."""

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError(f"requests is {self.requests}; ask for at least 1")
        # Servers run in folders of their own and are told of files below this one.
        object.__setattr__(self, "output", self.output.resolve())


def main(options: Options) -> None:
    """Ask, draw, tell."""
    with collecting() as collector:
        found = asyncio.run(ask(options, collector))
    picture = options.output / "waterfall.png"
    draw(found, picture)
    text = told(found)
    print(text)
    if options.write_doc:
        shutil.copy(picture, DOC.with_suffix(".png"))
        into_doc(DOC, COMMAND, f"{text}\n\n![One request of each kind, span by span]({DOC.stem}.png)")
    figures = {
        name: {"requests": len(requests), "client_ms": percentiles([each.seconds for each in requests])}
        | {"segments_ms": {piece: percentiles(seconds) for piece, seconds in pieces(requests).items()}}
        for name, requests in found.items()
    }
    (options.output / "waterfall.json").write_text(json.dumps(figures) + "\n")
    print(f"\n{picture}\n{json.dumps(figures)}")


async def ask(options: Options, collector: Collector) -> Found:
    """The requests of each kind that were traced from end to end."""
    place = Place(folder=options.output / "serving", environments=options.output / "env")
    material = Material(place.folder)
    archive, jpegs = material.compiled(FAST), material.jpegs()
    running = Stress(place).running(FACADE, Setting(), archive=archive, options=("--traces", collector.endpoint))
    count = WARM_UP + options.requests
    async with running as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.ports[0]}", CHANNEL) as channel:
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(ANALYZE)
        provider = open_provider(collector.endpoint, CLIENT)
        tracer = provider.get_tracer(CLIENT)
        kind_of: dict[str, str] = {}
        for index in range(count):
            for kind, outputs in KINDS.items():
                request = analyze(jpegs[index % len(jpegs)], outputs=outputs)
                span = tracer.start_span(CLIENT, kind=SpanKind.CLIENT)
                try:
                    await call(request, metadata=(("traceparent", traceparent_of(span)),), timeout=TIMEOUT_S)
                finally:
                    span.end()
                if index >= WARM_UP:
                    kind_of[f"{span.get_span_context().trace_id:032x}"] = kind
        await asyncio.to_thread(provider.shutdown)
        await asyncio.to_thread(collector.wait_for, PACK, count * len(KINDS))
    # The facade has sent the rest as it stopped.
    requests = [each for each in requests_of(collector.spans) if each.spans[CLIENT].trace in kind_of]
    return {kind: [each for each in requests if kind_of[each.spans[CLIENT].trace] == kind] for kind in KINDS}


def pieces(requests: Sequence[Request]) -> dict[str, list[float]]:
    """Seconds of each segment, request by request."""
    found: dict[str, list[float]] = {}
    for request in requests:
        for segment in request.segments():
            found.setdefault(segment.name, []).append(segment.seconds)
    return found


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1000, 3) for share in (50, 90)}


def told(found: Found) -> str:
    """The table, in Markdown."""
    counts = " and ".join(f"{len(requests)} {kind}s" for kind, requests in found.items())
    heads = [f"{kind}, ms | 90 % within | share" for kind in found]
    lines = [
        f"Machine: {machine()}. Model: {FAST} at 224, compiled, one thread a worker. {counts}, one at a time, JPEGs of "
        "100 KB. Medians of each piece; the shares are of their sum.",
        "",
        f"| what | {' | '.join(heads)} |",
        "| --- |" + " --- |" * (3 * len(found)),
    ]
    tables = {kind: pieces(requests) for kind, requests in found.items()}
    sums = {kind: sum(map(statistics.median, table.values())) for kind, table in tables.items()}
    for name in max(tables.values(), key=len):
        cells = [_cells(table[name], sums[kind]) if name in table else "- | - | -" for kind, table in tables.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    whole = [_cells([each.seconds for each in requests]) for requests in found.values()]
    return "\n".join([*lines, f"| what the client waited | {' | '.join(whole)} |"])


def _cells(seconds: Sequence[float], whole: float | None = None) -> str:
    found = percentiles(seconds)
    share = "" if whole is None else f"{statistics.median(seconds) / whole:.0%}"
    return f"{found['p50']:.2f} | {found['p90']:.2f} | {share}"


def draw(found: Found, path: Path) -> None:
    """A panel a kind: above the spans of the median request, below what they leave between them."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(13, 5.6 * len(found)), layout="constrained")
    for panel, (kind, requests) in zip(np.ravel(sheet.subplots(len(found), 1)), found.items(), strict=True):
        request = median_request(requests)
        bars = [*((bar, "tab:blue") for bar in request.bars()), *((bar, "tab:orange") for bar in request.segments())]
        for row, (bar, colour) in enumerate(bars):
            panel.barh(row, bar.seconds * 1000, left=bar.start * 1000, color=colour, height=0.75)
            end = 1000 * (bar.start + max(bar.seconds, 0.0))
            panel.text(end, row, f" {bar.seconds * 1000:.2f}", va="center", fontsize=9)
        panel.set_yticks(range(len(bars)), [bar.name for bar, _ in bars])
        panel.axhline(len(request.bars()) - 0.5, color="0.6", linewidth=0.8)
        panel.set_ylim(len(bars) - 0.4, -0.6)
        panel.set_xlim(0, request.seconds * 1000 * 1.08)
        panel.set_xlabel("ms after the client began to send")
        panel.set_title(f"{kind}, the median of {len(requests)}: its spans (blue), its time in pieces (orange)")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=100)


if __name__ == "__main__":
    main(tyro.cli(Options, prog=COMMAND, description=__doc__))
