"""`attribute_caption`: why a captioner said a word, and what a node of its graph had to do with the caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saaa.attribution.base import frozen
from saaa.attribution.options import check_options
from saaa.attribution.removal import chunks, top_share
from saaa.attribution.word_maps import CAPTION_METHODS, CaptionMethod, CaptionTarget, WordMap, word_shares
from saaa.errors import AttributionFailed, OptionInvalid
from saaa.models.guided import GuidedCaptioner
from saaa.models.seen import Seen
from saaa.role_graph import RoleGraph
from saaa.work import AUTO_METHOD, DELETION_SHARE, AttributionMap, CaptionResult, ExplainOptions, MethodInfo, TargetKind

DEFAULTS = ExplainOptions()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to explain of one caption."""

    words: tuple[int, ...] = ()
    """Places in the caption, from 0."""
    nodes: tuple[int, ...] = ()
    """Places in the role graph, from 0."""


def caption_methods_for(captioner: GuidedCaptioner) -> tuple[MethodInfo, ...]:
    """List the methods that can explain this captioner, its default first."""
    return tuple(
        MethodInfo(
            name=method.name,
            cost_forwards=method.cost_forwards,
            reference=method.reference,
            targets=(TargetKind.WORD, TargetKind.NODE),
        )
        for method in CAPTION_METHODS
    )


def attribute_caption(
    captioner: GuidedCaptioner,
    pixels: Tensor,
    graphs: Sequence[RoleGraph],
    captions: Sequence[Sequence[str]],
    wanted: Sequence[Wanted],
    options: ExplainOptions = DEFAULTS,
    *,
    seen: Seen | None = None,
) -> list[tuple[AttributionMap, ...]]:
    """Explain words of captions, and nodes of the graphs that guided them, from one shared forward.

    The captions may be the captioner's own or anyone's: they are run through the decoder word by word. The result for
    an image does not depend on the others, up to rounding (1e-5 of the map's maximum). The captioner is left as it was
    found, also after an error.

    Args:
        captioner: in any mode; it is held in evaluation mode meanwhile.
        pixels: uint8 (B, S, S, 3), RGB, at the captioner's input size.
        graphs: one an image, boxes in pixels of the input.
        captions: for each image the words of a caption.
        wanted: for each image what to explain.
        options: the method, and whether to measure the deletion drop. A node's probability is that of the caption's
            words, averaged by their attention to it.
        seen: what `captioner.see` gave for these images, if that is known already.

    Returns:
        For each image one map a target: the words in the order asked for, then the nodes.

    Raises:
        OptionInvalid: an unknown method, an option outside its range, a word that the captioner does not know, a
            caption without words or with too many, a word or node out of range; found before any computing.
        SceneGraphError: a graph that cannot guide a caption.
        AttributionFailed: a map that is not finite.
    """
    check_options(options)
    method = find_caption_method(options.method)
    captioner.check_graphs(graphs, images=len(pixels))
    if not len(pixels) == len(captions) == len(wanted):
        raise OptionInvalid(
            f"{len(pixels)} images need as many captions and lists of targets, not {len(captions)} and {len(wanted)}.",
            field="caption.text",
        )
    for words, nodes, chosen in zip(captions, graphs, wanted, strict=True):
        captioner.encode(words)
        check_wanted(chosen, words=len(words), nodes=len(nodes))
    if not graphs:
        return []
    targets = [target for image, chosen in enumerate(wanted) for target in _targets(image, chosen)]
    # Gradients are computed whatever mode the caller is in.
    with frozen(captioner), torch.inference_mode(False), torch.enable_grad():
        seen = captioner.see(pixels, graphs) if seen is None else seen
        made = method.run(captioner, seen, captions, targets)
        _check_finite(method, targets, made)
        drops: Sequence[float | None] = [None] * len(made)
        if options.deletion:
            drops = _drops(captioner, pixels, graphs, captioner.score_seen(seen, captions), targets, made)
    maps: list[list[AttributionMap]] = [[] for _ in graphs]
    for target, found, drop in zip(targets, made, drops, strict=True):
        maps[target.image].append(
            AttributionMap(
                target=target.index,
                kind=target.kind,
                method=method.name,
                values=found.values.float().cpu().numpy(),
                node_weights=found.node_weights.float().cpu().numpy(),
                deletion_drop=drop,
            )
        )
    return [tuple(group) for group in maps]


