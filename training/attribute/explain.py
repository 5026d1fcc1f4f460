"""From loaded images to answers: a batch of work for the archived model, and what its results mean in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.concepts import ConceptScore, concept_attribution
from saaa.errors import OptionInvalid
from saaa.runtime.executor import Executor
from saaa.scene_graph import RoleGraph
from saaa.work import (
    AUTO_METHOD,
    AttributionMap,
    CaptionOptions,
    ItemError,
    ItemResult,
    ModelKind,
    TargetKind,
    Work,
    WorkBatch,
    WorkItem,
)
from training.attribute.config import AttributeConfig
from training.attribute.data import Item, Loaded
from training.attribute.targets import Wanted

PREDICTIONS_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One map with what is said of it."""

    values: NDArray[np.float32]
    """(rows, columns)"""
    facts: dict[str, Any]
    """Kind, target, name, method and figures; JSON values."""
    concepts: tuple[ConceptScore, ...] = ()
    """With a graph: what each of its nodes gets of the map."""
    weights: NDArray[np.float32] | None = None
    """Captioner: how much each node speaks for the target; a captioner may see fewer nodes than the graph has."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All that is known of one item after the run."""

    record: dict[str, Any]
    """What the index says of it, without its maps; JSON values."""
    grids: tuple[Grid, ...] = ()


class Explainer:
    """Explains batches of images with an archived model.

    Args:
        executor: the model.
        config: the options.
        wanted: the targets.

    Raises:
        OptionInvalid: the model cannot do what the options ask for.
    """

    def __init__(self, executor: Executor, config: AttributeConfig, wanted: Wanted) -> None:
        self._executor = executor
        self.model = executor.info
        """What the model says of itself."""
        self._options = config.explain()
        self._caption = CaptionOptions(beam_width=config.beam_width)
        self._wanted = wanted
        methods = [AUTO_METHOD, *(method.name for method in self.model.methods)]
        if config.method not in methods:
            raise OptionInvalid(
                f"Attribution method {config.method!r} is not offered by {self.model.name}; choose one of "
                f"{', '.join(methods)}.",
                field="method",
            )
        if config.effects and self.model.kind is ModelKind.EGA:
            raise OptionInvalid(
                "effects are measured of classes, not of a captioner's words; leave it out.", field="effects"
            )

    def explain(self, batch: Sequence[Loaded]) -> list[Answer]:
        """Explain what could be loaded; one answer an item, in order."""
        sound = [loaded for loaded in batch if loaded.error is None]
        results = iter(self._run(sound))
        return [
            _failed(loaded, loaded.error) if loaded.error is not None else self._answer(loaded, next(results))
            for loaded in batch
        ]

    def _run(self, batch: Sequence[Loaded]) -> list[ItemResult]:
        if not batch:
            return []
        pixels = np.stack([loaded.pixels for loaded in batch if loaded.pixels is not None])
        captions = self.model.kind is ModelKind.EGA
        return self._executor.run(
            WorkBatch(
                model=self.model.name,
                version=self.model.version,
                work=Work.CAPTION if captions else Work.EXPLAIN,
                pixels=pixels,
                items=tuple(self._captioning(batch) if captions else self._classifying(batch, pixels)),
                explain=self._options,
                caption=self._caption,
            )
        )

    def _captioning(self, batch: Sequence[Loaded]) -> list[WorkItem]:
        items = []
        for loaded in batch:
            graph = self._graph(loaded)
            nodes = tuple(range(len(graph))) if self._wanted.nodes and graph is not None else ()
            items.append(WorkItem(graph=graph, every_word=self._wanted.words, nodes=nodes))
        return items

    def _classifying(self, batch: Sequence[Loaded], pixels: NDArray[np.uint8]) -> list[WorkItem]:
        if self._wanted.top > 1:
            targets = self._most_probable(pixels, self._wanted.top)
        elif self._wanted.true:
            targets = [(self.model.classes.index(str(loaded.item.label)),) for loaded in batch]
        else:
            targets = [self._wanted.classes] * len(batch)  # empty is the most probable class
        return [
            WorkItem(targets=indices, graph=self._graph(loaded)) for loaded, indices in zip(batch, targets, strict=True)
        ]

    def _most_probable(self, pixels: NDArray[np.uint8], count: int) -> list[tuple[int, ...]]:
        """Which classes are the most probable is known only after a forward."""
        predicted = self._executor.run(
            WorkBatch(
                model=self.model.name,
                version=self.model.version,
                work=Work.PREDICT,
                pixels=pixels,
                items=(WorkItem(),) * len(pixels),
            )
        )
        return [
            () if result.probabilities is None else tuple(_best(result.probabilities, count)) for result in predicted
        ]

    def _graph(self, loaded: Loaded) -> RoleGraph | None:
        graph, geometry = loaded.item.graph, loaded.geometry
        if graph is None or geometry is None:
            return None
        most = self.model.max_nodes if self.model.kind is ModelKind.EGA else len(graph.nodes())
        role = graph.role_graph(most)
        return role.with_boxes(geometry.to_input(role.boxes))

    def _answer(self, loaded: Loaded, result: ItemResult) -> Answer:
        if result.error is not None:
            return _failed(loaded, result.error)
        record = {**_described(loaded), "error": None}
        if result.probabilities is not None:
            record["predictions"] = [
                {"class": self.model.classes[k], "probability": plain(result.probabilities[k])}
                for k in _best(result.probabilities, PREDICTIONS_LISTED)
            ]
        if result.captions:
            caption = result.captions[0]
            record["caption"] = {
                "words": list(caption.words),
                "log_probabilities": [plain(value) for value in caption.log_probabilities],
                "log_probability": plain(caption.log_probability),
            }
        return Answer(
            record=record,
            grids=tuple(self._grid(loaded, result, made) for made in result.maps),
        )

    def _grid(self, loaded: Loaded, result: ItemResult, made: AttributionMap) -> Grid:
        graph, geometry = loaded.item.graph, loaded.geometry
        facts: dict[str, Any] = {"kind": made.kind.value, "target": made.target, "name": "", "probability": None}
        if made.kind is TargetKind.CLASS and result.probabilities is not None:
            facts["name"] = self.model.classes[made.target]
            facts["probability"] = plain(result.probabilities[made.target])
        elif made.kind is TargetKind.WORD:
            facts["name"] = result.captions[0].words[made.target]
            facts["probability"] = plain(np.exp(result.captions[0].log_probabilities[made.target]))
        elif made.kind is TargetKind.NODE and graph is not None:
            facts["name"] = graph.nodes()[made.target].name
        facts["method"] = made.method
        facts["completeness_gap"] = None if made.completeness_gap is None else plain(made.completeness_gap)
        facts["deletion_drop"] = None if made.deletion_drop is None else plain(made.deletion_drop)
        concepts: tuple[ConceptScore, ...] = ()
        if graph is not None and geometry is not None:
            concepts = concept_attribution(made.values, geometry, graph, made.effects)
        values = np.asarray(made.values, np.float32)
        return Grid(values=values, facts=facts, concepts=concepts, weights=made.node_weights)


