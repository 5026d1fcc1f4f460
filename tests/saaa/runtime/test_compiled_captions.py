"""The compiled captioner says what the eager one says, and where it cannot, torch does and says so."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saaa import archive as archives
from saaa.archive import GRAPH, PARITY
from saaa.models.captioner.decoder import Guide, State
from saaa.runtime.caption_parity import CaptionParity, CaptionReference, measure_captions
from saaa.runtime.executor import Executor
from saaa.runtime.options import BF16, FP32, RuntimeOptions
from saaa.work import CaptionOptions, Execution, ItemResult, Sampling, Work, WorkBatch, WorkItem
from tests.tiny_models import EGA_NAME, VERSION, make_captioner, make_graph, make_pixels

pytest.importorskip("openvino", reason="needs the extra openvino")

from saaa.runtime.caption_compiling import add_caption_graph
from saaa.runtime.caption_steps import OpenVinoSteps
from saaa.runtime.engine import has_bf16

TORCH = RuntimeOptions(runtime="torch")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captioner = make_captioner(seed=1)
    with torch.no_grad():  # captions that differ, of several lengths
        for part in (captioner.captioner.image, captioner.captioner.encoder, captioner.captioner.decoder.lstm2):
            for parameter in part.parameters():
                parameter.mul_(8)
    archive = captioner.to_archive(EGA_NAME, VERSION, {})
    made = add_caption_graph(archive, make_pixels(12), [make_graph(seed) for seed in range(12)])
    path = tmp_path_factory.mktemp("compiled") / "ega.mar"
    archives.write(path, made)
    return path


def batch(images: int, **options: Any) -> WorkBatch:
    items = tuple(WorkItem(graph=make_graph(seed)) for seed in range(images))
    return WorkBatch(
        model=EGA_NAME,
        version=VERSION,
        work=Work.CAPTION,
        pixels=make_pixels(images, seed=7),
        items=items,
        caption=CaptionOptions(**options),
    )


def assert_same(made: list[ItemResult], wanted: list[ItemResult]) -> None:
    for one, other in zip(made, wanted, strict=True):
        assert one.error is None, one.error
        assert [c.words for c in one.captions] == [c.words for c in other.captions]
        for left, right in zip(one.captions, other.captions, strict=True):
            np.testing.assert_allclose(left.log_probabilities, right.log_probabilities, atol=1e-4)
            np.testing.assert_allclose(left.node_weights, right.node_weights, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_width": 1},
        {"beam_width": 3, "count": 3},
        {"beam_width": 4, "length_penalty": 1.0, "max_words": 5},
        {"count": 2, "sampling": Sampling(seed=3)},
    ],
)
def test_it_captions_as_torch_does(path: Path, options: dict[str, Any]) -> None:
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions(precision=FP32))
    reference = Executor.open(path, threads=1, runtime=TORCH)
    assert "openvino" in executor.info.runtime
    assert "refused" not in executor.info.runtime
    assert executor.info.execution == Execution(runtime="openvino", precision=FP32)
    assert "openvino" not in reference.info.runtime
    assert reference.info.execution == Execution(runtime="torch", precision="fp32")
    for images in (1, 5):
        request = batch(images, **options)
        wanted = reference.run(request)
        assert_same(executor.run(request), wanted)
    assert len({result.captions[0].words for result in wanted}) > 1


@pytest.mark.skipif(not has_bf16(), reason="this processor has no units for bf16")
def test_bf16_that_words_captions_otherwise_is_refused(path: Path) -> None:
    """As this network of chance does."""
    archive = archives.read(path)
    assert "captions" in archive.card["runtime"]["openvino"]["bf16"]["refused"]
    for precision, refused in (("auto", ""), (BF16, "bf16: the archive does not allow it")):
        told = Executor.open(path, threads=1, runtime=RuntimeOptions(precision=precision)).info.execution
        assert told == Execution(runtime="openvino", precision=FP32, refused=refused)


def test_the_card_tells_of_each_precision(path: Path) -> None:
    archive = archives.read(path)
    card = archive.card["runtime"]["openvino"]
    assert card["fp32"]["refused"] is None
    assert (card["fp32"]["graphs"], card["fp32"]["equal"], card["fp32"]["equal_beam"]) == (12, 1.0, 1.0)
    assert card["fp32"]["log_probability_gap"] < 1e-4
    assert (card["bf16"]["refused"] == "not measured: this processor has no units for bf16") != has_bf16()
    assert "fp32" in archive.config["runtime"]["precisions"]


def test_one_of_fifty_captions_may_differ() -> None:
    figures = {"graphs": 100, "equal": 1.0, "equal_beam": 0.98, "log_probability_gap": 0.01}
    assert CaptionParity(**figures).refusal() is None
    assert CaptionParity(**figures).describe() == {**figures, "refused": None}
    missed = CaptionParity(**{**figures, "equal": 0.97, "equal_beam": 0.9})
    assert missed.refusal() == "equal greedy captions 0.9700 < 0.98; equal captions of beam search 0.9000 < 0.98"


def test_a_caption_that_differs_in_one_word_is_counted(path: Path) -> None:
    """The measure on the eager captioner's own steps, of samples of which one is changed."""
    reference = CaptionReference.unpack(archives.read(path).graph[PARITY])
    captioner = Executor.open(path, runtime=TORCH)._runner._captioner.captioner  # type: ignore[attr-defined]
    decoder, weights = captioner.decoder, captioner.decoder.weights()

    def advance(state: Any, guide: Any, last: torch.Tensor) -> Any:
        return decoder.advance(state, guide, decoder.word_gates(last, weights), weights)

    same = measure_captions(reference, captioner, advance)
    assert (same.graphs, same.equal, same.equal_beam) == (4, 1.0, 1.0)
    assert same.log_probability_gap < 1e-5
    tokens, chances = reference.greedy
    tokens, chances = tokens.clone(), chances + 0.5
    tokens[2, 0] += 1
    other = measure_captions(dataclasses.replace(reference, greedy=(tokens, chances)), captioner, advance)
    assert (other.equal, other.equal_beam) == (0.75, 1.0)
    assert other.log_probability_gap == pytest.approx(0.5, abs=1e-4)


