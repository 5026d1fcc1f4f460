"""What processes agree on at a step, and how a run ends early."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.training.several import together
from training.agreement import Agreed, agree, diverged, save_due, stopped
from training.distributed import World, world
from training.stopping import Stop


def asked(number: int | None) -> Stop:
    stop = Stop()
    stop.signal = number
    return stop


def test_alone() -> None:
    assert agree(World(), Stop(), loss=2.5) == Agreed(loss=2.5, diverged=False, save=False, signal=None)
    assert agree(World(), asked(signal.SIGINT), due=True) == Agreed(0.0, False, True, signal.SIGINT)
    assert agree(World(), Stop(), loss=1.0, finite=False).diverged
    for loss in (math.nan, math.inf):
        assert agree(World(), Stop(), loss=loss).diverged


def test_what_one_process_sees_all_know(tmp_path: Path) -> None:
    """The second of two wants to save nothing, was asked to stop, and its loss is not finite at the third step."""

    def work(url: str) -> list[Agreed]:
        with world("cpu", url) as own:
            second = own.rank == 1
            return [
                agree(own, Stop(), loss=1.0 + own.rank, due=own.main),
                agree(own, asked(signal.SIGTERM if second else None)),
                agree(own, Stop(), loss=math.inf if second else 1.0),
                agree(own, Stop(), finite=not second),
            ]

    first, second = together(2, work, tmp_path / "meet")
    assert first == second
    assert first == [
        Agreed(3.0, False, True, None),
        Agreed(0.0, False, False, signal.SIGTERM),
        Agreed(math.inf, True, False, None),
        Agreed(0.0, True, False, None),
    ]


def test_saving_is_due_after_so_many_minutes_on_the_main_process() -> None:
    now = time.monotonic()
    assert save_due(World(), 1, now - 61)
    assert not save_due(World(), 1, now - 50)
    assert not save_due(World(), 0, now - 1e6)
    assert not save_due(World(1, 2), 1, now - 61)


def test_the_message_of_a_stop_says_how_to_go_on(tmp_path: Path) -> None:
    end = stopped(tmp_path, signal.SIGTERM)
    assert str(end) == f"stopped; continue with --resume {tmp_path / 'last.pt'}"
    assert end.signal == signal.SIGTERM


def test_divergence_is_told_alike_by_all_and_written_once(tmp_path: Path) -> None:
    (tmp_path / "last.pt").touch()

    def work(url: str) -> str:
        with world("cpu", url) as own:

            def suspects(by_loss: bool) -> list[Any]:
                assert by_loss
                return [f"of {own.rank}"] if os.environ["RANK"] == "1" else []

            error = diverged(
                own,
                tmp_path,
                epoch=2,
                step=3,
                agreed=math.nan,
                finite=own.main,
                what="things",
                suspects=suspects,
                advice="Lower it.",
            )
            return error.message

    first, second = together(2, work, tmp_path / "meet")
    assert first == second
    assert first.startswith("The loss became nan in epoch 2, step 3; ")
    assert first.endswith("lists the things. Lower it. " + f"{tmp_path / 'last.pt'} is from before.")
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found == {"epoch": 2, "step": 3, "things": {"0": [], "1": ["of 1"]}}


def test_a_gradient_alone_suspects_everything(tmp_path: Path) -> None:
    told: list[bool] = []

    def suspects(by_loss: bool) -> list[Any]:
        told.append(by_loss)
        return []

    error = diverged(
        World(), tmp_path, epoch=1, step=1, agreed=1.0, finite=True, what="images", suspects=suspects, advice="Stop."
    )
    assert told == [False]
    assert error.message == (
        f"The gradient became infinite in epoch 1, step 1; {tmp_path / 'nonfinite.json'} lists the images. Stop."
    )
