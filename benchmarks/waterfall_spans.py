"""One request's spans as they come from client, facade and worker, and what passes between them.

The spans are OpenTelemetry's own. What lies between two of them, such as the wait in a lane, has no span: it is a
segment, from where one thing ends or begins to where the next does. A request's segments follow each other without gap
or overlap, so they add up to what the client waited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.otlp_collector import Told

CLIENT, CALL, DECODE, CLASSIFY = "client", "saaa.v1.AnalysisService/Analyze", "decode", "classify"
BATCH, HANDLER, COMPUTE, PACK = "batch", "handler", "compute", "pack"
PROPOSE = "propose"
SPANS = (CLIENT, CALL, DECODE, CLASSIFY, BATCH, HANDLER, COMPUTE, PACK)
"""Those of every prediction, the outer ones first; an explained one without a graph also has `PROPOSE`."""


@dataclass(frozen=True)
class Segment:
    """A piece of a request's time.

    Args:
        name: what passes.
        start: seconds after the client began.
        seconds: how long; a few microseconds below zero at most, where two clocks' readings cross.
    """

    name: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Request:
    """One traced request.

    Args:
        spans: one of each of `SPANS`, and `PROPOSE` where it was made.
    """

    spans: dict[str, Told]

    @property
    def seconds(self) -> float:
        """What the client waited."""
        return self.spans[CLIENT].seconds

    def bars(self) -> list[Segment]:
        """The spans, from the client's beginning on."""
        begin = self.spans[CLIENT].start_s
        return [Segment(name, span.start_s - begin, span.seconds) for name, span in self.spans.items()]

    def segments(self) -> list[Segment]:
        """All of the client's time in pieces, one after the other."""
        start = {name: span.start_s for name, span in self.spans.items()}
        end = {name: span.start_s + span.seconds for name, span in self.spans.items()}
        borders = [
            ("client to facade: gRPC, reading the message", start[CALL]),
            ("facade: checks, plan, admission", start[DECODE]),
            ("facade: decode the image, fit it to the model", end[DECODE]),
            ("facade: wait in the lane for a batch", start[BATCH]),
            ("facade to worker: packing, TorchServe's front", start[HANDLER]),
            ("worker: until the model begins", start[COMPUTE]),
            ("worker: the model", end[COMPUTE]),
            ("worker: pack the results", end[HANDLER]),
            ("worker to facade: TorchServe's front, unpacking", end[BATCH]),
            *([("facade: propose a graph from the map", end[PROPOSE])] if PROPOSE in end else []),
            ("facade: the typed answer", end[CALL]),
            ("facade to client: gRPC, reading the message", end[CLIENT]),
        ]
        found, at = [], start[CLIENT]
        for name, border in borders:
            found.append(Segment(name, at - start[CLIENT], border - at))
            at = border
        return found


def requests_of(spans: Iterable[Told]) -> Iterator[Request]:
    """The whole requests among what a collector was told, in the order of their beginning.

    A batch that serves several calls lies in the first one's trace and links to the others: it is part of them all.
    Spans of a name that a request has not once, as where its batch was sent again, leave the request out.
    """
    spans = list(spans)
    below: dict[str, list[Told]] = {}
    for span in spans:
        for parent in {span.parent, *span.links}:
            below.setdefault(parent, []).append(span)
    for client in spans:
        if client.name != CLIENT:
            continue
        found, level = [client], [client]
        while level:
            level = [span for parent in level for span in below.get(parent.span, [])]
            found += level
        by_name = {span.name: span for span in found}
        if len(found) == len(by_name) and by_name.keys() - {PROPOSE} == set(SPANS):
            yield Request({name: by_name[name] for name in (*SPANS, PROPOSE) if name in by_name})


def median_request(requests: Sequence[Request]) -> Request:
    """The one that took as long as the middle one, of 1 or more."""
    return sorted(requests, key=lambda request: request.seconds)[(len(requests) - 1) // 2]