def plain(value: float | np.floating[Any]) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def needs_graph(config: AttributeConfig, items: Sequence[Item]) -> None:
    """Refuse options that need graphs where an item has none.

    Raises:
        OptionInvalid: naming the option.
    """
    wants = [("effects", config.effects), ("method", config.method == "region_shapley")]
    for name, wanted in wants:
        if wanted and any(item.graph is None for item in items):
            what = "--effects measures" if name == "effects" else "region_shapley removes"
            raise OptionInvalid(
                f"{what} the regions of a graph, and these data have none; add annotations.", field=name
            )


def _best(probabilities: NDArray[np.float32], count: int) -> list[int]:
    return [int(k) for k in np.argsort(-probabilities, kind="stable")[:count]]


def _described(loaded: Loaded) -> dict[str, Any]:
    item, geometry = loaded.item, loaded.geometry
    covered = None if geometry is None else {k: v for k, v in asdict(geometry).items() if k != "size"}
    return {
        "file": item.file,
        "region": item.region,
        "sha256": loaded.sha256,
        "width": loaded.width,
        "height": loaded.height,
        "covered": covered,
        "label": item.label,
    }


def _failed(loaded: Loaded, error: ItemError) -> Answer:
    return Answer(record={**_described(loaded), "error": {"reason": error.reason, "message": error.message}})
