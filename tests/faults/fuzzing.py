"""Coverage-guided fuzzing of what reads strangers' bytes: `python -m tests.faults.fuzzing images|graphs [libFuzzer]`.

Ends with code 0 after `-runs=N` inputs; anything but an answer or a refusal is a crash, which libFuzzer reports with
the input that made it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "saaa", "serving"], enable_loader_override=False):
    from google.protobuf.message import DecodeError

    from saaa.errors import InvalidInput
    from saaa.images import ImageRejected, decode, read_header
    from saaa.scene_graph import SceneGraph
    from saaa.v1 import analysis_pb2 as pb
    from serving.contract.convert import read_analyze_request, read_graph
    from serving.settings import RequestLimits

from tests.faults.hostile import SEEDS
from tests.saaa.test_scene_graph import REGION
from tests.serving.contract.test_feedback import GRAPH

PIXELS = 2**18
LIMITS = RequestLimits()


def images(data: bytes) -> None:
    """The header and the picture agree, or one of them is refused."""
    try:
        header = read_header(data, max_pixels=PIXELS)
        picture = decode(data, max_pixels=PIXELS)
    except ImageRejected:
        return
    assert picture.shape == (header.height, header.width, 3)


def graphs(data: bytes) -> None:
    """As a message of the contract, as a whole request, and as JSON."""
    try:
        message = pb.SceneGraph.FromString(data)
    except DecodeError:
        pass
    else:
        faults: list[InvalidInput] = []
        graph = read_graph(message, LIMITS, faults)
        assert (graph is None) == bool(faults)
        if graph is not None:
            _use(graph)
        asked = read_analyze_request(pb.AnalyzeRequest(graph=message, image=data), LIMITS)
        assert asked.request_id
    try:
        region = json.loads(data)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(InvalidInput):
        _use(SceneGraph.from_region(region))


def _use(graph: SceneGraph) -> None:
    assert SceneGraph.from_region(graph.to_region()) == graph
    assert 1 <= len(graph.role_graph(10)) <= 10


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "images": (images, SEEDS),
    "graphs": (graphs, [GRAPH.SerializeToString(), json.dumps(REGION).encode()]),
}


def main() -> None:
    """Fuzz one target, from its seeds."""
    name, *options = sys.argv[1:]
    target, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
