"""Compiled classifiers: they answer as the eager ones do, and where they cannot, torch does and says so."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saaa import archive as archives
from saaa.archive import GRAPH, PARITY, Archive
from saaa.errors import ArchiveError, NotTraceable
from saaa.runtime.classifying import ClassifierRunner
from saaa.runtime.executor import Executor
from saaa.runtime.options import BF16, FP32, RuntimeOptions
from saaa.work import ExplainOptions, ItemResult, Work, WorkBatch, WorkItem
from tests.saaa.attribution.networks import network, tiny

pytest.importorskip("openvino", reason="needs the extra openvino")

from saaa.runtime import compiled, engine
from saaa.runtime.compiling import add_graph
from saaa.runtime.graph import Graph
from saaa.runtime.parity import Reference
from saaa.runtime.tracing import trace

TORCH = RuntimeOptions(runtime="torch")
EXACT = RuntimeOptions(precision=FP32)
"""What torch can be compared with to rounding, on a processor with units for bf16 too."""
needs_bf16 = pytest.mark.skipif(not engine.has_bf16(), reason="this processor has no units for bf16")
METHODS = ("layer_lrp", "gradient_x_input")
ITEMS = (WorkItem(), WorkItem(targets=(2,)), WorkItem(targets=(0, 3, 1)), WorkItem(targets=(3, 2, 1, 0, 2)))


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(size // 8, axis=1).repeat(size // 8, axis=2)


def make(name: str, methods: tuple[str, ...]) -> Archive:
    classifier = network(name)
    return add_graph(classifier.to_archive("net", "1", {}), pictures(6, classifier.config.input_size), methods)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vit") / "net.mar"
    archives.write(path, make("vit_token", METHODS))
    return path


def batch(work: Work, items: tuple[WorkItem, ...], size: int = 64, **options: Any) -> WorkBatch:
    pixels = pictures(len(items), size, seed=5)
    return WorkBatch(model="net", version="1", work=work, pixels=pixels, items=items, explain=ExplainOptions(**options))


def assert_close(made: list[ItemResult], wanted: list[ItemResult], *, rtol: float = 1e-4) -> None:
    for one, other in zip(made, wanted, strict=True):
        assert one.error is None, one.error
        assert other.probabilities is not None
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        assert [(m.target, m.method) for m in one.maps] == [(m.target, m.method) for m in other.maps]
        for left, right in zip(one.maps, other.maps, strict=True):
            np.testing.assert_allclose(left.values, right.values, atol=rtol * np.abs(right.values).max())


def check_against_torch(path: Path, methods: tuple[str, ...], size: int) -> None:
    executor = Executor.open(path, threads=1, runtime=EXACT)
    reference = Executor.open(path, threads=1, runtime=TORCH)
    assert "openvino" in executor.info.runtime
    assert executor._runner._torch is None  # type: ignore[attr-defined]
    for request in (batch(Work.PREDICT, ITEMS, size), *(batch(Work.EXPLAIN, ITEMS, size, method=m) for m in methods)):
        assert_close(executor.run(request), reference.run(request))
    assert executor._runner._torch is None  # type: ignore[attr-defined]


def test_it_answers_as_torch_does(vit: Path) -> None:
    check_against_torch(vit, ("auto", *METHODS), 64)
    card = archives.read(vit).card["runtime"]["openvino"]
    assert card["fp32"]["refused"] is None
    assert card["fp32"]["map_cosine_p1"] > 0.99999
    # Rounded to bf16, by units for it or by imitation: near, and not the same.
    assert 1e-4 < card["bf16"]["logit_gap"] < 0.5


@needs_bf16
def test_bf16_answers_nearly_as_torch_does(vit: Path) -> None:
    executor = Executor.open(vit, threads=1, runtime=RuntimeOptions())
    assert executor.info.execution.precision == BF16
    request = batch(Work.EXPLAIN, ITEMS)
    for one, other in zip(
        executor.run(request), Executor.open(vit, threads=1, runtime=TORCH).run(request), strict=True
    ):
        assert one.probabilities is not None
        assert other.probabilities is not None
        assert 0 < np.abs(one.probabilities - other.probabilities).max() < 0.02
        for left, right in zip(one.maps, other.maps, strict=True):
            assert left.target == right.target
            cosine = (left.values * right.values).sum() / np.linalg.norm(left.values) / np.linalg.norm(right.values)
            assert cosine > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("vit_token", ("cp_lrp", "attn_lrp", "grad_cam")),
        ("vit_mean", ("layer_lrp", "cp_lrp", "attn_lrp", "grad_cam", "gradient_x_input")),
        ("efficientnet", ("hires_cam", "grad_cam", "gradient_x_input")),
        ("resnet", ("hires_cam", "gradient_x_input")),
    ],
)
def test_every_gradient_method(tmp_path: Path, name: str, methods: tuple[str, ...]) -> None:
    archives.write(tmp_path / "a.mar", make(name, methods))
    check_against_torch(tmp_path / "a.mar", methods, network(name).config.input_size)


def test_an_answer_does_not_depend_on_its_neighbours(vit: Path) -> None:
    executor = Executor.open(vit, threads=1, runtime=RuntimeOptions())
    whole = batch(Work.EXPLAIN, ITEMS)
    together = executor.run(whole)
    alone = executor.run(dataclasses.replace(whole, pixels=whole.pixels[2:3], items=ITEMS[2:3]))[0]
    for left, right in zip(together[2].maps, alone.maps, strict=True):
        assert left.values.tobytes() == right.values.tobytes()


@pytest.mark.parametrize(
    "options", [{"method": "grad_cam"}, {"gamma": 0.25}, {"deletion": True}, {"method": "occlusion"}]
)
def test_what_is_not_in_the_graph_is_left_to_torch(vit: Path, options: dict[str, Any]) -> None:
    executor = Executor.open(vit, threads=1, runtime=RuntimeOptions())
    request = batch(Work.EXPLAIN, ITEMS[:2], **options)
    assert_close(executor.run(request), Executor.open(vit, threads=1, runtime=TORCH).run(request))


def test_a_worker_needs_no_torch(vit: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from saaa.runtime.executor import Executor
from saaa.runtime.options import BF16, FP32, RuntimeOptions
executor = Executor.open({str(vit)!r}, threads=1, runtime=RuntimeOptions(cache_dir=Path({str(tmp_path)!r})))
executor.warm_up()
assert "openvino" in executor.info.runtime, executor.info.runtime
assert not {{"torch", "timm"}} & set(sys.modules)
"""
    for _ in range(2):  # the second time from the blobs
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir())


