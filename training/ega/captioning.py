"""Captions of the regions of a set along several graphs each, from one look at every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from saaa.models.captioner import collate
from saaa.models.guided import GuidedCaptioner
from saaa.models.seen import Seen
from saaa.scene_graph import SceneGraph
from saaa.work import CaptionOptions, CaptionResult, Sampling
from training.ega.config import EvaluateConfig
from training.ega.dataset import CaptionSet, RegionFeatures, load_input
from training.ega.explanation import node_accuracy, said_node_accuracy
from training.ega.published import ImageFolder, Region
from training.progress import progress

TRUE, PROPOSED, SHUFFLED = "true", "proposed", "shuffled"
"""The region's own graph, the one proposed for its image, another image's."""
Several = list[list[tuple[str, ...]]]
"""For each image the words of several captions."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a captioner says of R regions."""

    along: dict[str, list[CaptionResult]]
    """By kind of graph, R captions each."""
    several: dict[str, Several]
    """Of the first region of each image, along its true graph: "beam", the best of a beam search; "sample", drawn from
    the model's distribution."""
    node_accuracy: float | None
    """Of the reference captions' words that name a node: the share said while attending most to a node they name."""
    said_node_accuracy: float | None
    """The same of its own captions along the true graph."""


@torch.inference_mode()
def caption_regions(
    guided: GuidedCaptioner,
    regions: Sequence[Region],
    graphs: Mapping[str, Sequence[SceneGraph]],
    folder: ImageFolder,
    config: EvaluateConfig,
) -> Said:
    """Caption each region along each of its graphs, as serving does.

    Args:
        guided: on the device to use.
        regions: what to caption.
        graphs: by kind one graph a region, boxes in pixels of the region's image; `TRUE` is one of them.
        folder: where the images are.
        config: how to decode.

    Raises:
        DataError: an image cannot be read.
    """
    best = CaptionOptions(beam_width=config.beam_width)
    ways = {
        "beam": CaptionOptions(beam_width=max(config.beam_width, config.diverse), count=config.diverse),
        "sample": CaptionOptions(count=config.diverse, sampling=Sampling(seed=config.seed)),
    }
    along: dict[str, list[CaptionResult]] = {kind: [] for kind in graphs}
    several: dict[str, Several] = {way: [] for way in ways if config.diverse > 1}
    firsts: dict[str, int] = {}
    for row, region in enumerate(regions):
        firsts.setdefault(region.image_id, row)
    pooled: list[tuple[torch.Tensor, torch.Tensor]] = []
    for first in progress(range(0, len(regions), config.batch_size), "captions"):
        rows = range(first, min(first + config.batch_size, len(regions)))
        part = {kind: [made[row] for row in rows] for kind, made in graphs.items()}
        looked = _look(guided, [regions[row] for row in rows], part, folder)
        for kind, seen in looked.items():
            along[kind] += [captions[0] for captions in guided.caption_seen(seen, best)]
        new = [k for k, row in enumerate(rows) if firsts[regions[row].image_id] == row]
        for way, captions in several.items() if new else ():
            found = guided.caption_seen(looked[TRUE].select(new), ways[way])
            captions += [[one.words for one in several_of_one] for several_of_one in found]
        nodes, image = guided.pool(looked[TRUE])
        pooled.append((nodes[looked[TRUE].graphs.mask].cpu(), image.cpu()))
    return Said(
        along=along,
        several=several,
        node_accuracy=_node_accuracy(guided, regions, graphs[TRUE], pooled),
        said_node_accuracy=said_node_accuracy(along[TRUE], graphs[TRUE]),
    )


def _look(
    guided: GuidedCaptioner, regions: Sequence[Region], graphs: Mapping[str, Sequence[SceneGraph]], folder: ImageFolder
) -> dict[str, Seen]:
    """See each image once, then along every graph."""
    names = list(dict.fromkeys(region.file_name for region in regions))
    loaded = {name: load_input(folder.paths[name], guided.features.config) for name in names}
    device = guided.features.mean.device
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in loaded.values()]))
    inputs = guided.features.normalise(pixels.to(device))
    of = torch.tensor([names.index(region.file_name) for region in regions], device=device)
    levels = [level[of] for level in guided.features.backbone(inputs)]
    looked = {}
    for kind, part in graphs.items():
        roles = []
        for region, graph in zip(regions, part, strict=True):
            role = graph.role_graph(guided.captioner.config.max_nodes)
            roles.append(role.with_boxes(loaded[region.file_name][1].to_input(role.boxes)))
        guided.check_graphs(roles, images=len(regions))
        boxes = [torch.tensor(role.boxes, device=device) for role in roles]
        looked[kind] = Seen(levels=levels, boxes=boxes, graphs=collate(roles).to(device, inputs.dtype))
    return looked


def _node_accuracy(
    guided: GuidedCaptioner,
    regions: Sequence[Region],
    graphs: Sequence[SceneGraph],
    pooled: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> float | None:
    config = guided.captioner.config
    roles = [graph.role_graph(config.max_nodes) for graph in graphs]
    sizes = torch.tensor([len(role) for role in roles])
    features = RegionFeatures(
        nodes=torch.cat([nodes for nodes, _ in pooled]),
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
        image=torch.cat([image for _, image in pooled]),
        image_of=torch.arange(len(regions)),
    )
    captions = CaptionSet(regions, roles, features, guided.vocabulary, config.max_words + 1, aligned=True)
    return node_accuracy(guided.captioner, captions, guided.features.mean.device)
