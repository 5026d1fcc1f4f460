"""Batches of captions, put together while the steps before them are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from training.ega.batches import Batch, CaptionSource

AHEAD = 2
"""Batches that a thread makes ahead, which bridges uneven ones."""


def batches(
    captions: CaptionSource, rows: Sequence[Tensor], device: torch.device, workers: int
) -> Generator[Batch | None]:
    """The batches of `rows`, in their order.

    Args:
        captions: what to read.
        rows: captions of each batch; a process may have none of an epoch's last batch, then None is given.
        device: where they are wanted.
        workers: threads that make them ahead; 0 makes each when it is asked for. The batches are the same.
    """

    def make(part: Tensor) -> Batch | None:
        return captions.batch(part, device) if len(part) else None

    if not workers:
        yield from map(make, rows)
        return
    # One thread each: their operations are many and small.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        parts = iter(rows)
        coming: deque[Future[Batch | None]] = deque(pool.submit(make, part) for part in islice(parts, AHEAD * workers))
        while coming:
            batch = coming.popleft().result()
            coming.extend(pool.submit(make, part) for part in islice(parts, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
