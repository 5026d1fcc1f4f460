"""Stopping by signal."""

from __future__ import annotations

import os
import signal

import pytest

from training.stopping import Stopped, graceful_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_a_flag_second_acts(number: int) -> None:
    before = signal.getsignal(number)
    with graceful_stop() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
        assert signal.getsignal(number) is before
    with graceful_stop():
        pass
    assert signal.getsignal(number) is before


def test_stopped_is_an_interrupt_with_its_signal() -> None:
    with pytest.raises(KeyboardInterrupt, match="go on by --resume") as caught:
        raise Stopped("go on by --resume", signal.SIGTERM)
    assert isinstance(caught.value, Stopped)
    assert caught.value.signal == signal.SIGTERM
