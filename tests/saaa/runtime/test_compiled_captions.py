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
from saaa.models.captioner import Captioner, CaptionerConfig, GraphBatch, Vocabulary
from saaa.models.captioner.decoder import Guide, State
from saaa.models.features import FeatureConfig, FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.caption_graph import parts_of
from saaa.runtime.caption_parity import CaptionParity, CaptionReference, measure_captions
from saaa.runtime.executor import Executor
from saaa.runtime.graph import Graph
from saaa.runtime.options import BF16, FP32, RuntimeOptions
from saaa.scene_graph import RoleGraph
from saaa.work import CaptionOptions, Execution, ItemResult, Sampling, Work, WorkBatch, WorkItem
from tests.tiny_models import EGA_NAME, VERSION, WORDS, make_captioner, make_graph, make_pixels

pytest.importorskip("openvino", reason="needs the extra openvino")

from saaa.runtime.caption_compiling import add_caption_graph
from saaa.runtime.caption_parts import OpenVinoCaptioner
from saaa.runtime.caption_tracing import trace_captioner
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


def assert_same(made: list[ItemResult], wanted: list[ItemResult], atol: float = 1e-4) -> None:
    for one, other in zip(made, wanted, strict=True):
        assert one.error is None, one.error
        assert [c.words for c in one.captions] == [c.words for c in other.captions]
        for left, right in zip(one.captions, other.captions, strict=True):
            np.testing.assert_allclose(left.log_probabilities, right.log_probabilities, atol=atol)
            np.testing.assert_allclose(left.node_weights, right.node_weights, atol=atol)


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
def test_bf16_is_used_where_it_passed_and_refused_where_not(path: Path) -> None:
    archive = archives.read(path)
    passed = archive.card["runtime"]["openvino"]["bf16"]["refused"] is None
    assert passed == (BF16 in archive.config["runtime"]["precisions"])
    told = Executor.open(path, threads=1, runtime=RuntimeOptions()).info.execution
    assert told == Execution(runtime="openvino", precision=BF16 if passed else FP32)
    refused = {**archive.config["runtime"], "precisions": [FP32]}
    other = dataclasses.replace(archive, config={**archive.config, "runtime": refused})
    for precision, why in (("auto", ""), (BF16, "bf16: the archive does not allow it")):
        told = Executor(other, threads=1, runtime=RuntimeOptions(precision=precision)).info.execution
        assert told == Execution(runtime="openvino", precision=FP32, refused=why)


@pytest.mark.skipif(not has_bf16(), reason="this processor has no units for bf16")
def test_pictures_are_seen_in_single_precision_whatever_is_asked_for() -> None:
    """And bf16 does change the steps: were nothing in bf16, there would be nothing to check."""
    guided = make_captioner(seed=2).requires_grad_(False)
    graph = trace_captioner(guided)
    levels = len(guided.features.config.levels)
    one, other = (
        OpenVinoCaptioner(graph, guided.captioner, levels=levels, precision=precision, threads=1)
        for precision in (FP32, BF16)
    )
    pixels, graphs = torch.tensor(make_pixels(3)), [make_graph(seed) for seed in range(3)]
    seen = guided.see(pixels, graphs, one)
    for left, right in zip(seen.levels, other.see(pixels), strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)
    state, guide = one.begin(*guided.pool(seen), seen.graphs)
    again, _ = other.begin(*guided.pool(seen), seen.graphs)
    torch.testing.assert_close(state.memory, again.memory, atol=0, rtol=0)
    last = torch.tensor([3, 4, 5])
    scores = [parts.advance(state, guide, last)[1].clone() for parts in (one, other)]
    assert 0 < float((scores[0] - scores[1]).abs().max()) < 0.01 * float(scores[0].abs().max())


