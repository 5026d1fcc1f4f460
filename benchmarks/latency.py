"""What a request costs through the facade, on the archives that `make demo` left.

Both backends are up at once and asked in turn, so that noise hits them alike. Prints medians in milliseconds, and the
requests a second that 8 callers get.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.demo import held_out_scenes
from benchmarks.steps import facade
from saaa.client import Client

CALLERS = 8
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Where the archives are and how much to ask."""

    demo: Path = Path("build/demo")
    """Output folder of the world demo."""
    rounds: int = 30
    """Requests of each kind to each backend."""


def main(config: Latency) -> None:
    """Print the table."""
    guided = [question for question in held_out_scenes(config.demo / "world") if question.graph]
    image, graph = guided[0].path.read_bytes(), guided[0].graph
    kinds: dict[str, Callable[[Client], object]] = {
        "prediction": lambda client: client.analyze(image, outputs=["predictions"]),
        "prediction + attribution": lambda client: client.analyze(image, outputs=["predictions", "attributions"]),
        "caption": lambda client: client.analyze(image, graph, outputs=["captions"]),
        "everything": lambda client: client.analyze(image, graph),
    }
    models = config.demo / "models"
    with (
        facade(models, "torchserve") as first,
        facade(models, "local") as second,
        Client(first) as torchserve,
        Client(second) as local,
    ):
        clients = {"torchserve": torchserve, "local": local}
        print(f"\n{'median ms a request':<28}" + "".join(f"{name:>12}" for name in clients))
        for kind, ask in kinds.items():
            times = measured(ask, clients, config.rounds)
            print(f"{kind:<28}" + "".join(f"{statistics.median(times[name]):12.1f}" for name in clients))
        print(f"\n{f'requests a second, {CALLERS} callers':<28}" + "".join(f"{name:>12}" for name in clients))
        for kind, ask in kinds.items():
            rates = [rate(ask, client, config.rounds * 4) for client in clients.values()]
            print(f"{kind:<28}" + "".join(f"{value:12.1f}" for value in rates))


def measured(ask: Callable[[Client], object], clients: dict[str, Client], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each request, the backends in turn."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(WARM_UP + rounds):
        for name, client in clients.items():
            start = time.perf_counter()
            ask(client)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def rate(ask: Callable[[Client], object], client: Client, requests: int) -> float:
    """Requests a second with `CALLERS` callers at once."""
    start = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda _: ask(client), range(requests)))
    return requests / (time.perf_counter() - start)


if __name__ == "__main__":
    main(tyro.cli(Latency, prog="python -m benchmarks.latency", description=__doc__))
