"""Archives with a compiled graph, served: they answer as their eager twins do, by either backend."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saaa import archive as archives
from saaa.images import encode_png
from saaa.v1 import analysis_pb2 as pb
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeOptions, TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.commands.audit import audit
from serving.settings import FacadeSettings
from serving.telemetry.settings import TelemetrySettings
from tests.saaa.attribution.networks import CLASSES, network
from tests.serving.pixel_backend import Caller, calling

pytest.importorskip("openvino", reason="needs the extra openvino")

from saaa.runtime.compiling import add_graph

IN_GRAPH, OUTSIDE = "layer_lrp", "grad_cam"
COMPILED, EAGER = pb.ModelSelector(name="compiled"), pb.ModelSelector(name="eager")
CHOSEN = [CLASSES[2], CLASSES[0], CLASSES[3]]
EVERYTHING: dict[str, Any] = {"top_k": 1000, "outputs": [pb.OUTPUT_PREDICTIONS, pb.OUTPUT_ATTRIBUTIONS]}


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network twice: with a graph of its default method, and without one."""
    folder = tmp_path_factory.mktemp("models")
    eager = network("vit_token").to_archive("eager", "1", {})
    archives.write(folder / "eager.mar", eager)
    pixels = np.stack([picture(seed) for seed in range(4)])
    archives.write(folder / "compiled.mar", add_graph(replace(eager, name="compiled"), pixels))
    return folder


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of its own, and one precision on all processors."""
    monkeypatch.setenv("SAAA_CACHE_DIR", str(tmp_path / "blobs"))
    monkeypatch.setenv("SAAA_PRECISION", "fp32")


def settings(journal: Path) -> FacadeSettings:
    return FacadeSettings(port=0, probe_interval_s=0.1, telemetry=TelemetrySettings(journal=journal, metrics_port=0))


async def check_models(caller: Caller) -> None:
    listed = (await caller.stub.ListModels(pb.ListModelsRequest(), timeout=20)).models
    assert {model.name: model.execution for model in listed} == {
        "compiled": pb.Execution(runtime="openvino", precision="fp32"),
        "eager": pb.Execution(runtime="torch", precision="fp32"),
    }


async def check_twins(caller: Caller, name: str, **options: Any) -> None:
    """Ask both; the ids of the requests are the models' names before `name`."""
    image = encode_png(picture(99))
    attribution = pb.AttributionOptions(classes=CHOSEN, **options)
    ours, wanted = [
        await caller.analyze(
            image,
            timeout=120,
            request_id=f"{selector.name} {name}",
            classifier=selector,
            attribution=attribution,
            **EVERYTHING,
        )
        for selector in (COMPILED, EAGER)
    ]
    for left, right in zip(ours.predictions, wanted.predictions, strict=True):
        assert left.label == right.label
        assert left.probability == pytest.approx(right.probability, abs=1e-5)
    assert [m.target.class_prediction.label for m in ours.attributions] == CHOSEN
    for one, other in zip(ours.attributions, wanted.attributions, strict=True):
        assert one.method == other.method
        values = np.array(other.grid.values)
        np.testing.assert_allclose(one.grid.values, values, rtol=0, atol=1e-4 * np.abs(values).max())


def check_audit(journal: Path, models: Path, folder: Path, name: str) -> None:
    path = folder / "picture.png"
    path.write_bytes(encode_png(picture(99)))
    (finding,) = audit(f"compiled {name}", journal, models, [path])
    assert finding.identical, str(finding)
    assert finding.exact, finding.reasons
    (runtime,) = {
        model["runtime"]
        for entry in map(json.loads, journal.read_text().splitlines())
        if entry.get("request_id") == f"compiled {name}"
        for model in entry["models"]
    }
    assert "openvino" in runtime


async def test_the_local_backend(models: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with LocalBackend(models) as backend, calling(backend, settings(journal)) as caller:
        await check_models(caller)
        await check_twins(caller, "graph", method=IN_GRAPH)
        await check_twins(caller, "torch", method=OUTSIDE)
    assert list((tmp_path / "blobs").iterdir())
    for name in ("graph", "torch"):
        check_audit(journal, models, tmp_path, name)


def test_a_facade_that_asks_only_the_graph_needs_no_torch(models: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "compiled.mar").symlink_to(models / "compiled.mar")
    script = f"""
import asyncio, sys
from saaa.client import AsyncClient
from serving.backends.local import LocalBackend
from serving.server import Facade
from serving.settings import FacadeSettings

async def main():
    async with LocalBackend({str(tmp_path / "models")!r}) as backend:
        async with Facade(backend, FacadeSettings(port=0)) as facade, AsyncClient(facade.address) as client:
            answer = await client.analyze({encode_png(picture(1))!r}, timeout=60)
            assert answer.attributions[0].method == {IN_GRAPH!r}
            assert not {{"torch", "timm"}} & set(sys.modules)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
async def test_torchserve(models: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    options = TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)
    async with TorchServeProcess(models, options=options) as process:
        backend = TorchServeBackend(process.inference_address, process.management_address)

        async def maps_torchvision() -> bool:
            """Whether the compiled model's worker has loaded it; torch itself is loaded by TorchServe's own code."""
            (state,) = [state for state in await backend.states() if state.name == "compiled"]
            (pid,) = state.pids
            return "torchvision" in Path(f"/proc/{pid}/maps").read_text()

        async with calling(backend, settings(journal)) as caller:
            await check_models(caller)
            await check_twins(caller, "graph", method=IN_GRAPH)
            assert not await maps_torchvision()
            await check_twins(caller, "torch", method=OUTSIDE)
            assert await maps_torchvision()
    for name in ("graph", "torch"):
        await asyncio.to_thread(check_audit, journal, models, tmp_path, name)