@pytest.mark.parametrize(
    ("architecture", "levels", "size"),
    [("test_resnet", (2, 3, 4), 64), ("test_convnext", (1, 2, 3), 64), ("test_vit", (1,), 160)],
)
def test_other_backbones_see_as_torch_does(architecture: str, levels: tuple[int, ...], size: int) -> None:
    features = FeatureExtractor(FeatureConfig(architecture=architecture, levels=levels, input_size=size))
    sizes = {"region_size": features.region_size, "global_size": features.image_size, "width": 24}
    captioner = Captioner(CaptionerConfig(vocabulary_size=len(WORDS), **sizes))
    guided = GuidedCaptioner(features, captioner, Vocabulary(WORDS)).requires_grad_(False)
    graph = trace_captioner(guided)
    parts = OpenVinoCaptioner(graph, captioner, levels=len(levels), precision=FP32, threads=1)
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    for made, wanted in zip(parts.see(pixels), features.backbone(features.normalise(pixels)), strict=True):
        torch.testing.assert_close(made, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("nodes", [(1,), (4, 4, 4), (1, 4, 2)])
def test_each_part_computes_as_torch_does(path: Path, nodes: tuple[int, ...]) -> None:
    archive = archives.read(path)
    guided, graph = GuidedCaptioner.from_archive(archive), Graph.of(archive)
    assert graph is not None
    levels = len(guided.features.config.levels)
    parts = OpenVinoCaptioner(graph, guided.captioner, levels=levels, precision=FP32, threads=1)
    pixels = torch.tensor(make_pixels(len(nodes), seed=3))
    graphs = [first_nodes(make_graph(seed), count) for seed, count in enumerate(nodes)]
    with torch.inference_mode():
        seen, wanted = guided.see(pixels, graphs, parts), guided.see(pixels, graphs)
        for left, right in zip(seen.levels, wanted.levels, strict=True):
            torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
        inputs = (*guided.pool(wanted), wanted.graphs)
        states, guides = zip(parts.begin(*inputs), guided.captioner.begin(*inputs), strict=True)
        for whole in (states, guides):
            for left, right in zip(*map(parts_of, whole), strict=True):
                torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
        decoder, last = guided.captioner.decoder, torch.full((len(nodes),), 4)
        eager = decoder.advance(states[1], guides[1], decoder.word_gates(last), decoder.weights())
        made = parts.advance(states[1], guides[1], last)
    torch.testing.assert_close(made[1], eager[1], atol=1e-4, rtol=1e-4)
    for left, right in zip(parts_of(made[0]), parts_of(eager[0]), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def first_nodes(graph: RoleGraph, count: int) -> RoleGraph:
    edges = graph.edges[(graph.edges[:, :2] < count).all(1)]
    return RoleGraph(types=graph.types[:count], orders=graph.orders[:count], boxes=graph.boxes[:count], edges=edges)


def test_the_maps_of_words_are_torchs(path: Path) -> None:
    items = (WorkItem(graph=make_graph(0), every_word=True, nodes=(0, 2)), WorkItem(graph=make_graph(1), nodes=(1,)))
    request = dataclasses.replace(batch(2), items=items)
    made = Executor.open(path, threads=1, runtime=RuntimeOptions(precision=FP32)).run(request)
    wanted = Executor.open(path, threads=1, runtime=TORCH).run(request)
    assert_same(made, wanted)
    for one, other in zip(made, wanted, strict=True):
        assert one.maps
        for left, right in zip(one.maps, other.maps, strict=True):
            assert (left.target, left.kind) == (right.target, right.kind)
            largest = float(np.abs(right.values).max())
            np.testing.assert_allclose(left.values, right.values, atol=1e-3 * largest)


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


class EagerParts:
    def __init__(self, guided: GuidedCaptioner) -> None:
        self.features, self.captioner = guided.features, guided.captioner
        self.weights = guided.captioner.decoder.weights()

    def see(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return self.features.backbone(self.features.normalise(pixels))

    def begin(self, regions: torch.Tensor, image: torch.Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        return self.captioner.begin(regions, image, graphs)

    def advance(self, state: State, guide: Guide, last: torch.Tensor) -> tuple[State, torch.Tensor]:
        decoder = self.captioner.decoder
        return decoder.advance(state, guide, decoder.word_gates(last, self.weights), self.weights)


def test_a_caption_that_differs_in_one_word_is_counted(path: Path) -> None:
    """The measure on the eager captioner's own steps, of samples of which one is changed."""
    reference = CaptionReference.unpack(archives.read(path).graph[PARITY])
    guided = GuidedCaptioner.from_archive(archives.read(path))
    eager = EagerParts(guided)
    same = measure_captions(reference, guided, eager)
    assert (same.graphs, same.equal, same.equal_beam) == (4, 1.0, 1.0)
    assert same.log_probability_gap < 1e-5
    tokens, chances = reference.greedy
    tokens, chances = tokens.clone(), chances + 0.5
    tokens[2, 0] += 1
    other = measure_captions(dataclasses.replace(reference, greedy=(tokens, chances)), guided, eager)
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
    real = OpenVinoCaptioner.advance

    def spoil(parts: OpenVinoCaptioner, state: State, guide: Guide, last: torch.Tensor) -> tuple[State, torch.Tensor]:
        wrong = torch.isclose(guide.gates, second, atol=1e-4).all(1, keepdim=True)
        return real(parts, dataclasses.replace(state, hidden1=state.hidden1.masked_fill(wrong, torch.nan)), guide, last)

    monkeypatch.setattr(OpenVinoCaptioner, "advance", spoil)
    with pytest.raises(ArithmeticError, match="not finite"):
        captioner.caption_seen(seen, CaptionOptions(), executor._runner._compiled)  # type: ignore[attr-defined]
    made = executor.run(request)
    assert_same(made, Executor.open(path, threads=1, runtime=TORCH).run(request))
    assert [result.recomputed for result in made] == [False, True, False]


def test_a_picture_seen_as_what_is_not_finite_is_seen_again_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a caption is given, which the compiled parts never look at."""
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions())
    real = OpenVinoCaptioner.see

    def spoil(parts: OpenVinoCaptioner, pixels: torch.Tensor) -> list[torch.Tensor]:
        levels = real(parts, pixels)
        levels[-1][1, 0, 0, 0] = torch.inf
        return levels

    monkeypatch.setattr(OpenVinoCaptioner, "see", spoil)
    given = WorkItem(graph=make_graph(0), text=("a", "red", "chair"), nodes=(0,))
    for items in ((given,) * 3, tuple(WorkItem(graph=make_graph(seed)) for seed in range(3))):
        request = dataclasses.replace(batch(3), items=items)
        made = executor.run(request)
        # A network whose weights were multiplied by 8 makes much of the rounding of the pictures that were seen well.
        assert_same(made, Executor.open(path, threads=1, runtime=TORCH).run(request), atol=1e-3)
        assert all(np.isfinite(entry.values).all() for result in made for entry in result.maps)
        assert [result.recomputed for result in made] == [False, True, False]


def test_blobs_are_used(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RuntimeOptions(cache_dir=tmp_path)
    first = Executor.open(path, threads=1, runtime=options).run(batch(2))
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 3  # backbone, encoder, step
    monkeypatch.setattr("saaa.runtime.engine.Engine.model", None)  # nothing else may be compiled
    again = Executor.open(path, threads=1, runtime=options)
    assert "refused" not in again.info.runtime
    assert_same(again.run(batch(2)), first)


def test_without_openvino_torch_captions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine", "caption_parts"):
        monkeypatch.delitem(sys.modules, f"saaa.runtime.{name}")
    monkeypatch.setitem(sys.modules, "openvino", None)
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions())
    assert "refused openvino is not usable here" in executor.info.runtime
    assert executor.run(batch(1))[0].error is None
