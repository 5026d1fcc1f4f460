"""An OpenAI-compatible endpoint on loopback that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the endpoint does with one request."""

    body: str = ""
    status: int = 200
    cut: bool = False
    """End the connection in the middle of the body."""
    hang: bool = False
    """Say nothing until the endpoint is closed."""


def says(text: Any) -> Answer:
    """A chat completion; anything but a text is made JSON."""
    content = text if isinstance(text, str) else json.dumps(text)
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Answer(json.dumps({"choices": [choice], "usage": {"total_tokens": 7}}))


def refuses(status: int, message: str = "out of order") -> Answer:
    """An error as such endpoints write it."""
    return Answer(json.dumps({"error": {"message": message}}), status)


@dataclass
class Endpoint:
    """What came, and where to."""

    base_url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """The Authorization headers."""


@contextmanager
def endpoint(answers: Sequence[Answer]) -> Iterator[Endpoint]:
    """Serve the answers in turn; what comes after them gets 418, which no client sends again."""
    left = list(answers)
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            served.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            served.keys.append(self.headers["Authorization"])
            answer = left.pop(0) if left else refuses(418, f"nothing is due at {self.path}")
            if answer.hang:
                closing.wait()
                return
            body = answer.body.encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) + answer.cut))
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            closing.set()
            server.shutdown()
            thread.join()
