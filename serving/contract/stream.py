"""Many images on one call: bounded work in flight, answers as they finish, a failed item fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from saaa.errors import BackendUnavailable, LaneFull, SaaaError
from saaa.v1 import analysis_pb2 as pb
from serving.analysis.analysis import Analysis
from serving.contract.accepting import accept
from serving.contract.convert import read_analyze_request, write_analysis
from serving.errors import to_status, unforeseen
from serving.settings import FacadeSettings

Context = grpc.aio.ServicerContext[Any, Any]

_SHORTEST_WAIT_S = 0.02
"""A full lane is not asked again sooner than this, in seconds."""


async def answer_stream(
    requests: AsyncIterator[pb.AnalyzeStreamRequest],
    context: Context,
    analysis: Analysis,
    settings: FacadeSettings,
    stopping: asyncio.Future[None],
) -> None:
    """Read items, answer each when it is done.

    No more is read while `max_stream_in_flight` items are at work or wait for a caller who does not take its answers:
    that holds up the caller by gRPC's own flow control.

    Args:
        requests: the items.
        context: the call; answers are written to it.
        analysis: answers an item.
        settings: the bound and the deadlines.
        stopping: done when no more is to be read.

    Raises:
        BackendUnavailable: the service stops. All items that were read have their answers; others may be left.
        InvalidInput: a message is of another type; the items before it have their answers.
    """
    await accept(context)
    places = asyncio.Semaphore(settings.limits.max_stream_in_flight)
    # gRPC takes one message of a call at a time.
    writing = asyncio.Lock()

    async def work(item: pb.AnalyzeStreamRequest) -> None:
        try:
            answer = await _answer(item, context, analysis, settings)
            async with writing:
                await context.write(answer)
        finally:
            places.release()

    async def read() -> SaaaError | None:
        """What is wrong with a message that cannot be read. Raised in the group it would cancel an answer that is being
        written, and gRPC could then not end the call: the caller would wait for ever."""
        await places.acquire()
        try:
            async for item in requests:
                group.create_task(work(item))
                await places.acquire()
        except SaaaError as error:
            return error
        return None

    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            cut_short = reading.cancel()
    except BaseExceptionGroup as failures:
        # Items fail in their answers; this is the call itself, and one reason is enough.
        raise failures.exceptions[0] from None
    if cut_short:
        raise BackendUnavailable("The service is stopping; ask another one about the items without an answer.")
    if unreadable := reading.result():
        raise unreadable


async def _answer(
    item: pb.AnalyzeStreamRequest, context: Context, analysis: Analysis, settings: FacadeSettings
) -> pb.AnalyzeStreamResponse:
    answer = pb.AnalyzeStreamResponse(item_id=item.item_id)
    try:
        asked = read_analyze_request(item.request, settings.limits)
        while True:
            remaining = context.time_remaining()
            try:
                # A stream without a deadline may last; no single answer may.
                result = await analysis.analyze(asked, settings.timeout(remaining, unset=settings.max_deadline_s))
                break
            except LaneFull as full:
                wait = max(full.retry_after_s, _SHORTEST_WAIT_S)
                if remaining is not None and wait >= remaining:
                    raise
                await asyncio.sleep(wait)
        answer.response.CopyFrom(write_analysis(result))
    except SaaaError as error:
        answer.error.CopyFrom(to_status(error))
    except Exception as error:
        answer.error.CopyFrom(unforeseen(error))
    return answer
