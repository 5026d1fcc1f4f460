"""Integrated Gradients, by captum: signed shares of the logit's rise from a neutral image to this one."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients  # type: ignore[import-untyped]

from saaa.attribution.base import Explained, Job
from saaa.models.classifier import Classifier

ROWS_AT_ONCE = 32
"""Interpolated images in one forward; bounds the memory, changes nothing else."""


class IntegratedGradients:
    """Gauss-Legendre path integral from the neutral image (all zeros after normalisation, the mean colour).

    The completeness gap is |sum of the map - (logit - logit of the neutral image)| / |logit - logit of the
    neutral image|: 0 when the steps suffice.
    """

    name = "integrated_gradients"
    reference = "Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, arXiv:1703.01365"

    def supports(self, classifier: Classifier) -> bool:
        """Any differentiable network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """One prediction, and 16 steps of a forward and a backward each, as measured."""
        return 1 + 16 * 2.5

    def run(self, job: Job) -> Explained:
        """One shared forward for the logits, then `steps` forwards and backwards a target."""
        inputs, net = job.inputs, job.classifier
        with torch.no_grad():
            logits = net(inputs)
            neutral = net(torch.zeros_like(inputs[:1]))[0]
        targets = job.choose(logits)
        pairs = [(image, target) for image, chosen in enumerate(targets) for target in chosen]
        rows = torch.tensor([image for image, _ in pairs], dtype=torch.long)
        columns = torch.tensor([target for _, target in pairs], dtype=torch.long)
        shares = CaptumIntegratedGradients(net).attribute(
            inputs[rows],
            target=columns,
            n_steps=job.options.steps,
            method="gausslegendre",
            internal_batch_size=max(ROWS_AT_ONCE, len(pairs)),
        )
        values = shares.detach().sum(dim=1)
        rise = (logits[rows, columns] - neutral[columns]).double()
        missing = (values.double().sum(dim=(1, 2)) - rise).abs()
        relative = missing / rise.abs().clamp_min(torch.finfo(torch.float32).eps)
        maps: list[list[torch.Tensor]] = [[] for _ in targets]
        gaps: list[list[float]] = [[] for _ in targets]
        for (image, _), made, gap in zip(pairs, values, relative.tolist(), strict=True):
            maps[image].append(made)
            gaps[image].append(gap)
        return Explained(logits=logits, targets=targets, maps=maps, gaps=gaps)
