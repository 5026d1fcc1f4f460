"""Captions in the executor: given or made, explained or not, each item's fault its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.attribution import Wanted, attribute_caption
from saaa.models.captioner import EOS
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.executor import Executor
from saaa.work import CaptionOptions, ExplainOptions, TargetKind, Work, WorkBatch, WorkItem
from tests.tiny_models import EGA_NAME, VERSION, WORDS, make_captioner, make_graph, make_pixels

TEXT = ("a", "red", "chair")


@pytest.fixture(scope="module")
def executor(tiny_models: Path) -> Executor:
    return Executor.open(tiny_models / "ega.mar", threads=1)


@pytest.fixture(scope="module")
def captioner(tiny_models: Path) -> GuidedCaptioner:
    return GuidedCaptioner.from_archive(archive.read(tiny_models / "ega.mar"))


def batch_of(items: list[WorkItem], **changes: object) -> WorkBatch:
    batch = WorkBatch(
        model=EGA_NAME, version=VERSION, work=Work.CAPTION, pixels=make_pixels(len(items)), items=tuple(items)
    )
    return replace(batch, **changes)  # type: ignore[arg-type]


def test_given_and_made_captions_are_explained_side_by_side(executor: Executor, captioner: GuidedCaptioner) -> None:
    items = [
        WorkItem(graph=make_graph(0), every_word=True, nodes=(3, 1)),
        WorkItem(graph=make_graph(1), text=TEXT, words=(2, 0)),
        WorkItem(graph=make_graph(2)),
        WorkItem(graph=make_graph(3), text=TEXT[:1]),
        WorkItem(graph=make_graph(4), nodes=(0,)),
    ]
    batch = batch_of(items, explain=ExplainOptions(method="attention", deletion=True))
    found = executor.run(batch)
    assert all(result.error is None for result in found)
    pixels, graphs = torch.tensor(batch.pixels), [item.graph for item in items]
    plain = captioner.caption(pixels, graphs, CaptionOptions())
    for row, (item, result) in enumerate(zip(items, found, strict=True)):
        said = result.captions[0]
        assert said.words == (item.text or plain[row][0].words)
        words = tuple(range(len(said.words))) if item.every_word else item.words
        kinds = [(TargetKind.WORD, w) for w in words] + [(TargetKind.NODE, n) for n in item.nodes]
        assert [(m.kind, m.target) for m in result.maps] == kinds
        (wanted,) = attribute_caption(
            captioner,
            pixels[row : row + 1],
            graphs[row : row + 1],
            [said.words],
            [Wanted(words=words, nodes=item.nodes)],
            batch.explain,
        )
        for m, other in zip(result.maps, wanted, strict=True):
            np.testing.assert_allclose(m.values, other.values, atol=1e-6)
            np.testing.assert_allclose(m.node_weights, other.node_weights, atol=1e-6)
            assert m.deletion_drop == pytest.approx(other.deletion_drop, abs=1e-3)
            if m.kind is TargetKind.WORD:  # the attention is what the caption reports itself
                np.testing.assert_allclose(m.node_weights, said.node_weights[m.target], atol=1e-5)


def test_a_given_caption_has_the_probability_that_it_would_have_been_made_with(executor: Executor) -> None:
    (made,) = executor.run(batch_of([WorkItem(graph=make_graph(0))]))
    best = made.captions[0]
    (given,) = executor.run(batch_of([WorkItem(graph=make_graph(0), text=best.words)]))
    assert given.captions[0].log_probability == pytest.approx(best.log_probability, abs=1e-5)
    assert len(given.captions) == 1


def ending_instead_of(word: str, folder: Path) -> Executor:
    """A captioner that ends its captions where it would say a word."""
    captioner = make_captioner()
    with torch.no_grad():
        weight = captioner.captioner.decoder.words.weight
        weight[EOS] = 1.5 * weight[WORDS.index(word)]
    archive.write(folder / "ega.mar", captioner.to_archive(EGA_NAME, VERSION, {}))
    return Executor.open(folder / "ega.mar", threads=1)


def test_a_word_past_the_caption_that_was_made_is_its_own_items_fault(tmp_path: Path) -> None:
    executor = ending_instead_of("lamp", tmp_path)
    graph, pixels = make_graph(0), np.repeat(make_pixels(1), 3, axis=0)
    (made, *_) = executor.run(batch_of([WorkItem(graph=graph)] * 3, pixels=pixels))
    length = len(made.captions[0].words)
    assert 0 < length < 8
    items = [
        WorkItem(graph=graph, words=(0,)),
        WorkItem(graph=graph, words=(7,)),
        WorkItem(graph=graph, every_word=True),
    ]
    found = executor.run(batch_of(items, pixels=pixels))
    assert [result.error is None for result in found] == [True, False, True]
    assert found[1].error is not None
    assert (found[1].error.reason, found[1].error.field) == ("OPTION_INVALID", "attribution.words")
    assert f"no word 7: the caption has {length} words" in found[1].error.message
    assert [len(result.maps) for result in found] == [1, 0, length]


def test_a_caption_without_words_explains_nothing(tmp_path: Path) -> None:
    executor = ending_instead_of("on", tmp_path)
    every, node, word = executor.run(
        batch_of(
            [
                WorkItem(graph=make_graph(0), **asked)
                for asked in ({"every_word": True}, {"nodes": (0,)}, {"words": (0,)})
            ]
        )
    )
    assert every.error is None
    assert every.captions[0].words == every.maps == ()
    assert node.error is not None
    assert node.error.field == "attribution.nodes"
    assert word.error is not None
    assert "the caption has 0 words" in word.error.message


@pytest.mark.parametrize(
    ("item", "field", "says"),
    [
        (WorkItem(words=(-1,)), "attribution.words", "the caption may have up to 8 words"),
        (WorkItem(words=(0, 8)), "attribution.words", "the caption may have up to 8 words"),
        (WorkItem(nodes=(4,)), "attribution.nodes", "the graph has 4 nodes"),
        (WorkItem(words=(0,), every_word=True), "attribution.words", "not both"),
        (WorkItem(text=TEXT, words=(3,)), "attribution.words", "the caption has 3 words"),
        (WorkItem(text=("a", "blue", "chair")), "caption.text", "'blue'"),
        (WorkItem(text=()), "caption.text", "0 words"),
        (WorkItem(text=("a",) * 51), "caption.text", "51 words"),
    ],
)
def test_what_cannot_be_is_refused_and_the_others_go_on(
    executor: Executor, item: WorkItem, field: str, says: str
) -> None:
    wrong = replace(item, graph=make_graph(1))
    refused, fine = executor.run(batch_of([wrong, WorkItem(graph=make_graph(0), words=(0,))]))
    assert refused.error is not None
    assert (refused.error.reason, refused.error.field) == ("OPTION_INVALID", field)
    assert says in refused.error.message
    assert fine.error is None
    assert len(fine.maps) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ExplainOptions(method="rise"), "attribution.word_method"),
        (ExplainOptions(steps=0), "attribution.steps"),
    ],
)
def test_wrong_options_are_said_to_every_item(executor: Executor, options: ExplainOptions, field: str) -> None:
    for result in executor.run(batch_of([WorkItem(graph=make_graph())] * 2, explain=options)):
        assert result.error is not None
        assert result.error.field == field


def test_a_long_given_caption_may_be_explained_past_the_captioners_own_limit(executor: Executor) -> None:
    (found,) = executor.run(batch_of([WorkItem(graph=make_graph(), text=("a",) * 20, words=(19,))]))
    assert found.error is None
    assert [m.target for m in found.maps] == [19]
