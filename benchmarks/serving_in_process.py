"""The model called in its own process, for `benchmarks.serving`: no server at all.

Reads "CONCURRENCY CALLS WORKERS THREADS" a line, makes so many calls from so many callers to so many worker threads,
each with so many of torch's, and answers with one JSON list of seconds a call.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmarks.serving_model import Model, told


def main() -> None:
    """Answer until the input ends."""
    options = told()
    model = Model(options.archive, options.threads)
    jpegs = [path.read_bytes() for path in sorted(Path(options.folder).glob("*.jpg"))]
    print(json.dumps([json.loads(model.answers([jpeg])[0]) for jpeg in jpegs]), flush=True)
    for line in sys.stdin:
        concurrency, calls, workers, model.threads = map(int, line.split())
        with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(concurrency) as callers:
            timed = partial(_timed, pool, model)
            print(json.dumps(list(callers.map(timed, islice(cycle(jpegs), calls)))), flush=True)


def _timed(workers: ThreadPoolExecutor, model: Model, jpeg: bytes) -> float:
    start = time.perf_counter()
    workers.submit(model.answers, [jpeg]).result()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
