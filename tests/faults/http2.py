"""Just enough of HTTP/2 to misbehave: a gRPC client that does what no library would."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW = 4


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def grpc_message(message: bytes) -> bytes:
    """As gRPC puts it into DATA frames."""
    return b"\0" + struct.pack(">I", len(message)) + message


class Rude:
    """A connection that answers nothing by itself, not even a PING."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._authority = authority
        self._stream = -1

    async def begin(self, *, window: int | None = None) -> None:
        """The preface, with a window for each stream of answers."""
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW, window)
        await self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0))

    async def call(self, method: str, timeout: str = "") -> int:
        """Begin a call, without any message; gives its stream. A timeout is gRPC's, such as "500m"."""
        self._stream += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": self._authority,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        if timeout:
            fields["grpc-timeout"] = timeout
        # HPACK: each field a literal that is not indexed, shorter than 127 bytes.
        block = b"".join(
            b"\0" + bytes((len(k),)) + k.encode() + bytes((len(v),)) + v.encode() for k, v in fields.items()
        )
        await self.send(frame(HEADERS, END_HEADERS, self._stream, block))
        return self._stream

    async def send(self, data: bytes) -> None:
        """As they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def closed(self) -> None:
        """Wait until the other side has closed the connection; what it says until then is not looked at."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(2**16):
                pass


@asynccontextmanager
async def rude(address: str) -> AsyncIterator[Rude]:
    """Connect, with a small buffer for what is not read."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**10)
    try:
        yield Rude(reader, writer, address)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
