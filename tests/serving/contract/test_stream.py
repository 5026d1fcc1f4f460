"""Streams over real gRPC: order, errors of items, bounded work, waiting for room, leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from saaa.v1 import analysis_pb2 as pb
from saaa.work import ItemResult, WorkBatch
from serving.interceptors import base
from serving.settings import LaneSettings, RequestLimits
from tests.serving.pixel_backend import Caller, PixelBackend, calling, photo, refusal

PREDICT = [pb.OUTPUT_PREDICTIONS]


def item(name: object, image: bytes | None = None, **fields: Any) -> pb.AnalyzeStreamRequest:
    asked = pb.AnalyzeRequest(image=photo() if image is None else image, outputs=PREDICT, **fields)
    return pb.AnalyzeStreamRequest(item_id=str(name), request=asked)


async def ask(caller: Caller, *items: pb.AnalyzeStreamRequest, timeout: float = 20) -> dict[str, Any]:
    stream = caller.stub.AnalyzeStream(iter(items), timeout=timeout)
    return {answer.item_id: answer async for answer in stream}


async def test_every_item_is_answered_as_analyze_would() -> None:
    async with calling(PixelBackend()) as caller:
        colours = {"r": (200, 20, 20), "g": (20, 200, 20), "b": (20, 20, 200)}
        answers = await ask(caller, *(item(name, photo(colour)) for name, colour in colours.items()))
        best = {name: answer.response.predictions[0].label for name, answer in answers.items()}
        assert best == {"r": "red", "g": "green", "b": "blue"}
        alone = await caller.analyze(photo(colours["g"]), outputs=PREDICT)
        assert answers["g"].response.predictions == alone.predictions
        ids = {answer.response.request_id for answer in answers.values()}
        assert len(ids) == 3
        assert (await ask(caller, item("x", request_id="mine")))["x"].response.request_id == "mine"
        assert await ask(caller) == {}


async def test_a_bad_item_fails_alone_with_the_status_of_analyze() -> None:
    async with calling(PixelBackend()) as caller:
        no_model = item("model", classifier=pb.ModelSelector(name="nobody"))
        answers = await ask(
            caller, item(1), item("bytes", b"no picture"), no_model, pb.AnalyzeStreamRequest(item_id="empty"), item(2)
        )
        assert [name for name, answer in answers.items() if answer.HasField("response")] == ["1", "2"]
        codes = {name: answer.error.code for name, answer in answers.items() if answer.HasField("error")}
        invalid, unknown = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.NOT_FOUND.value[0]
        assert codes == {"bytes": invalid, "model": unknown, "empty": invalid}
        alone = await refusal(caller.analyze(b"no picture", outputs=PREDICT))
        error = answers["bytes"].error
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert error.details[0].Unpack(info)
        assert error.details[1].Unpack(bad)
        assert (error.message, info.reason) == (alone.text, alone.reason)
        assert {entry.field: entry.description for entry in bad.field_violations} == alone.fields


async def test_a_failure_that_nobody_foresaw_is_an_incident_of_its_item() -> None:
    backend = PixelBackend()
    backend.broken = ZeroDivisionError("secret")
    async with calling(backend) as caller:
        error = (await ask(caller, item(1)))["1"].error
        assert error.code == grpc.StatusCode.INTERNAL.value[0]
        assert "secret" not in str(error)


class Gate(PixelBackend):
    """Holds back pictures that are mostly red until told."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        if batch.pixels[..., 0].mean() > batch.pixels[..., 2].mean():
            await self.open.wait()
        return await super().run(batch, timeout=timeout)


ONE_BY_ONE = LaneSettings(max_batch=1, max_in_flight=4, first_estimate_s=0.001)


def _all(call: Any) -> Iterator[bytes]:
    with contextlib.suppress(grpc.RpcError):
        yield from call


async def test_a_message_that_cannot_be_read_ends_the_stream_after_the_answers_before_it() -> None:
    def ask_again_and_again(address: str) -> None:
        # The answer and the end of the call must never get into each other's way.
        with grpc.insecure_channel(address) as channel:
            method = channel.stream_stream("/saaa.v1.AnalysisService/AnalyzeStream")
            for _ in range(200):
                call = method(iter((b"", b"\xff")), timeout=20)
                (code,) = (pb.AnalyzeStreamResponse.FromString(answer).error.code for answer in _all(call))
                assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
                assert call.code() is grpc.StatusCode.INVALID_ARGUMENT

    async with calling(PixelBackend()) as caller:
        await asyncio.to_thread(ask_again_and_again, caller.facade.address)


async def test_answers_come_as_they_are_done_not_as_they_were_asked() -> None:
    backend = Gate()
    async with calling(backend, predict=ONE_BY_ONE) as caller:
        stream = caller.stub.AnalyzeStream(iter([item("slow", photo((200, 0, 0))), item("fast", photo((0, 0, 200)))]))
        assert (await stream.read()).item_id == "fast"
        backend.open.set()
        assert (await stream.read()).item_id == "slow"
        assert await stream.read() is grpc.aio.EOF