def find_caption_method(name: str) -> CaptionMethod:
    """The method of that name, the default for "auto".

    Raises:
        OptionInvalid: there is none.
    """
    if name == AUTO_METHOD:
        return CAPTION_METHODS[0]
    for method in CAPTION_METHODS:
        if method.name == name:
            return method
    offer = ", ".join([AUTO_METHOD, *(method.name for method in CAPTION_METHODS)])
    raise OptionInvalid(
        f"Attribution method {name!r} cannot explain a caption. Choose one of {offer}.", field="attribution.word_method"
    )


def check_wanted(wanted: Wanted, *, words: int, nodes: int, made: bool = True) -> None:
    """Refuse words past the caption and nodes past the graph.

    Args:
        wanted: what is asked for.
        words: how many the caption has.
        nodes: how many the graph has.
        made: whether there is a caption yet; if not, `words` is the most that it may have.

    Raises:
        OptionInvalid: naming the first, and how many there are.
    """
    have = "has" if made else "may have up to"
    for field, places, count, whole in (
        ("words", wanted.words, words, f"the caption {have}"),
        ("nodes", wanted.nodes, nodes, "the graph has"),
    ):
        for place in places:
            if not 0 <= place < count:
                raise OptionInvalid(
                    f"There is no {field[:-1]} {place}: {whole} {count} {field}, counted from 0.",
                    field=f"attribution.{field}",
                )


def _targets(image: int, wanted: Wanted) -> list[CaptionTarget]:
    words = [CaptionTarget(image, TargetKind.WORD, place) for place in wanted.words]
    return words + [CaptionTarget(image, TargetKind.NODE, place) for place in wanted.nodes]


def _check_finite(method: CaptionMethod, targets: Sequence[CaptionTarget], made: Sequence[WordMap]) -> None:
    for target, found in zip(targets, made, strict=True):
        if not (found.values.isfinite().all() and found.node_weights.isfinite().all()):
            raise AttributionFailed(
                f"Method {method.name} gave a map that is not finite for {target.kind.value} {target.index} of image "
                f"{target.image}; try another method."
            )


def _drops(
    captioner: GuidedCaptioner,
    pixels: Tensor,
    graphs: Sequence[RoleGraph],
    scored: Sequence[CaptionResult],
    targets: Sequence[CaptionTarget],
    made: Sequence[WordMap],
) -> list[float]:
    """How much of each target's probability goes when the largest tenth of its map becomes the mean colour."""
    inputs = captioner.features.normalise(pixels.to(captioner.features.mean.device))
    size = captioner.features.config.input_size
    drops: list[float] = []
    for piece in chunks(len(targets)):
        chosen = targets[piece]
        images = [target.image for target in chosen]
        gone = torch.cat([top_share(found.values[None], size, DELETION_SHARE) for found in made[piece]])
        with torch.no_grad():
            kept = inputs[images] * ~gone[:, None].to(inputs.device)
            left = captioner.see_inputs(kept, [graphs[image] for image in images])
        again = captioner.score_seen(left, [scored[image].words for image in images])
        for target, after in zip(chosen, again, strict=True):
            before = scored[target.image]
            shares = word_shares(target, torch.from_numpy(before.node_weights)).numpy()
            drops.append(_probability(before, shares) - _probability(after, shares))
    return drops


def _probability(caption: CaptionResult, shares: np.ndarray) -> float:
    """The mean probability of a caption's words by their shares (words,); 0 where no word has any."""
    total = float(shares.sum())
    return float(np.exp(caption.log_probabilities) @ shares) / total if total > 0 else 0.0
