"""The served captioner: backbone features, captioner and vocabulary in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saaa.errors import ArchiveError, OptionInvalid, SaaaError, SceneGraphError
from saaa.models.captioner import Captioner, CaptionerConfig, Hypotheses, Vocabulary, collate, search
from saaa.models.captioner.config import MAX_WORDS_LIMIT
from saaa.models.features import FeatureExtractor
from saaa.role_graph import RoleGraph
from saaa.work import CaptionOptions, CaptionResult, ModelKind

if TYPE_CHECKING:
    from saaa.archive import Archive

MAX_BEAM = 10


class GuidedCaptioner(nn.Module):
    """Pictures and role graphs in, captions out.

    Args:
        features: what makes the captioner's input.
        captioner: of the features' sizes.
        vocabulary: its words.
    """

    def __init__(self, features: FeatureExtractor, captioner: Captioner, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.features = features
        self.captioner = captioner
        self.vocabulary = vocabulary
        self.eval()

    @torch.inference_mode()
    def caption(
        self, pixels: Tensor, graphs: Sequence[RoleGraph], options: CaptionOptions
    ) -> list[tuple[CaptionResult, ...]]:
        """Caption each image along its graph; the same input gives the same captions.

        Args:
            pixels: uint8 (B, S, S, 3), RGB, at the features' input size.
            graphs: one an image, boxes in pixels of the input, at most `max_nodes` nodes.
            options: how to decode.

        Returns:
            For each image up to `options.count` different captions, the most probable first.

        Raises:
            OptionInvalid: an option outside its range, or pixels of another shape.
            SceneGraphError: a graph with too many nodes or attributes.
        """
        check_options(options)
        if len(pixels) != len(graphs):
            raise OptionInvalid(f"{len(pixels)} images came with {len(graphs)} graphs; give one each.", field="graph")
        if not graphs:
            return []
        config = self.captioner.config
        for graph in graphs:
            _check_graph(graph, config)
        device = self.features.region_mean.device
        boxes = [torch.tensor(graph.boxes, device=device) for graph in graphs]
        regions, image = self.features(pixels.to(device), boxes)
        batch = collate(graphs).to(device)
        padded = regions.new_zeros(*batch.mask.shape, regions.shape[-1])
        padded[batch.mask] = regions
        state, guide = self.captioner.begin(padded, image, batch)
        max_words = config.max_words if options.max_words is None else options.max_words
        found = search(self.captioner.decoder, state, guide, width=options.beam_width, max_words=max_words)
        return self._results(found, [len(graph.types) for graph in graphs], options.count)

    def _results(self, found: Hypotheses, nodes: Sequence[int], count: int) -> list[tuple[CaptionResult, ...]]:
        tokens = found.tokens.tolist()
        lengths = found.lengths.tolist()
        scores = found.scores.tolist()
        chances = found.log_probabilities.float().cpu().numpy()
        attention = found.attention.float().cpu().numpy()
        return [
            tuple(
                CaptionResult(
                    words=self.vocabulary.decode(tokens[b][k]),
                    log_probabilities=chances[b, k, : lengths[b][k]].copy(),
                    node_weights=attention[b, k, : lengths[b][k], : nodes[b]].copy(),
                    log_probability=scores[b][k],
                )
                for k in range(count)
                if scores[b][k] > -torch.inf
            )
            for b in range(len(nodes))
        ]

    def to_archive(self, name: str, version: str, card: Mapping[str, Any]) -> Archive:
        """Put backbone, captioner and vocabulary into an archive, ready for `saaa.archive.write`.

        Args:
            name, version: how the model will be served.
            card: the model card: data, digest, metrics, recipe (JSON values).
        """
        from saaa.archive import Archive

        described = self.features.describe()
        config = self.captioner.config
        return Archive(
            kind=ModelKind.EGA,
            name=name,
            version=version,
            config={
                "architecture": {**described["architecture"], "captioner": asdict(config)},
                "preprocessing": described["preprocessing"],
                "vocabulary": list(self.vocabulary.words),
                "max_nodes": config.max_nodes,
                "max_words": config.max_words,
            },
            card=dict(card),
            tensors={key: value.detach().cpu().contiguous().numpy() for key, value in self.state_dict().items()},
        )

    @classmethod
    def from_archive(cls, archive: Archive) -> GuidedCaptioner:
        """Build the captioner of an archive, frozen and in evaluation mode.

        Raises:
            ArchiveError: the archive holds another kind of model, lacks a setting, or its weights do not fit.
        """
        if archive.kind is not ModelKind.EGA:
            raise ArchiveError(f"Archive {archive.name!r} holds a model of kind {archive.kind.value}, not ega.")
        try:
            vocabulary = Vocabulary(tuple(archive.config["vocabulary"]))
            features = FeatureExtractor.described(archive.config)
            config = CaptionerConfig(**archive.config["architecture"]["captioner"])
            check_sizes(config, features, vocabulary)
            guided = cls(features, Captioner(config), vocabulary)
            # A copy: arrays read from a file may not be writable.
            guided.load_state_dict({key: torch.tensor(value) for key, value in archive.tensors.items()})
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SaaaError) as error:
            raise ArchiveError(f"Archive {archive.name!r} does not describe a usable captioner: {error}") from error
        return guided.requires_grad_(False)


def check_options(options: CaptionOptions) -> None:
    """Refuse decoding options outside their ranges.

    Raises:
        OptionInvalid: naming the option.
    """
    most = {"beam_width": MAX_BEAM, "count": options.beam_width, "max_words": MAX_WORDS_LIMIT}
    for name, limit in most.items():
        value = getattr(options, name)
        if value is not None and not 1 <= value <= limit:
            raise OptionInvalid(f"{name} is {value}; choose 1 to {limit}.", field=f"caption.{name}")


def check_sizes(config: CaptionerConfig, features: FeatureExtractor, vocabulary: Vocabulary) -> None:
    """Refuse a captioner whose sizes are not those of its features and vocabulary.

    Raises:
        OptionInvalid: naming the size.
    """
    wanted = {
        "region_size": features.region_size,
        "global_size": features.image_size,
        "vocabulary_size": len(vocabulary),
    }
    for name, size in wanted.items():
        if getattr(config, name) != size:
            raise OptionInvalid(f"{name} is {getattr(config, name)} but must be {size}.", field=name)


def _check_graph(graph: RoleGraph, config: CaptionerConfig) -> None:
    if not 1 <= len(graph.types) <= config.max_nodes:
        raise SceneGraphError(
            f"The graph has {len(graph.types)} nodes; the captioner takes 1 to {config.max_nodes}.",
            field="graph",
        )
    if graph.orders.max() >= config.order_rows:
        raise SceneGraphError(
            f"An object has more than {config.order_rows - 1} attributes; leave some out.",
            field="graph.objects",
        )
