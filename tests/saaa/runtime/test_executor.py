"""The executor: one result an item, each item's fault its own, and batches that equal single calls."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.classifier import Classifier
from saaa.runtime.executor import Executor
from saaa.work import (
    CaptionOptions,
    ExplainOptions,
    ItemResult,
    ModelKind,
    Work,
    WorkBatch,
    WorkItem,
)
from tests.tiny_models import CLASSES, EGA_NAME, EGDD_NAME, SIZE, VERSION, make_graph, make_pixels


@pytest.fixture(scope="module")
def classifier(tiny_models: Path) -> Executor:
    return Executor.open(tiny_models / "egdd.mar", threads=1)


@pytest.fixture(scope="module")
def captioner(tiny_models: Path) -> Executor:
    return Executor.open(tiny_models / "ega.mar", threads=1)


def batch_of(kind: Work, items: list[WorkItem], *, seed: int = 0, **changes: object) -> WorkBatch:
    name = EGA_NAME if kind is Work.CAPTION else EGDD_NAME
    batch = WorkBatch(model=name, version=VERSION, work=kind, pixels=make_pixels(len(items), seed), items=tuple(items))
    return replace(batch, **changes)  # type: ignore[arg-type]


def part(batch: WorkBatch, index: int) -> WorkBatch:
    return replace(batch, pixels=batch.pixels[index : index + 1], items=batch.items[index : index + 1])


def numbers(result: ItemResult) -> list[np.ndarray]:
    assert result.error is None
    found = [m.values for m in result.maps]
    if result.probabilities is not None:
        found.append(result.probabilities)
    for caption in result.captions:
        found += [caption.log_probabilities, caption.node_weights]
    return found


def assert_same(a: ItemResult, b: ItemResult, tolerance: float) -> None:
    assert [m.target for m in a.maps] == [m.target for m in b.maps]
    assert [c.words for c in a.captions] == [c.words for c in b.captions]
    for x, y in zip(numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-9, np.abs(y).max()))


def test_predictions_are_the_networks_own(classifier: Executor, tiny_models: Path) -> None:
    batch = batch_of(Work.PREDICT, [WorkItem()] * 3)
    network = Classifier.from_archive(archive.read(tiny_models / "egdd.mar"))
    with torch.no_grad():
        wanted = network(network.preprocess(torch.tensor(batch.pixels))).softmax(1).numpy()
    found = classifier.run(batch)
    for row, result in zip(wanted, found, strict=True):
        np.testing.assert_allclose(result.probabilities, row, atol=1e-6)
        assert result.maps == ()
    assert np.ptp([r.probabilities for r in found], axis=0).max() > 1e-3, "the pictures must differ"


@pytest.mark.parametrize("method", ["auto", "grad_cam", "integrated_gradients", "gradient_x_input"])
def test_eight_explained_together_are_eight_explained_alone(classifier: Executor, method: str) -> None:
    items = [WorkItem(targets=tuple(range(n % 4))) for n in range(8)]
    batch = batch_of(Work.EXPLAIN, items, explain=ExplainOptions(method=method, steps=4))
    together = classifier.run(batch)
    for index, result in enumerate(together):
        (alone,) = classifier.run(part(batch, index))
        assert_same(result, alone, 1e-5)
        wanted = items[index].targets or (int(np.argmax(result.probabilities)),)
        assert tuple(m.target for m in result.maps) == wanted


def test_eight_captioned_together_are_eight_captioned_alone(captioner: Executor) -> None:
    items = [WorkItem(graph=make_graph(seed)) for seed in range(8)]
    batch = batch_of(Work.CAPTION, items, caption=CaptionOptions(beam_width=3, count=2))
    for index, result in enumerate(captioner.run(batch)):
        (alone,) = captioner.run(part(batch, index))
        assert_same(result, alone, 1e-5)
        assert len(result.captions) == 2
        np.testing.assert_allclose(result.captions[0].node_weights.sum(1), 1, atol=1e-5)


def test_explaining_predicts_as_predicting_does(classifier: Executor) -> None:
    items = [WorkItem()] * 4
    explained = classifier.run(batch_of(Work.EXPLAIN, items))
    predicted = classifier.run(batch_of(Work.PREDICT, items))
    for a, b in zip(explained, predicted, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)


def test_a_wrong_target_is_its_own_items_fault(classifier: Executor) -> None:
    items = [WorkItem(targets=(0,)), WorkItem(targets=(1, 5)), WorkItem(targets=(-1,)), WorkItem(targets=(2,))]
    batch = batch_of(Work.EXPLAIN, items)
    found = classifier.run(batch)
    assert [r.error is None for r in found] == [True, False, False, True]
    assert found[1].error is not None
    assert (found[1].error.reason, found[1].error.field) == ("OPTION_INVALID", "attribution.classes")
    assert "There is no class 5" in found[1].error.message
    for index in (0, 3):
        assert_same(found[index], classifier.run(part(batch, index))[0], 1e-5)


def test_a_missing_large_or_misplaced_graph_is_its_own_items_fault(captioner: Executor) -> None:
    graph = make_graph()
    outside = graph.with_boxes(graph.boxes + SIZE)
    large = replace(
        graph, types=np.zeros(41, int), orders=np.zeros(41, int), boxes=np.zeros((41, 4)), edges=np.zeros((0, 3), int)
    )
    items = [WorkItem(graph=g) for g in (None, graph, outside, large)]
    found = captioner.run(batch_of(Work.CAPTION, items))
    assert [r.error and r.error.reason for r in found] == ["SCENE_GRAPH_ERROR", None] + ["SCENE_GRAPH_ERROR"] * 2
    messages = [r.error.message if r.error else "" for r in found]
    assert "needs a scene graph" in messages[0]
    assert "outside the image" in messages[2]
    assert "41 nodes" in messages[3]


@pytest.mark.parametrize("options", [ExplainOptions(effects=True), ExplainOptions(method="region_shapley")])
def test_removing_objects_together_is_removing_them_alone(classifier: Executor, options: ExplainOptions) -> None:
    items = [WorkItem(graph=make_graph(0), targets=(1, 3)), WorkItem(), WorkItem(graph=make_graph(2))]
    batch = batch_of(Work.EXPLAIN, items, explain=options)
    found = classifier.run(batch)
    assert found[1].error is not None
    assert (found[1].error.reason, found[1].error.field) == ("OPTION_INVALID", "graph")
    for index in (0, 2):
        (alone,) = classifier.run(part(batch, index))
        assert_same(found[index], alone, 1e-5)
        assert len(found[index].maps) == (2, 0, 1)[index]
        for a, b in zip(found[index].maps, alone.maps, strict=True):
            assert (a.effects is not None) == options.effects
            if a.effects is not None and b.effects is not None:
                assert a.effects.shape == (4,)
                np.testing.assert_allclose(a.effects, b.effects, atol=1e-4)
    if options.effects:
        one, other = (entry.effects for entry in found[0].maps)
        assert one is not None
        assert other is not None
        assert np.abs(one - other).max() > 1e-3, "each target has its own effects"


def test_deletion_is_measured_when_asked_for(classifier: Executor) -> None:
    for deletion in (True, False):
        batch = batch_of(Work.EXPLAIN, [WorkItem(targets=(0, 2))], explain=ExplainOptions(deletion=deletion))
        drops = [entry.deletion_drop for entry in classifier.run(batch)[0].maps]
        assert [drop is not None for drop in drops] == [deletion] * 2
        assert all(-1 <= drop <= 1 for drop in drops if drop is not None)


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"explain": ExplainOptions(method="tea_leaves")}, "OPTION_INVALID", "tea_leaves"),
        ({"explain": ExplainOptions(steps=0)}, "OPTION_INVALID", "steps is 0"),
        ({"explain": ExplainOptions(gamma=2)}, "OPTION_INVALID", "gamma is 2"),
        ({"explain": ExplainOptions(masks=0)}, "OPTION_INVALID", "masks is 0"),
        ({"work": Work.CAPTION}, "OPTION_INVALID", "can predict and explain, not caption"),
        ({"model": "other"}, "INVALID_INPUT", "The batch is for other 1"),
        ({"version": "2"}, "INVALID_INPUT", "The batch is for tiny-egdd 2"),
        ({"pixels": np.zeros((2, 32, 32, 3), np.uint8)}, "INVALID_INPUT", "not uint8"),
        ({"pixels": np.zeros((2, SIZE, SIZE, 3), np.float32)}, "INVALID_INPUT", "The pixels are float32"),
    ],
)
def test_what_is_wrong_with_the_batch_is_said_to_every_item(
    classifier: Executor, changes: dict[str, object], reason: str, says: str
) -> None:
    found = classifier.run(batch_of(Work.EXPLAIN, [WorkItem()] * 2, **changes))
    assert len(found) == 2
    for result in found:
        assert result.error is not None
        assert result.error.reason == reason
        assert says in result.error.message


@pytest.mark.parametrize(
    "options", [CaptionOptions(beam_width=11), CaptionOptions(count=4), CaptionOptions(max_words=0)]
)
def test_decoding_options_have_ranges(captioner: Executor, options: CaptionOptions) -> None:
    (result,) = captioner.run(batch_of(Work.CAPTION, [WorkItem(graph=make_graph())], caption=options))
    assert result.error is not None
    assert result.error.field.startswith("caption.")


def test_an_unforeseen_failure_stays_with_its_item(tiny_models: Path) -> None:
    """A network that breaks on one picture: the batch fails, its other items do not."""
    executor = Executor.open(tiny_models / "egdd.mar", threads=1)
    network = executor._runner._reference()._classifier.net  # type: ignore[attr-defined]

    def break_on_white(_: object, inputs: tuple[torch.Tensor]) -> None:
        if (inputs[0].amin(dim=(1, 2, 3)) > 0.9).any():
            raise ValueError("secret")

    network.register_forward_pre_hook(break_on_white)
    batch = batch_of(Work.EXPLAIN, [WorkItem()] * 3)
    batch.pixels[1] = 255
    found = executor.run(batch)
    assert [r.error and r.error.reason for r in found] == [None, "INTERNAL", None]
    assert found[1].error is not None
    assert "secret" not in found[1].error.message


def test_weights_that_are_no_numbers_are_said_and_not_served(tiny_models: Path, tmp_path: Path) -> None:
    broken = archive.read(tiny_models / "egdd.mar")
    tensors = {name: value.copy() for name, value in broken.tensors.items()}
    tensors["classifier.weight"][:] = np.nan
    archive.write(tmp_path / "nan.mar", replace(broken, tensors=tensors))
    executor = Executor.open(tmp_path / "nan.mar")
    (result,) = executor.run(batch_of(Work.PREDICT, [WorkItem()]))
    assert result.error is not None
    assert result.error.reason == "INTERNAL"
    with pytest.raises(RuntimeError, match="tiny-egdd cannot predict"):
        executor.warm_up()


def test_weights_that_do_not_fit_are_refused(tiny_models: Path, tmp_path: Path) -> None:
    other = archive.read(tiny_models / "egdd.mar")
    archive.write(tmp_path / "a.mar", replace(other, config=dict(other.config, classes=["one", "two"])))
    with pytest.raises(ArchiveError, match="does not describe a usable classifier"):
        Executor.open(tmp_path / "a.mar")


def test_describing_and_warming_up(classifier: Executor, captioner: Executor, tiny_models: Path) -> None:
    assert classifier.info == archive.info(tiny_models / "egdd.mar")
    assert f"torch {torch.__version__}, " in classifier.info.runtime
    assert classifier.info.classes == CLASSES
    assert classifier.info.methods[0].name == classifier.run(batch_of(Work.EXPLAIN, [WorkItem()]))[0].maps[0].method
    assert captioner.info.kind is ModelKind.EGA
    classifier.warm_up()
    captioner.warm_up()


def test_threads_are_set_where_the_work_is_done(tiny_models: Path) -> None:
    before = torch.get_num_threads()
    try:
        executor = Executor.open(tiny_models / "egdd.mar", threads=2)
        torch.set_num_threads(1)
        executor.run(batch_of(Work.PREDICT, [WorkItem()]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(OptionInvalid, match="threads is 0"):
        Executor.open(tiny_models / "egdd.mar", threads=0)


@pytest.mark.slow
def test_loading_a_model_leaves_the_compiler_out_and_usable(tiny_models: Path) -> None:
    script = f"""
import sys
from saaa.runtime.executor import Executor
Executor.open({str(tiny_models / "ega.mar")!r}).warm_up()
assert "torch._dynamo" not in sys.modules
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
assert hasattr(torch._dynamo, "optimize")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