def test_signals_are_still_handled_when_classifiers_have_gone(vit: Path) -> None:
    """The older one first, and one in another thread than it was made in; in a process of its own, since it may end."""
    script = f"""
import os, signal, threading
from pathlib import Path
import numpy as np
from saaa import archive as archives
from saaa.runtime.compiled import OpenVinoClassifier
from saaa.runtime.graph import Graph
graph = Graph.of(archives.read(Path({str(vit)!r})))
def make():
    made = OpenVinoClassifier(graph, default="layer_lrp", precision="fp32", threads=1)
    made.predict(np.zeros((1, 64, 64, 3), np.uint8))
    return made
def handle():
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    os.kill(os.getpid(), signal.SIGTERM)
    assert told
held = [make(), make()]
del held[0]
del held[0]
handle()
held.append(make())
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
handle()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.returncode


def test_a_process_that_traced_can_fork_one_that_differentiates() -> None:
    """In a process of its own, since it is the first backward of a process that counts."""
    script = """
import os
import torch
from saaa.runtime.tracing import trace
from tests.saaa.attribution.networks import network
trace(network("vit_token"), ("gradient_x_input",))
child = os.fork()
if child == 0:
    torch.ones((), requires_grad=True).backward()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.returncode


def test_blobs_are_used_and_damaged_ones_are_not(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RuntimeOptions(cache_dir=tmp_path)
    request = batch(Work.EXPLAIN, ITEMS[:1])
    first = Executor.open(vit, threads=1, runtime=options).run(request)
    cuts: list[tuple[str, int]] = []
    cut = compiled.OpenVinoClassifier._cut
    monkeypatch.setattr(
        compiled.OpenVinoClassifier, "_cut", lambda self, *part: (cuts.append(part), cut(self, *part))[1]
    )
    assert_close(Executor.open(vit, threads=1, runtime=options).run(request), first, rtol=0)
    assert cuts == []
    for blob in tmp_path.rglob("*.blob"):
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_close(Executor.open(vit, threads=1, runtime=options).run(request), first, rtol=0)
    assert cuts


def test_without_openvino_torch_serves(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine", "compiled"):
        monkeypatch.delitem(sys.modules, f"saaa.runtime.{name}")
    monkeypatch.setitem(sys.modules, "openvino", None)
    executor = Executor.open(vit, threads=1, runtime=RuntimeOptions())
    assert f"torch {torch.__version__}" in executor.info.runtime
    assert "refused openvino is not usable here" in executor.info.runtime
    assert executor.run(batch(Work.EXPLAIN, ITEMS))[0].error is None


def chosen(archive: Archive, **options: str) -> tuple[str, str, str]:
    """Runtime, precision, and why nothing faster."""
    told = ClassifierRunner(archive, RuntimeOptions(**options), 1).execution
    return told.runtime, told.precision, told.refused


def test_bf16_without_units_falls_back_by_name(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archives.read(vit)
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    assert chosen(archive, precision="bf16") == ("openvino", "fp32", "bf16: this processor has no units for it")
    assert chosen(archive) == ("openvino", "fp32", "")
    monkeypatch.setattr(engine, "has_bf16", lambda: True)
    assert chosen(archive) == ("openvino", "bf16", "")
    forbidden = dataclasses.replace(
        archive, config={**archive.config, "runtime": {"methods": METHODS, "precisions": []}}
    )
    refused = "bf16: the archive does not allow it; fp32: the archive does not allow it"
    assert chosen(forbidden, precision="bf16") == ("torch", "fp32", refused)


@pytest.mark.parametrize("precision", [FP32, pytest.param(BF16, marks=needs_bf16)])
def test_a_graph_that_answers_otherwise_is_not_used(vit: Path, precision: str) -> None:
    """The canary: the samples' answers are those of another model."""
    archive = archives.read(vit)
    samples = Reference.unpack(archive.graph[PARITY])
    other = dataclasses.replace(samples, maps={name: -maps for name, maps in samples.maps.items()})
    swapped = dataclasses.replace(archive, graph={**archive.graph, PARITY: other.pack()})
    options = RuntimeOptions(precision=precision)
    executor = Executor(swapped, threads=1, runtime=options)
    assert f"torch {torch.__version__}" in executor.info.runtime
    cosine = r"-(1\.0000|0\.99\d\d)"
    assert re.search(rf"refused {precision}: median of the maps' cosine {cosine} < 0.99", executor.info.runtime)
    broken = dataclasses.replace(archive, graph={**archive.graph, GRAPH: b"<net/>"})
    assert f"refused {precision}: " in Executor(broken, threads=1, runtime=options).info.runtime


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_computed_again(vit: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """One number of each answer: of a logit that is minus infinity no probability tells."""
    executor = Executor.open(vit, threads=1, runtime=EXACT)
    reference = Executor.open(vit, threads=1, runtime=TORCH)
    real = compiled._run
    second = batch(Work.PREDICT, ITEMS).pixels[1]

    def run(request: Any, inputs: dict[str, Any], outputs: Any) -> list[Any]:
        made = real(request, inputs, outputs)
        for array in made:
            if (inputs["pixels"][0] == second).all() and array.dtype == np.float32:
                array.flat[0] = value
        return made

    monkeypatch.setattr(compiled, "_run", run)
    for work in (Work.PREDICT, Work.EXPLAIN):
        made = executor.run(batch(work, ITEMS))
        assert_close(made, reference.run(batch(work, ITEMS)))
        assert [result.recomputed for result in made] == [False, True, False, False]


def test_archives_with_and_without_a_graph(vit: Path, tmp_path: Path) -> None:
    archive = archives.read(vit)
    assert archives.info(vit, check_weights=True).digest == archive.digest
    assert archives.write(tmp_path / "again.mar", archive) == archive.digest
    assert Graph.of(dataclasses.replace(archive, graph={})) is None
    with pytest.raises(ArchiveError, match=r"A graph is graph\.xml"):
        archives.write(tmp_path / "b.mar", dataclasses.replace(archive, graph={GRAPH: b""}))
    without = dataclasses.replace(archive, graph={})
    assert chosen(without, runtime="openvino") == ("torch", "fp32", "the archive holds no openvino graph")


def test_what_cannot_be_traced_is_refused_by_name() -> None:
    with pytest.raises(NotTraceable, match="'occlusion' of test_vit is not one forward and one backward"):
        trace(network("vit_token"), ("occlusion",))
    # Its gradient is a digamma, which has no converter.
    with pytest.raises(NotTraceable, match=r"with gradient_x_input cannot be made one graph: .*aten\.digamma"):
        trace(tiny(torch.lgamma), ("gradient_x_input",))
    with pytest.raises(NotTraceable, match="cannot be made one graph: "):
        trace(tiny(lambda x: x * float(x.sum())), ("gradient_x_input",))
