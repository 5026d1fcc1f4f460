"""What every attribution method is made of, and the one gradient loop that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions

Targets = list[tuple[int, ...]]
"""Class indices to explain, one tuple an image."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a method.

    `inputs` is (B, 3, S, S), preprocessed, without a graph. `choose` turns the logits (B, K) into the
    targets; it is a function because an image without targets gets its most probable class, which only the
    method's own forward tells.
    """

    classifier: Classifier
    inputs: Tensor
    choose: Callable[[Tensor], Targets]
    options: ExplainOptions
    regions: Sequence[Tensor] | None = None
    """For each image the regions that may be removed, bool (R, S, S); they may overlap."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What a method gives back: logits (B, K), and for every image one map (rows, columns) a target.

    `gaps` has the shape of `maps`, for methods with a completeness gap.
    """

    logits: Tensor
    targets: Targets
    maps: list[list[Tensor]]
    gaps: list[list[float]] | None = None


class Method(Protocol):
    """One attribution method. `run` is called with a frozen network in evaluation mode, gradients enabled."""

    name: str
    reference: str

    def supports(self, classifier: Classifier) -> bool:
        """Say whether the method can explain this network."""

    def cost(self, classifier: Classifier) -> float:
        """Give the price of one target with default options, prediction included, in forwards."""

    def run(self, job: Job) -> Explained:
        """Predict and explain."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What a gradient method makes of one forward: where gradients are to be taken, and what makes maps of them."""

    logits: Tensor
    """(B, K), with a graph to the sources."""
    sources: Sequence[Tensor]
    """Each (B, ...), one slice an image."""
    combine: Callable[..., Tensor]
    """Makes maps (B, rows, columns) of a logit's gradients, one argument a source."""


class GradientMethod(ABC):
    """A method of one forward and one backward a target; see `Method`.

    What it computes is all in `forward`, so that other runtimes can trace it (`saaa.runtime.tracing`).
    """

    name: str
    reference: str

    @abstractmethod
    def supports(self, classifier: Classifier) -> bool:
        """Say whether the method can explain this network."""

    @abstractmethod
    def cost(self, classifier: Classifier) -> float:
        """Give the price of one target with default options, prediction included, in forwards."""

    @abstractmethod
    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """Predict; arguments as in `Job`."""

    def run(self, job: Job) -> Explained:
        """One forward, and one backward a target (shared by the images)."""
        made = self.forward(job.classifier, job.inputs, job.options)
        logits = made.logits.detach()
        targets = job.choose(logits)
        maps = target_gradients(made.logits, targets, made.sources, made.combine)
        return Explained(logits=logits, targets=targets, maps=maps)


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Hold the network in evaluation mode without parameter gradients, and put everything back afterwards.

    With parameters frozen, a backward pass costs about one forward instead of two, and a graph begins only
    where a method asks for one. It changes flags of the network: use one replica a thread.
    """
    modules = list(net.modules())  # once: walking a deep network takes a noticeable part of a forward
    modes = [module for module in modules if module.training]
    trainable = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
    try:
        for module in modes:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in modes:
            module.training = True


def target_gradients(
    logits: Tensor, targets: Targets, sources: Sequence[Tensor], use: Callable[..., Tensor]
) -> list[list[Tensor]]:
    """Differentiate each target's logit with respect to `sources`, and turn the gradients into maps.

    Images do not interact in evaluation mode, so the k-th targets of all images share one backward pass: the
    gradient of the sum of their logits is, image by image, the gradient of each. Hence as many backward
    passes as the image with the most targets has.

    Args:
        logits: (B, K), with a graph to the sources.
        targets: class indices, one tuple an image.
        sources: each (B, ...), one slice an image.
        use: makes maps (B, rows, columns) of the gradients, one argument a source.
    """
    maps: list[list[Tensor]] = [[] for _ in targets]
    rounds = max((len(chosen) for chosen in targets), default=0)
    for turn in range(rounds):
        images = [i for i, chosen in enumerate(targets) if len(chosen) > turn]
        total = logits[images, [targets[i][turn] for i in images]].sum()
        made = use(*torch.autograd.grad(total, sources, retain_graph=turn + 1 < rounds))
        for image in images:
            maps[image].append(made[image])
    return maps
