"""Integrated Gradients, by captum: signed shares of the logit's rise from a neutral image to this one."""

from __future__ import annotations

import torch

from saaa.attribution.base import Explained, Job
from saaa.attribution.metrics import completeness_gap
from saaa.attribution.removal import ROWS_AT_ONCE
from saaa.models.classifier import Classifier


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
        # Here, because it takes a second that only this method's callers should pay.
        from captum.attr import IntegratedGradients as CaptumIntegratedGradients  # type: ignore[import-untyped]

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
        rises = (logits[rows, columns] - neutral[columns]).tolist()
        totals = values.double().sum(dim=(1, 2)).tolist()
        maps: list[list[torch.Tensor]] = [[] for _ in targets]
        gaps: list[list[float]] = [[] for _ in targets]
        for (image, _), made, total, rise in zip(pairs, values, totals, rises, strict=True):
            maps[image].append(made)
            gaps[image].append(completeness_gap(total, rise))
        return Explained(logits=logits, targets=targets, maps=maps, gaps=gaps)
