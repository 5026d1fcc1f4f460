"""Many images on one call: what is asked, what came of each, and the book that both clients keep of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from saaa.client import convert
from saaa.client.errors import RequestInvalid, RpcFailed
from saaa.client.request import AnalyzeOptions, Image, analyze_request, check_options
from saaa.client.results import Analysis
from saaa.client.upload import must_upload
from saaa.v1 import analysis_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Item:
    """One of many images."""

    image: Image
    """The encoded bytes, or a path to read."""
    graph: Mapping[str, Any] | None = None
    """Scene graph as published region JSON; None lets the service propose one."""
    key: Any = None
    """Whatever the caller knows it by; not sent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of one item: an analysis or an error, never both."""

    item: Item
    analysis: Analysis | None = None
    error: RpcFailed | RequestInvalid | OSError | None = None
    """The service's refusal, a value that cannot be sent, or a file that cannot be read."""


class Exchange:
    """The book of one stream: what was sent, what failed before it was, what must be uploaded instead.

    Args:
        options: of all items.

    Raises:
        TypeError: an unknown option.
    """

    def __init__(self, options: AnalyzeOptions) -> None:
        check_options(options)
        self._options = options
        self._open: dict[str, Item] = {}
        self._count = 0
        self.unsent: deque[Outcome] = deque()
        """Items that could not be sent."""
        self.large: deque[Item] = deque()
        """Items that are too large for a message."""
        self.broken: BaseException | None = None
        """What the caller's own items raised while they were read."""

    def ask(self, item: Item | Image) -> pb.AnalyzeStreamRequest | None:
        """The item's message; None when it is not for the stream."""
        item = item if isinstance(item, Item) else Item(image=item)
        try:
            request = analyze_request(item.image, item.graph, self._options)
        except (RequestInvalid, OSError) as error:
            self.unsent.append(Outcome(item=item, error=error))
            return None
        if must_upload(request):
            self.large.append(item)
            return None
        self._count += 1
        self._open[str(self._count)] = item
        return pb.AnalyzeStreamRequest(item_id=str(self._count), request=request)

    def answered(self, response: pb.AnalyzeStreamResponse) -> Outcome:
        """What came of the item that the response names."""
        item = self._open.pop(response.item_id)
        if response.HasField("response"):
            return Outcome(item=item, analysis=convert.analysis(response.response))
        return Outcome(item=item, error=RpcFailed.from_status(response.error))

    def settle(self) -> list[Outcome]:
        """What is known without the service: the items that could not be sent since the last time."""
        return [self.unsent.popleft() for _ in range(len(self.unsent))]

    def finish(self) -> list[Outcome]:
        """What is left when the stream has ended: as `settle`, and items without an answer, which a service owes."""
        text = "the stream ended without an answer to this item"
        lost = [
            Outcome(item=item, error=RpcFailed(grpc.StatusCode.INTERNAL, "NO_ANSWER", text))
            for item in self._open.values()
        ]
        return [*self.settle(), *lost]
