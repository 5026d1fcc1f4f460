"""The registry of attribution methods, and `attribute`, the one verb that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saaa.attribution.base import Job, Method, Targets, checked_targets, frozen
from saaa.attribution.grad_cam import GradCam
from saaa.attribution.gradient_x_input import GradientXInput
from saaa.attribution.hires_cam import HiResCam
from saaa.attribution.integrated_gradients import IntegratedGradients
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier
from saaa.work import AUTO_METHOD, AttributionMap, ExplainOptions, MethodInfo

METHODS: tuple[Method, ...] = (HiResCam(), GradCam(), IntegratedGradients(), GradientXInput())
"""All methods; "auto" is the first that supports the model."""
MAX_STEPS = 64
DEFAULTS = ExplainOptions()


@dataclass(frozen=True, kw_only=True)
class Attributed:
    """Predictions and maps of one call."""

    probabilities: NDArray[np.float32]
    """(images, classes); rows sum to 1."""
    maps: list[tuple[AttributionMap, ...]]
    """One tuple an image, one map a target, in the order asked for."""


def methods_for(classifier: Classifier) -> tuple[MethodInfo, ...]:
    """List the methods that can explain this classifier, its default first."""
    return tuple(
        MethodInfo(name=m.name, cost_forwards=m.cost(classifier), reference=m.reference) for m in _supported(classifier)
    )


def attribute(
    classifier: Classifier,
    inputs: Tensor,
    targets: Sequence[Sequence[int]],
    options: ExplainOptions = DEFAULTS,
    *,
    regions: Sequence[Tensor] | None = None,
) -> Attributed:
    """Predict the classes of some images and explain the predictions, from one shared forward.

    The result for an image does not depend on the others of the batch, up to rounding (1e-5 of the map's
    maximum). The classifier is left as it was found, also after an error.

    Args:
        classifier: in any mode; it is held in evaluation mode meanwhile.
        inputs: (B, 3, S, S), as `Classifier.preprocess` gives them.
        targets: for each image the class indices to explain; empty for its most probable class.
        options: the method and what it needs.
        regions: for each image the regions that region_shapley removes, bool (R, S, S).

    Raises:
        OptionInvalid: unknown or unsupported method, class index or steps out of range, or not one list of
            targets an image; found before any computing.
    """
    chosen = _find(classifier, options.method)
    if not 1 <= options.steps <= MAX_STEPS:
        raise OptionInvalid(f"steps is {options.steps}; choose 1 to {MAX_STEPS}.", field="attribution.steps")
    wanted = _check_targets(targets, images=len(inputs), classes=len(classifier.config.classes))

    def choose(logits: Tensor) -> Targets:
        best = logits.argmax(dim=1).tolist()
        return [indices or (best[image],) for image, indices in enumerate(wanted)]

    # Gradients are computed whatever mode the caller is in.
    with frozen(classifier), torch.inference_mode(False), torch.enable_grad():
        usable = inputs.clone() if inputs.is_inference() else inputs.detach()
        made = chosen.run(Job(classifier=classifier, inputs=usable, choose=choose, options=options, regions=regions))
    return Attributed(
        probabilities=made.logits.float().softmax(dim=1).cpu().numpy(),
        maps=[
            tuple(
                AttributionMap(
                    target=target,
                    method=chosen.name,
                    values=made.maps[image][k].float().cpu().numpy(),
                    completeness_gap=made.gaps[image][k] if made.gaps is not None else None,
                )
                for k, target in enumerate(indices)
            )
            for image, indices in enumerate(made.targets)
        ],
    )


def _supported(classifier: Classifier) -> list[Method]:
    return [m for m in METHODS if m.supports(classifier)]


def _find(classifier: Classifier, name: str) -> Method:
    supported = _supported(classifier)
    if name == AUTO_METHOD:
        return supported[0]
    for candidate in supported:
        if candidate.name == name:
            return candidate
    known = any(m.name == name for m in METHODS)
    problem = f"{classifier.config.architecture} does not support it" if known else "there is no such method"
    offer = ", ".join([AUTO_METHOD, *(m.name for m in supported)])
    raise OptionInvalid(f"Attribution method {name!r}: {problem}. Choose one of {offer}.", field="attribution.method")


def _check_targets(targets: Sequence[Sequence[int]], *, images: int, classes: int) -> Targets:
    wanted = checked_targets(targets)
    if len(wanted) != images:
        raise OptionInvalid(f"{images} images need {images} lists of targets, not {len(wanted)}.", field="targets")
    for indices in wanted:
        for index in indices:
            if not 0 <= index < classes:
                raise OptionInvalid(
                    f"Class index {index} is out of range; the model has classes 0 to {classes - 1}.",
                    field="attribution.classes",
                )
    return wanted
