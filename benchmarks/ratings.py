"""How many ratings a second a facade acknowledges, each on the disk before it is answered.

    python -m benchmarks.ratings [--seconds 5]

A facade (`saaa serve --ratings`, no backend behind it) and its callers in threads of one other process; each caller
sends its next rating when the last one is acknowledged: a map of 14 x 14 values, a graph of two objects, no image. The
row of one caller is bounded by the disk and the call itself; with more, ratings share a write. For comparison, what the
disk does: writes of one rating's size to a file, each flushed, one after the other. The last line is the table as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import tyro

from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2 as feedback
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub

CLIENTS = (1, 16)
WARM_UP_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """How long to measure, and where."""

    seconds: float = 5.0
    """Of each row."""
    folder: Path = Path("build/bench")
    """On the disk that is measured; made when absent."""


def main(config: Ratings) -> None:
    """Print the table."""
    config.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        folder = Path(name)
        result: dict[str, float] = {"flushes_per_s": flushes(folder / "flushed", len(rating("x").SerializeToString()))}
        command = "serve --backend_address 127.0.0.1:1 --port 0 --ratings"
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.commands.cli", *command.split(), str(folder / "ratings.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[2]
            measured(address, "warm", 1, WARM_UP_S)
            print(f"\n{'callers':<10}{'ratings/s':>12}{'median ms':>12}{'p95 ms':>12}")
            for clients in CLIENTS:
                times, seconds = measured(address, "timed", clients, config.seconds)
                rate, median = len(times) / seconds, statistics.median(times) * 1000
                p95 = statistics.quantiles(times, n=20)[-1] * 1000
                print(f"{clients:<10}{rate:12.0f}{median:12.1f}{p95:12.1f}")
                result |= {f"ratings_per_s_{clients}": rate, f"median_ms_{clients}": median, f"p95_ms_{clients}": p95}
        finally:
            process.terminate()
            process.wait(30)
    print(f"flushed writes of the same size, one after the other: {result['flushes_per_s']:.0f} a second")
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))


def rating(request_id: str) -> feedback.RecordRatingRequest:
    """One valid rating."""
    lamp = pb.SceneObject(id=1, name="lamp", attributes=["red"], box=pb.Box(x=10, y=10, width=60, height=80))
    table = pb.SceneObject(id=2, name="table", box=pb.Box(x=0, y=90, width=200, height=100))
    model = pb.ModelProvenance(name="scenes", version="1", archive_sha256="ab" * 32, parameters={"method": "layer_lrp"})
    return feedback.RecordRatingRequest(
        request_id=request_id,
        annotator="benchmark",
        about=feedback.RatedAnalysis(
            provenance=pb.Provenance(classifier=model, image_sha256="cd" * 32),
            image_width=224,
            image_height=224,
            attribution=pb.Attribution(
                target=pb.AttributionTarget(class_prediction=pb.Prediction(label="kitchen", probability=0.9)),
                method="layer_lrp",
                grid=pb.Grid(height=14, width=14, values=[value / 197 for value in range(196)]),
                region=pb.Region(width=224, height=224),
            ),
            graph=pb.SceneGraph(
                objects=[lamp, table], relationships=[pb.Relationship(id=1, subject_id=1, object_id=2, name="on")]
            ),
            graph_source=pb.GRAPH_SOURCE_REQUEST,
        ),
        relevance=feedback.RelevanceRating(
            content_type=pb.NODE_KIND_OBJECT, content_description="a red lamp", relevance=4
        ),
    )


def measured(address: str, name: str, clients: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of every acknowledged rating, and how long all of it took."""
    times: list[float] = []
    threads = [
        threading.Thread(target=_send, args=(address, f"{name}.{clients}.{number}", seconds, times))
        for number in range(clients)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - start


def _send(address: str, prefix: str, seconds: float, times: list[float]) -> None:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
        end, number = time.perf_counter() + seconds, 0
        while (start := time.perf_counter()) < end:
            stub.RecordRating(rating(f"{prefix}.{number}"), timeout=60)
            number += 1
            times.append(time.perf_counter() - start)


def flushes(path: Path, size: int, seconds: float = 1.0) -> float:
    """Flushed appends of `size` bytes a second."""
    count, data = 0, os.urandom(size)
    with path.open("wb", buffering=0) as file:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            file.write(data)
            os.fsync(file.fileno())
            count += 1
        return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main(tyro.cli(Ratings, prog="python -m benchmarks.ratings", description=__doc__))
