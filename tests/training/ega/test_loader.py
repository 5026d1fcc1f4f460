"""Batches made ahead: the same ones, in the same order."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor

from training.ega.batches import Batch, CaptionSource
from training.ega.loader import AHEAD, batches

CPU = torch.device("cpu")


class Numbers(CaptionSource):
    """Gives the rows themselves, the first ones more slowly, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()

    regions = ()

    def stored(self, regions: Tensor):  # type: ignore[no-untyped-def]
        raise AssertionError

    def names_of(self, regions: Tensor, nodes: int) -> Tensor:
        raise AssertionError

    def named_by(self, rows: Tensor, tokens: int, nodes: int) -> Tensor:
        raise AssertionError

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        self.asked.append(rows.tolist())
        self.threads.add(threading.current_thread().name)
        if rows[0] == 99:
            raise ValueError("torn")
        time.sleep(0.02 / (1 + int(rows[0])))
        return rows.tolist()  # type: ignore[return-value]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_number_are_those_asked_for(workers: int) -> None:
    source = Numbers()
    rows = [torch.tensor(part, dtype=torch.int64) for part in ([0, 1], [2], [], [3, 4], [5])]
    assert list(batches(source, rows, CPU, workers)) == [[0, 1], [2], None, [3, 4], [5]]
    main = threading.current_thread().name
    assert (main in source.threads) == (workers == 0)


def test_no_more_is_made_ahead_than_said_and_nothing_after_the_end() -> None:
    source = Numbers()
    ready = batches(source, [torch.tensor([k]) for k in range(50)], CPU, 2)
    next(ready)
    time.sleep(0.1)
    ready.close()
    count = len(source.asked)
    assert 1 <= count <= 2 * AHEAD + 1
    time.sleep(0.05)
    assert len(source.asked) == count


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_its_batch_would(workers: int) -> None:
    ready = batches(Numbers(), [torch.tensor([k]) for k in (1, 99, 2)], CPU, workers)
    assert next(ready) == [1]
    with pytest.raises(ValueError, match="torn"):
        next(ready)
