"""Slow, silent, vanished and too many callers: they may hurt themselves, nobody else, and nothing for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import grpc
import pytest

from saaa.v1 import analysis_pb2 as pb
from saaa.work import ItemResult, Work, WorkBatch
from serving.security.settings import SecuritySettings
from serving.settings import LaneSettings
from tests.faults.hostile import ANALYZE, STREAM
from tests.faults.http2 import DATA, END_STREAM, PREFACE, Rude, frame, grpc_message, rude
from tests.faults.load import LATE_S
from tests.serving.contract.test_stream import item
from tests.serving.pixel_backend import Caller, PixelBackend, calling, photo, refusal

PREDICT = [pb.OUTPUT_PREDICTIONS]
ASKED = pb.AnalyzeRequest(image=photo(), outputs=PREDICT).SerializeToString()
FEW = SecuritySettings(max_calls=4)


async def answered(caller: Caller) -> None:
    """Wait until there is room for a call again."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert (await caller.analyze(outputs=PREDICT)).predictions[0].label == "red"
                return
            await asyncio.sleep(0.05)


async def filled(caller: Caller, one: Rude, method: str, begun: bytes) -> None:
    """Begin calls until all places are taken: a single round could lose one to the caller who looks."""
    async with asyncio.timeout(60):
        while True:
            await one.send(frame(DATA, 0, await one.call(method), begun))
            with contextlib.suppress(AssertionError, pytest.fail.Exception):
                assert (await refusal(caller.analyze(outputs=PREDICT))).reason == "SERVICE_FULL"
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("begun", [0, 3, len(grpc_message(ASKED)) - 1])
async def test_messages_that_never_end_hold_their_places_for_a_while_only(begun: int) -> None:
    """The calls bring no deadline; the connection is alive."""
    limits = {"security": FEW, "default_deadline_s": 2.0}
    async with calling(PixelBackend(), **limits) as caller, rude(caller.facade.address) as silent:
        await silent.begin()
        await filled(caller, silent, ANALYZE, grpc_message(ASKED)[:begun])
        await answered(caller)


async def test_who_sends_no_message_is_told() -> None:
    async with calling(PixelBackend(), default_deadline_s=0.5) as caller:
        # No timeout: gRPC's client would end the call itself.
        call = caller.channel.stream_stream(ANALYZE)()
        async with asyncio.timeout(60):
            assert (await refusal(call.read())).reason == "DEADLINE_EXCEEDED"


async def test_a_slow_sender_is_answered_and_nobody_waits_for_him() -> None:
    async with calling(PixelBackend()) as caller, rude(caller.facade.address) as slow:
        await slow.begin()
        stream = await slow.call(ANALYZE)
        whole = grpc_message(ASKED)
        for start in range(0, len(whole), 4):
            await slow.send(frame(DATA, 0, stream, whole[start : start + 4]))
            if start % 40 == 0:
                assert (await caller.analyze(outputs=PREDICT)).predictions
        before = len(_batches(caller))
        await slow.send(frame(DATA, END_STREAM, stream))
        async with asyncio.timeout(60):
            while len(_batches(caller)) == before:
                await asyncio.sleep(0.01)


async def test_callers_who_take_no_answers_hold_up_nobody_and_are_forgotten() -> None:
    async with calling(PixelBackend()) as caller:
        before = len(asyncio.all_tasks())
        async with rude(caller.facade.address) as greedy:
            await greedy.begin(window=0)
            await _ask_much(greedy, 100)
            async with asyncio.timeout(60):
                while len(_batches(caller)) < 10:
                    await asyncio.sleep(0.01)
            assert (await caller.analyze(outputs=PREDICT)).predictions
        async with asyncio.timeout(60):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)
        assert (await caller.analyze(outputs=PREDICT)).predictions


@pytest.mark.faults
async def test_who_connects_and_says_nothing_is_cut_off() -> None:
    async with calling(PixelBackend()) as caller, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(rude(caller.facade.address)) for _ in range(60)]
        for number, one in enumerate(silent):
            await one.send(PREFACE[: number % 20])
        assert (await caller.analyze(outputs=PREDICT)).predictions
        async with asyncio.timeout(60):
            await asyncio.gather(*(one.closed() for one in silent))
        assert (await caller.analyze(outputs=PREDICT)).predictions


@pytest.mark.faults
async def test_a_peer_that_vanished_is_noticed_and_its_streams_end() -> None:
    """Its calls have no deadline, its connection is never closed: only that no PING is answered tells."""
    async with calling(PixelBackend(), security=FEW) as caller, rude(caller.facade.address) as gone:
        await gone.begin()
        await filled(caller, gone, STREAM, grpc_message(item(1).SerializeToString()))
        async with asyncio.timeout(240):
            await gone.closed()
        await answered(caller)


class Slow(PixelBackend):
    """Takes a fixed time for a batch, one at a time."""

    BATCH, SECONDS = 4, 0.1

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        await asyncio.sleep(self.SECONDS)
        return await super().run(batch, timeout=timeout)


async def test_of_a_flood_of_five_times_the_capacity_each_gets_its_own_answer_or_a_refusal() -> None:
    backend, deadline, seconds = Slow(), 1.0, 2.0
    lane = LaneSettings(max_batch=Slow.BATCH, max_in_flight=1, first_estimate_s=Slow.SECONDS)
    pictures = {"red": photo((200, 20, 20)), "green": photo((20, 200, 20)), "blue": photo((20, 20, 200))}
    said: Counter[str] = Counter()
    async with calling(backend, predict=lane) as caller:

        async def one(colour: str) -> None:
            try:
                async with asyncio.timeout(deadline + LATE_S):
                    answer = await caller.analyze(pictures[colour], deadline, outputs=PREDICT)
                assert answer.predictions[0].label == colour
                said["OK"] += 1
            except grpc.aio.AioRpcError as error:
                said[error.code().name] += 1

        calls = []
        pause = Slow.SECONDS / Slow.BATCH / 5
        for number in range(round(seconds / pause)):
            calls.append(asyncio.create_task(one(list(pictures)[number % 3])))
            await asyncio.sleep(pause)
        await asyncio.gather(*calls)
        assert said.keys() <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        assert said["RESOURCE_EXHAUSTED"] > said["DEADLINE_EXCEEDED"]
        assert said["OK"] > 0
        lanes = caller.facade.analysis.lanes[Work.PREDICT]
        assert lanes.waiting == lanes.in_flight == 0
        assert (await caller.analyze(outputs=PREDICT)).predictions[0].label == "red"


def _batches(caller: Caller) -> list[WorkBatch]:
    backend = caller.facade._backend
    assert isinstance(backend, PixelBackend)
    return backend.batches


async def _ask_much(one: Rude, count: int) -> None:
    for _ in range(count):
        stream = await one.call(ANALYZE)
        await one.send(frame(DATA, END_STREAM, stream, grpc_message(ASKED)))
