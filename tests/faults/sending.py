"""Sends hostile inputs to a running service, and counts what it said."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from saaa.v1 import analysis_pb2 as pb
from tests.faults.hostile import STREAM, Hostile

DEADLINE_S = 60.0
ENDLESS = "/grpc.health.v1.Health/Watch"
BAD = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "DATA_LOSS", "ABORTED"})
"""What no input may bring about in a service that is well and has time."""
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

Said = Counter[tuple[str, str]]
"""How often each kind of input had each status."""


def send(channel: grpc.Channel, given: Hostile) -> list[str]:
    """The call's status, and that of each item of a stream that has one of its own."""
    # On the wire a call with one message is a stream of one: bytes go as they are.
    call = channel.stream_stream(given.method)(iter(given.messages), timeout=DEADLINE_S)
    said = []
    try:
        for answer in call:
            if given.method == ENDLESS:
                call.cancel()
                return ["OK"]
            if given.method == STREAM:
                said.append(_NAMES[pb.AnalyzeStreamResponse.FromString(answer).error.code])
    except grpc.RpcError:
        pass
    return [*said, call.code().name]


def send_all(address: str, inputs: Iterable[Hostile], *, at_once: int = 8) -> tuple[Said, list[Hostile]]:
    """All of them, some at the same time.

    Returns:
        The counts, and what got one of `BAD`.
    """
    said: Said = Counter()
    bad: list[Hostile] = []
    left, lock = iter(inputs), threading.Lock()

    def given() -> Iterator[Hostile]:
        while True:
            with lock:
                one = next(left, None)
            if one is None:
                return
            yield one

    def sender(channel: grpc.Channel) -> None:
        for one in given():
            statuses = send(channel, one)
            with lock:
                said.update((one.kind, status) for status in statuses)
                if BAD.intersection(statuses):
                    bad.append(one)

    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel, ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(sender, channel) for _ in range(at_once)]:
            done.result()
    return said, bad


def table(said: Said) -> str:
    """A line a kind: how many had which status."""
    kinds = sorted({kind for kind, _ in said})
    lines = []
    for kind in kinds:
        counts = {status: count for (one, status), count in sorted(said.items()) if one == kind}
        lines.append(f"{kind:16} " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return "\n".join(lines)
