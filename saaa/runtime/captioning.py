"""The runner of EGA archives."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saaa.archive import PARITY, Archive
from saaa.attribution import Wanted, attribute_caption
from saaa.attribution.captions import check_wanted, find_caption_method
from saaa.attribution.options import check_options as check_explain_options
from saaa.errors import OptionInvalid, SaaaError, SceneGraphError
from saaa.models.guided import GuidedCaptioner, check_options
from saaa.models.seen import Seen
from saaa.runtime.blobs import Blobs
from saaa.runtime.caption_parity import CaptionReference, measure_captions
from saaa.runtime.choice import choose
from saaa.runtime.executor import item_error
from saaa.runtime.graph import Graph
from saaa.runtime.lean import hold_threads, torch_engine
from saaa.runtime.options import RuntimeOptions
from saaa.scene_graph import RoleGraph
from saaa.work import CaptionOptions, CaptionResult, ItemResult, Work, WorkBatch, WorkItem

if TYPE_CHECKING:
    from saaa.runtime.caption_parts import OpenVinoCaptioner

_log = logging.getLogger(__name__)

_BOX_SLACK = 1e-2
"""Pixels that rounding may push a box beyond the input."""


class CaptionerRunner:
    """Captions, made or given, and what explains them."""

    works: tuple[Work, ...] = (Work.CAPTION,)

    def __init__(self, archive: Archive, options: RuntimeOptions, threads: int | None) -> None:
        self._threads = threads
        self._captioner = captioner = GuidedCaptioner.from_archive(archive)
        self._info = archive.info()

        def open_parts(graph: Graph, precision: str, blobs: Blobs | None) -> tuple[OpenVinoCaptioner, str | None]:
            from saaa.runtime.caption_parts import OpenVinoCaptioner  # openvino is an extra

            levels = len(captioner.features.config.levels)
            parts = OpenVinoCaptioner(
                graph, captioner.captioner, levels=levels, precision=precision, threads=threads, blobs=blobs
            )
            reference = CaptionReference.unpack(archive.graph[PARITY])
            return parts, measure_captions(reference, captioner, parts).refusal()

        hold_threads(threads)
        choice = choose(archive, options, threads, open_parts)
        self._compiled = choice.compiled
        self.engine = choice.engine(torch_engine())
        """See `fingerprint`."""
        self.execution = choice.execution

    @property
    def threads(self) -> int:
        """For one batch."""
        return self._threads or torch.get_num_threads()

    def check_options(self, batch: WorkBatch) -> None:
        """Keep the options of decoding and of attribution inside their ranges."""
        check_options(batch.caption)
        check_explain_options(batch.explain)
        find_caption_method(batch.explain.method)

    def check_item(self, batch: WorkBatch, item: WorkItem) -> None:
        """Have a graph that fits, known words, and targets that may exist."""
        graph = self._graph(item)
        if item.every_word and item.words:
            raise OptionInvalid("Ask for every word or for some, not both.", field="attribution.words")
        if item.text is not None:
            self._captioner.encode(item.text)
            most = len(item.text)
        else:
            most = batch.caption.max_words or self._info.max_words
        check_wanted(
            Wanted(words=item.words, nodes=item.nodes), words=most, nodes=len(graph), made=item.text is not None
        )

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        """Compute; the backbone looks once at each image, whatever is asked."""
        hold_threads(self._threads)
        graphs = [self._graph(item) for item in batch.items]
        pixels = torch.tensor(batch.pixels)
        seen, wrong = self._see(pixels, graphs)
        results = self._captions(batch, seen)
        for row in wrong:
            results[row] = dataclasses.replace(results[row], recomputed=True)
        rows: list[int] = []
        wanted: list[Wanted] = []
        for row, item in enumerate(batch.items):
            try:
                targets = _wanted(item, results[row].captions[0])
            except SaaaError as error:
                results[row] = ItemResult(error=item_error(error))
                continue
            if targets.words or targets.nodes:
                rows.append(row)
                wanted.append(targets)
        if rows:
            made = attribute_caption(
                self._captioner,
                pixels[rows],
                [graphs[row] for row in rows],
                [results[row].captions[0].words for row in rows],
                wanted,
                batch.explain,
                seen=seen.select(rows),
            )
            for row, maps in zip(rows, made, strict=True):
                results[row] = dataclasses.replace(results[row], maps=maps)
        return results

    def _see(self, pixels: Tensor, graphs: Sequence[RoleGraph]) -> tuple[Seen, list[int]]:
        """And the rows that torch saw again, because the compiled backbone's maps of them are not finite."""
        seen = self._captioner.see(pixels, graphs, self._compiled)
        if self._compiled is None:
            return seen, []
        wrong = [row for row, finite in enumerate(seen.finite()) if not finite]
        if wrong:
            _log.warning(
                "%s: %d images seen by %s are not finite; torch sees them again",
                self._info.name,
                len(wrong),
                self._compiled.name,
            )
            again = self._captioner.see(pixels[wrong], [graphs[row] for row in wrong])
            for level, right in zip(seen.levels, again.levels, strict=True):
                level[wrong] = right
        return seen, wrong

    def _captions(self, batch: WorkBatch, seen: Seen) -> list[ItemResult]:
        """For each item the given caption with its score, or those that are made."""
        texts = [item.text for item in batch.items]
        given = [row for row, text in enumerate(texts) if text is not None]
        free = [row for row, text in enumerate(texts) if text is None]
        found: dict[int, ItemResult] = {}
        if given:
            scored = self._captioner.score_seen(seen.select(given), [text for text in texts if text is not None])
            found |= {row: ItemResult(captions=(caption,)) for row, caption in zip(given, scored, strict=True)}
        if free:
            found |= zip(free, self._made(seen.select(free), batch.caption), strict=True)
        return [found[row] for row in range(len(texts))]

    def _made(self, seen: Seen, options: CaptionOptions) -> list[ItemResult]:
        """Captions. What the compiled parts cannot compute is computed by the eager ones, and only that."""
        if self._compiled is None:
            return [ItemResult(captions=made) for made in self._captioner.caption_seen(seen, options)]
        try:
            return [ItemResult(captions=made) for made in self._captioner.caption_seen(seen, options, self._compiled)]
        except (ArithmeticError, RuntimeError) as error:
            if len(seen) > 1:
                return [one for row in range(len(seen)) for one in self._made(seen.select([row]), options)]
            _log.warning("%s: %s; torch computes it again", self._info.name, error)
            (made,) = self._captioner.caption_seen(seen, options)
            return [ItemResult(captions=made, recomputed=True)]

    def _graph(self, item: WorkItem) -> RoleGraph:
        graph, most = item.graph, self._info.max_nodes
        if graph is None:
            raise SceneGraphError("A caption needs a scene graph; give one.", field="graph")
        if len(graph) > most:
            raise SceneGraphError(f"The graph has {len(graph)} nodes; the model takes at most {most}.", field="graph")
        if graph.boxes.min() < -_BOX_SLACK or graph.boxes.max() > self._info.input_size + _BOX_SLACK:
            raise SceneGraphError("A box lies outside the image.", field="graph.objects")
        return graph


def _wanted(item: WorkItem, caption: CaptionResult) -> Wanted:
    """What to explain of the best caption.

    Raises:
        OptionInvalid: a word past the caption that was made, or a node when the caption has no words.
    """
    words = tuple(range(len(caption.words))) if item.every_word else item.words
    wanted = Wanted(words=words, nodes=item.nodes)
    check_wanted(wanted, words=len(caption.words), nodes=caption.node_weights.shape[1])
    if item.nodes and not caption.words:
        raise OptionInvalid(
            "The caption has no words, so that nothing of it can be told of a node.", field="attribution.nodes"
        )
    return wanted
