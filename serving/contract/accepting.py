"""The word that a call which sends many messages was let in."""

from __future__ import annotations

from typing import Any

import grpc

ACCEPTED = ("accepted", "1")
"""Of the initial metadata of AnalyzeStream and AnalyzeUpload (analysis.proto)."""


async def accept(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Tell the client to send on.

    One that sends sooner may not learn why its call was refused: a call that ends while its client writes loses its
    status in some of gRPC's libraries.
    """
    await context.send_initial_metadata((ACCEPTED,))