async def test_no_more_is_read_than_may_be_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Gate()
    limits = RequestLimits(max_stream_in_flight=3)
    # What gRPC itself takes off the wire ahead of reading is its own affair: read is what the service has taken.
    taken, take = 0, base._taken

    async def counted(call: base.Call) -> None:
        nonlocal taken
        taken += 1
        await take(call)

    monkeypatch.setattr(base, "_taken", counted)
    async with calling(backend, predict=ONE_BY_ONE, limits=limits) as caller:
        stream = caller.stub.AnalyzeStream(iter([item(number) for number in range(40)]), timeout=30)
        lanes = caller.facade.analysis.lanes.values()

        def at_work() -> int:
            return sum(lane.in_flight + lane.waiting for lane in lanes)

        async with asyncio.timeout(20):
            while at_work() < 3:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert at_work() == taken == 3
        backend.open.set()
        answered = [answer.item_id async for answer in stream]
        assert sorted(answered, key=int) == [str(number) for number in range(40)]
        assert taken == 40


async def test_a_caller_who_takes_no_answers_holds_up_his_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RequestLimits(max_stream_in_flight=2)
    # How many answers gRPC takes before it makes the service wait is its own affair: held are those it has not taken.
    held: list[int] = []
    take = base._taken

    async def counted(call: base.Call) -> None:
        await take(call)
        held.append(call.received - call.sent)

    monkeypatch.setattr(base, "_taken", counted)
    async with calling(PixelBackend(), limits=limits) as caller:
        # An echoed id makes the answers large.
        stream = caller.stub.AnalyzeStream((item(f"{number}-" + "x" * 2**20) for number in range(300)), timeout=60)
        read = 0
        async with asyncio.timeout(30):
            while not held or read < len(held):
                read = len(held)
                await asyncio.sleep(1.0)
        assert max(held) == 2
        assert read < 300
        assert (await caller.analyze(outputs=PREDICT)).predictions
        stream.cancel()


async def test_a_caller_who_goes_while_answers_wait_for_him_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    async with calling(PixelBackend(), limits=RequestLimits(max_stream_in_flight=2)) as caller:
        for _ in range(3):
            stream = caller.stub.AnalyzeStream(item(f"{number}-" + "x" * 2**20) for number in range(300))
            await asyncio.sleep(1.0)
            stream.cancel()
            await asyncio.sleep(0.2)
        assert (await caller.analyze(outputs=PREDICT)).predictions
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_full_lane_is_waited_for() -> None:
    backend = PixelBackend()
    backend.seconds = 0.02
    # One waits at most: single calls at once are refused, items of a stream are not.
    narrow = LaneSettings(max_batch=1, max_waiting=1, first_estimate_s=0.02)
    async with calling(backend, predict=narrow) as caller:
        calls = [caller.analyze(outputs=PREDICT) for _ in range(10)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
        answers = await ask(caller, *map(item, range(20)))
        assert all(answer.HasField("response") for answer in answers.values())
        assert len(answers) == 20


async def test_the_streams_deadline_ends_the_waiting() -> None:
    backend = PixelBackend()
    backend.seconds = 0.3
    narrow = LaneSettings(max_batch=1, max_waiting=1, first_estimate_s=0.3)
    async with calling(backend, predict=narrow) as caller:
        stream = caller.stub.AnalyzeStream(iter(map(item, range(30))), timeout=3)
        answered = 0
        codes = set()
        try:
            async for answer in stream:
                answered += answer.HasField("response")
                codes.add(answer.error.code)
        except grpc.aio.AioRpcError as error:
            codes.add(error.code().value[0])
    # What could be answered in time was; the rest was refused, or the deadline came first.
    assert 1 <= answered <= 10
    refused = {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}
    assert codes - {0} <= refused
    assert codes & refused


async def test_leaving_cancels_what_is_at_work() -> None:
    backend = Gate()
    async with calling(backend, predict=LaneSettings(max_batch=1)) as caller:
        stream = caller.stub.AnalyzeStream(iter([item(number, photo((200, 0, 0))) for number in range(6)]))
        lanes = caller.facade.analysis.lanes.values()
        async with asyncio.timeout(5):
            while sum(lane.waiting for lane in lanes) < 5:
                await asyncio.sleep(0.01)
            stream.cancel()
            while sum(lane.waiting for lane in lanes):
                await asyncio.sleep(0.01)
        backend.open.set()
        assert (await caller.analyze(outputs=PREDICT)).predictions
        # Only the batch that was at the backend, and the last call's.
        assert len(backend.batches) == 2


async def test_one_item_waits_no_longer_than_any_answer_may() -> None:
    backend = Gate()
    async with calling(backend, predict=ONE_BY_ONE, max_deadline_s=1.5) as caller:
        stream = caller.stub.AnalyzeStream(iter([item("held", photo((200, 0, 0))), item("free", photo((0, 0, 200)))]))
        answers = {answer.item_id: answer async for answer in stream}
        assert answers["free"].HasField("response")
        assert answers["held"].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@pytest.mark.parametrize("most", [1, 2])
async def test_a_stream_longer_than_its_places(most: int) -> None:
    async with calling(PixelBackend(), limits=RequestLimits(max_stream_in_flight=most)) as caller:
        assert len(await ask(caller, *map(item, range(25)))) == 25
