"""Starting and stopping."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from saaa.errors import OptionInvalid, StartFailed
from serving.server import Facade, check_free
from serving.settings import FacadeSettings, LaneSettings, RequestLimits
from tests.serving.pixel_backend import PixelBackend, calling


async def test_port_in_use_is_one_clear_error_and_the_backend_is_closed() -> None:
    backend = PixelBackend()
    async with calling(PixelBackend()) as caller:
        port = int(caller.facade.address.rpartition(":")[2])
        with pytest.raises(StartFailed, match=f"127.0.0.1:{port}.*--port"):
            async with Facade(backend, FacadeSettings(port=port)):
                pass
        with pytest.raises(StartFailed, match=str(port)):
            check_free(FacadeSettings(port=port))
        # The first one is not disturbed.
        assert (await caller.analyze()).predictions
    assert backend.closed


def test_check_of_the_port_leaves_it_free() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    for _ in range(2):
        check_free(FacadeSettings(port=port))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FacadeSettings(port=70000), "port"),
        (lambda: FacadeSettings(host=""), "host"),
        (lambda: FacadeSettings(decode_threads=0), "decode_threads"),
        (lambda: FacadeSettings(drain_s=-1), "drain_s"),
        (lambda: FacadeSettings(leave_s=-1), "leave_s"),
        (lambda: FacadeSettings(cache_bytes=-1), "cache_bytes"),
        (lambda: FacadeSettings(max_message_bytes=100), "max_message_bytes"),
        (lambda: LaneSettings(max_batch=0), "max_batch"),
        (lambda: LaneSettings(max_wait_s=0), "max_wait_s"),
        (lambda: RequestLimits(max_targets=0), "max_targets"),
    ],
)
def test_settings_are_checked_when_made(make: object, field: str) -> None:
    with pytest.raises(OptionInvalid, match=field) as wrong:
        make()  # type: ignore[operator]
    assert wrong.value.field == field


def test_serving_runs_without_torch() -> None:
    code = (
        "import sys, serving.commands.cli, serving.server, serving.commands.run, serving.commands.ask;"
        "loaded = {'torch', 'safetensors', 'timm', 'torchvision'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