def test_a_graph_that_says_otherwise_is_not_used(path: Path) -> None:
    """The canary: the samples' captions are those of another model."""
    archive = archives.read(path)
    samples = CaptionReference.unpack(archive.graph[PARITY])
    other = dataclasses.replace(samples, beam=samples.greedy, greedy=(samples.greedy[0] + 1, samples.greedy[1]))
    swapped = dataclasses.replace(archive, graph={**archive.graph, PARITY: other.pack()})
    executor = Executor(swapped, threads=1, runtime=RuntimeOptions())
    missed = "fp32: equal greedy captions 0.0000 < 0.98; equal captions of beam search 0.5000 < 0.98"
    assert f"(refused {missed})" in executor.info.runtime
    assert executor.info.execution == Execution(runtime="torch", precision="fp32", refused=missed)
    assert "openvino 20" not in executor.info.runtime
    assert_same(executor.run(batch(2)), Executor(archive, threads=1, runtime=TORCH).run(batch(2)))
    for member, content in ((GRAPH, b"<net/>"), (PARITY, b"?")):
        broken = dataclasses.replace(archive, graph={**archive.graph, member: content})
        assert "refused fp32: " in Executor(broken, threads=1, runtime=RuntimeOptions()).info.runtime


def test_what_is_not_finite_is_computed_again_and_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions())
    captioner = executor._runner._captioner  # type: ignore[attr-defined]
    request = batch(3)
    seen = captioner.see(torch.tensor(request.pixels), [item.graph for item in request.items])
    with torch.inference_mode():
        second = captioner.captioner.begin(*captioner.pool(seen), seen.graphs)[1].gates[1]
    real = OpenVinoSteps.__call__

    def spoil(steps: OpenVinoSteps, state: State, guide: Guide, last: torch.Tensor) -> tuple[State, torch.Tensor]:
        wrong = torch.isclose(guide.gates, second, atol=1e-4).all(1, keepdim=True)
        return real(steps, dataclasses.replace(state, hidden1=state.hidden1.masked_fill(wrong, torch.nan)), guide, last)

    monkeypatch.setattr(OpenVinoSteps, "__call__", spoil)
    with pytest.raises(ArithmeticError, match="not finite"):
        captioner.caption_seen(seen, CaptionOptions(), executor._runner._compiled)  # type: ignore[attr-defined]
    made = executor.run(request)
    assert_same(made, Executor.open(path, threads=1, runtime=TORCH).run(request))
    assert [result.recomputed for result in made] == [False, True, False]


def test_blobs_are_used(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RuntimeOptions(cache_dir=tmp_path)
    first = Executor.open(path, threads=1, runtime=options).run(batch(2))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("saaa.runtime.engine.Engine.model", None)  # nothing else may be compiled
    again = Executor.open(path, threads=1, runtime=options)
    assert "refused" not in again.info.runtime
    assert_same(again.run(batch(2)), first)


def test_without_openvino_torch_captions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine", "caption_steps"):
        monkeypatch.delitem(sys.modules, f"saaa.runtime.{name}")
    monkeypatch.setitem(sys.modules, "openvino", None)
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions())
    assert "refused openvino is not usable here" in executor.info.runtime
    assert executor.run(batch(1))[0].error is None
