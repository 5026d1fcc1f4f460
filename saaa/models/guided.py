"""The served captioner: backbone features, captioner and vocabulary in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from saaa.errors import ArchiveError, OptionInvalid, SaaaError, SceneGraphError
from saaa.models.captioner import (
    BOS,
    EOS,
    SPECIAL,
    UNK,
    Captioner,
    CaptionerConfig,
    Hypotheses,
    Vocabulary,
    collate,
    pad_tokens,
    sample,
    search,
)
from saaa.models.captioner.config import MAX_GUIDING_NODES, MAX_WORDS_LIMIT
from saaa.models.captioner.decoder import StepWeights
from saaa.models.features import FeatureExtractor
from saaa.models.parts import CaptionerParts
from saaa.models.preprocessing import check_pixels
from saaa.models.seen import Seen
from saaa.role_graph import RoleGraph
from saaa.work import MAX_LENGTH_PENALTY, TEMPERATURES, CaptionOptions, CaptionResult, ModelKind

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
        self._frozen = False
        self._weights: StepWeights | None = None
        self.eval()

    def see(self, pixels: Tensor, graphs: Sequence[RoleGraph], parts: CaptionerParts | None = None) -> Seen:
        """The forward that everything about these images shares; without a graph for gradients.

        Args:
            pixels: uint8 (B, S, S, 3), RGB, at the features' input size.
            graphs: one an image, boxes in pixels of the input, 1 to `MAX_GUIDING_NODES` nodes.
            parts: see in the backbone's place.

        Raises:
            OptionInvalid: pixels of another shape, or not one graph an image.
            SceneGraphError: a graph with too many nodes or attributes.
        """
        self.check_graphs(graphs, images=len(pixels))
        # Not inference mode, whatever the caller's: attribution differentiates from the maps on.
        with torch.inference_mode(False), torch.no_grad():
            if parts is not None:
                check_pixels(pixels, self.features.config.input_size)
                return _seen(parts.see(pixels), graphs)
            return self.see_inputs(self.features.normalise(pixels.to(self.features.mean.device)), graphs)

    def see_inputs(self, inputs: Tensor, graphs: Sequence[RoleGraph]) -> Seen:
        """As `see`, from the backbone's input (B, 3, S, S); nothing is checked."""
        return _seen(self.features.backbone(inputs), graphs)

    def pool(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The captioner's input of what was seen: regions (B, N, region_size), zero at padding, and images (B,
        global_size); differentiable in `seen.levels`."""
        regions, image = self.features.pool(seen.levels, seen.boxes)
        padded = regions.new_zeros(*seen.graphs.mask.shape, regions.shape[-1])
        padded[seen.graphs.mask] = regions
        return padded, image

    def caption(
        self, pixels: Tensor, graphs: Sequence[RoleGraph], options: CaptionOptions
    ) -> list[tuple[CaptionResult, ...]]:
        """Caption each image along its graph; the same input gives the same captions.

        Args:
            pixels, graphs: as for `see`.
            options: how to decode.

        Returns:
            For each image up to `options.count` captions, the most probable first (but see `length_penalty`); those
            that are drawn may be equal.

        Raises:
            OptionInvalid: an option outside its range, pixels of another shape, or not one graph an image.
            SceneGraphError: a graph with too many nodes or attributes.
        """
        check_options(options)
        return self.caption_seen(self.see(pixels, graphs), options) if graphs else []

    @torch.inference_mode()
    def caption_seen(
        self, seen: Seen, options: CaptionOptions, parts: CaptionerParts | None = None
    ) -> list[tuple[CaptionResult, ...]]:
        """As `caption`, of what `see` gave; `parts` encode and take the decoder's steps in the captioner's place."""
        begin, advance = (self.captioner.begin, None) if parts is None else (parts.begin, parts.advance)
        state, guide = begin(*self.pool(seen), seen.graphs)
        max_words = self.captioner.config.max_words if options.max_words is None else options.max_words
        decoder, drawn = self.captioner.decoder, options.sampling
        weights = self._ready() if advance is None else None
        if drawn is None:
            found = search(
                decoder,
                state,
                guide,
                width=options.beam_width,
                max_words=max_words,
                length_penalty=options.length_penalty,
                weights=weights,
                advance=advance,
            )
        else:
            found = sample(
                decoder,
                state,
                guide,
                count=options.count,
                max_words=max_words,
                seeds=[drawn.seed] * len(seen),
                temperature=drawn.temperature,
                top_k=drawn.top_k,
                top_p=drawn.top_p,
                length_penalty=options.length_penalty,
                weights=weights,
                advance=advance,
            )
        return self._results(found, [len(boxes) for boxes in seen.boxes], options.count)

    def score_seen(self, seen: Seen, captions: Sequence[Sequence[str]]) -> list[CaptionResult]:
        """What the captioner thinks of given captions: each word's probability and node weights, as if it had said it.

        The decoder unrolls once for all. A caption that `caption` made scores as it did there.

        Args:
            seen: as `see` gave it.
            captions: the words of one caption an image.

        Raises:
            OptionInvalid: as `encode`, or not one caption an image.
        """
        if len(captions) != len(seen):
            raise OptionInvalid(f"{len(seen)} images came with {len(captions)} captions.", field="caption.text")
        ids = [self.encode(words) for words in captions]
        with torch.inference_mode():
            taught = self.captioner.teach(*self.pool(seen), seen.graphs, *pad_tokens(ids, seen.levels[0].device))
            chances = self.captioner.decoder.log_probabilities(taught.hidden)
            chances = chances.gather(1, taught.targets[:, None])[:, 0]
        results = []
        for row, words in enumerate(captions):
            mine = taught.rows == row  # in the order of the words
            each = chances[mine].cpu()
            weights = taught.attention[mine, : len(seen.boxes[row])].float().cpu().numpy()
            results.append(
                CaptionResult(
                    words=tuple(words),
                    log_probabilities=each[:-1].numpy(),
                    node_weights=weights[:-1],
                    log_probability=float(each.sum()),
                )
            )
        return results

    def encode(self, words: Sequence[str]) -> tuple[int, ...]:
        """BOS, the ids of a given caption's words, and EOS.

        Raises:
            OptionInvalid: no word or too many, or a word that this captioner does not know.
        """
        if not 1 <= len(words) <= MAX_WORDS_LIMIT:
            raise OptionInvalid(
                f"The caption has {len(words)} words; give 1 to {MAX_WORDS_LIMIT}.", field="caption.text"
            )
        ids = [self.vocabulary.ids.get(word, UNK) for word in words]
        for word, index in zip(words, ids, strict=True):
            if index < SPECIAL:
                raise OptionInvalid(
                    f"The captioner does not know the word {word!r}; write lower-case words of its vocabulary.",
                    field="caption.text",
                )
        return (BOS, *ids, EOS)

    def check_graphs(self, graphs: Sequence[RoleGraph], *, images: int) -> None:
        """Refuse graphs that cannot guide a caption; see `see`."""
        if images != len(graphs):
            raise OptionInvalid(f"{images} images came with {len(graphs)} graphs; give one each.", field="graph")
        for graph in graphs:
            _check_graph(graph, self.captioner.config)

    def _ready(self) -> StepWeights | None:
        """The decoder's weights, prepared once where they stay as they are."""
        if self._frozen and self._weights is None:
            self._weights = self.captioner.decoder.weights(frozen=True)
        return self._weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._weights = None  # they are copies: moved to another device or precision, the module makes new ones
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

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
        from saaa.attribution import caption_methods_for

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
                "max_nodes": MAX_GUIDING_NODES,
                "max_words": config.max_words,
                "methods": [
                    {
                        "name": method.name,
                        "cost_forwards": method.cost_forwards,
                        "reference": method.reference,
                        "targets": [kind.value for kind in method.targets],
                    }
                    for method in caption_methods_for(self)
                ],
            },
            card=dict(card),
            tensors={key: value.detach().cpu().contiguous().numpy() for key, value in self.state_dict().items()},
        )

    @classmethod
    def from_archive(cls, archive: Archive) -> GuidedCaptioner:
        """Build the captioner of an archive, frozen and in evaluation mode; its weights are not to be changed.

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
        guided._frozen = True
        return guided.requires_grad_(False)


def _seen(levels: list[Tensor], graphs: Sequence[RoleGraph]) -> Seen:
    like = levels[0]
    boxes = [torch.tensor(graph.boxes, device=like.device) for graph in graphs]
    return Seen(levels=levels, boxes=boxes, graphs=collate(graphs).to(like.device, like.dtype))


def check_options(options: CaptionOptions) -> None:
    """Refuse decoding options outside their ranges.

    Raises:
        OptionInvalid: naming the option.
    """
    drawn = options.sampling
    ranges: list[tuple[str, float | None, float, float]] = [
        ("beam_width", options.beam_width, 1, MAX_BEAM),
        ("count", options.count, 1, options.beam_width if drawn is None else MAX_BEAM),
        ("max_words", options.max_words, 1, MAX_WORDS_LIMIT),
        ("length_penalty", options.length_penalty, 0, MAX_LENGTH_PENALTY),
    ]
    if drawn is not None:
        ranges += [
            ("sampling.temperature", drawn.temperature, *TEMPERATURES),
            ("sampling.top_k", drawn.top_k, 1, math.inf),
            ("sampling.top_p", drawn.top_p, math.nextafter(0, 1), 1),
            ("sampling.seed", drawn.seed, 0, 2**64 - 1),
        ]
    for name, value, least, most in ranges:
        if value is not None and not least <= value <= most:
            raise OptionInvalid(f"{name} is {value}; choose {least:g} to {most:g}.", field=f"caption.{name}")


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
    if not 1 <= len(graph.types) <= MAX_GUIDING_NODES:
        raise SceneGraphError(
            f"The graph has {len(graph.types)} nodes; the captioner takes 1 to {MAX_GUIDING_NODES}.",
            field="graph",
        )
    if graph.orders.max() >= config.order_rows:
        raise SceneGraphError(
            f"An object has more than {config.order_rows - 1} attributes; leave some out.",
            field="graph.objects",
        )
