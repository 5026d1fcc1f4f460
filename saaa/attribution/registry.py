"""The registry of attribution methods, and `attribute`, the one verb that runs them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saaa.attribution.attn_lrp import AttnLrp
from saaa.attribution.base import Explained, Job, Method, Targets, frozen
from saaa.attribution.cp_lrp import CpLrp
from saaa.attribution.gae import Gae
from saaa.attribution.grad_cam import GradCam
from saaa.attribution.gradient_x_input import GradientXInput
from saaa.attribution.hires_cam import HiResCam
from saaa.attribution.integrated_gradients import IntegratedGradients
from saaa.attribution.layer_lrp import LayerLrp
from saaa.attribution.legrad import LeGrad
from saaa.attribution.occlusion import Occlusion
from saaa.attribution.options import check_options
from saaa.attribution.region_shapley import RegionShapley
from saaa.attribution.removal import chunks, top_share
from saaa.attribution.rise import Rise
from saaa.errors import AttributionFailed, OptionInvalid
from saaa.models.classifier import Classifier
from saaa.work import AUTO_METHOD, DELETION_SHARE, AttributionMap, ExplainOptions, MethodInfo, TargetKind

METHODS: tuple[Method, ...] = (
    LayerLrp(),
    CpLrp(),
    AttnLrp(),
    HiResCam(),
    GradCam(),
    Gae(),
    LeGrad(),
    IntegratedGradients(),
    GradientXInput(),
    Occlusion(),
    Rise(),
    RegionShapley(),
)
"""All methods; "auto" is the first that supports the model."""
DEFAULTS = ExplainOptions()


@dataclass(frozen=True, kw_only=True)
class Attributed:
    """Predictions and maps of one call."""

    logits: NDArray[np.float32]
    """(images, classes)."""
    probabilities: NDArray[np.float32]
    """(images, classes); rows sum to 1."""
    maps: list[tuple[AttributionMap, ...]]
    """One tuple an image, one map a target, in the order asked for."""


def methods_for(classifier: Classifier) -> tuple[MethodInfo, ...]:
    """List the methods that can explain this classifier, its default first."""
    return tuple(
        MethodInfo(
            name=method.name,
            cost_forwards=method.cost(classifier),
            reference=method.reference,
            targets=(TargetKind.CLASS,),
        )
        for method in _supported(classifier)
    )


def attribute(
    classifier: Classifier,
    inputs: Tensor,
    targets: Sequence[Sequence[int | str]],
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
        targets: for each image the classes to explain, by index or name; empty for its most probable class.
        options: the method and what it needs.
        regions: for each image the regions that region_shapley removes, bool (R, S, S).

    Raises:
        OptionInvalid: unknown or unsupported method, unknown class, option out of range, regions missing, or not one
            list of targets an image; found before any computing.
        AttributionFailed: logits, a map or a completeness gap came out infinite or undefined.
    """
    check_options(options)
    chosen = _find(classifier, options.method)
    wanted = _check_targets(targets, images=len(inputs), names=classifier.config.classes)
    if regions is not None and len(regions) != len(inputs):
        raise OptionInvalid(f"{len(inputs)} images need {len(inputs)} sets of regions.", field="graph")
    if regions is None and isinstance(chosen, RegionShapley):
        raise OptionInvalid(f"{chosen.name} explains regions; send a graph whose boxes name them.", field="graph")

    def choose(logits: Tensor) -> Targets:
        best = logits.argmax(dim=1).tolist()
        return [indices or (best[image],) for image, indices in enumerate(wanted)]

    # Gradients are computed whatever mode the caller is in.
    with frozen(classifier), torch.inference_mode(False), torch.enable_grad():
        usable = inputs.clone() if inputs.is_inference() else inputs.detach()
        made = chosen.run(Job(classifier=classifier, inputs=usable, choose=choose, options=options, regions=regions))
        _check_finite(made, chosen.name)
        drops = _deletion_drops(classifier, usable, made) if options.deletion else None
    return Attributed(
        logits=made.logits.float().detach().cpu().numpy(),
        probabilities=made.logits.float().softmax(dim=1).cpu().numpy(),
        maps=[
            tuple(
                AttributionMap(
                    target=target,
                    method=chosen.name,
                    values=made.maps[image][k].float().cpu().numpy(),
                    completeness_gap=made.gaps[image][k] if made.gaps is not None else None,
                    deletion_drop=drops[image][k] if drops is not None else None,
                )
                for k, target in enumerate(indices)
            )
            for image, indices in enumerate(made.targets)
        ],
    )


def _supported(classifier: Classifier) -> Iterator[Method]:
    """The methods that can explain this classifier, its default first; checked only as far as the caller reads."""
    return (method for method in METHODS if method.supports(classifier))


def _find(classifier: Classifier, name: str) -> Method:
    for candidate in _supported(classifier):
        if name in (AUTO_METHOD, candidate.name):
            return candidate
    known = any(m.name == name for m in METHODS)
    problem = f"{classifier.config.architecture} does not support it" if known else "there is no such method"
    offer = ", ".join([AUTO_METHOD, *(m.name for m in _supported(classifier))])
    raise OptionInvalid(f"Attribution method {name!r}: {problem}. Choose one of {offer}.", field="attribution.method")


def _check_targets(targets: Sequence[Sequence[int | str]], *, images: int, names: Sequence[str]) -> Targets:
    if len(targets) != images:
        raise OptionInvalid(f"{images} images need {images} lists of targets, not {len(targets)}.", field="targets")
    return [tuple(_class_index(target, names) for target in chosen) for chosen in targets]


def _class_index(target: int | str, names: Sequence[str]) -> int:
    if isinstance(target, str):
        if target in names:
            return names.index(target)
        close = difflib.get_close_matches(target, names, n=3) or names[:3]
        hint = f"There is no class {target!r}; the model has {', '.join(map(repr, close))} and others."
    elif 0 <= target < len(names):
        return int(target)
    else:
        hint = f"Class index {target} is out of range; the model has classes 0 to {len(names) - 1}."
    raise OptionInvalid(hint, field="attribution.classes")


def _check_finite(made: Explained, method: str) -> None:
    for image, targets in enumerate(made.targets):
        if not made.logits[image].isfinite().all():
            raise AttributionFailed(
                f"The model's output for image {image} of the batch is not finite; there is nothing to explain. The "
                "model's weights are at fault, or values far out of the range of pixels."
            )
        for k, target in enumerate(targets):
            if not made.maps[image][k].isfinite().all():
                raise AttributionFailed(
                    f"The map of {method} for class {target} of image {image} of the batch is not finite; choose "
                    "another method."
                )


@torch.no_grad()
def _deletion_drops(classifier: Classifier, inputs: Tensor, made: Explained) -> list[list[float]]:
    """For each image and target: its probability, minus that with the largest tenth of its map as the mean colour."""
    pairs = [(image, k) for image, targets in enumerate(made.targets) for k in range(len(targets))]
    drops: list[list[float]] = [[] for _ in made.targets]
    for piece in chunks(len(pairs)):
        images = [image for image, _ in pairs[piece]]
        classes = [made.targets[image][k] for image, k in pairs[piece]]
        gone = top_share(
            torch.stack([made.maps[image][k] for image, k in pairs[piece]]), inputs.shape[-1], DELETION_SHARE
        )
        left = classifier(inputs[images].masked_fill(gone[:, None], 0)).float().softmax(dim=1)
        before = made.logits[images].float().softmax(dim=1)
        rows = range(len(images))
        for image, drop in zip(images, (before - left)[rows, classes].tolist(), strict=True):
            drops[image].append(drop)
    return drops
