"""Stopping by signal."""

from __future__ import annotations

import os
import signal
import time

import pytest

from training.stopping import Stopped, graceful_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_flag_and_its_repeats_change_nothing(number: int) -> None:
    before = signal.getsignal(number)
    with graceful_stop() as stop:
        assert not stop
        for _ in range(3):  # from the terminal, from torchrun
            os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert signal.getsignal(number) is before


def test_a_later_interrupt_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.stopping.SAME_REQUEST_S", 0.05)
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stopped_is_an_interrupt_with_its_signal() -> None:
    with pytest.raises(KeyboardInterrupt, match="go on by --resume") as caught:
        raise Stopped("go on by --resume", signal.SIGTERM)
    assert isinstance(caught.value, Stopped)
    assert caught.value.signal == signal.SIGTERM
