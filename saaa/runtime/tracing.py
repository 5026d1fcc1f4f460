"""Trace prediction and attribution of a classifier into one OpenVINO model.

The graph is recorded while the eager methods of `saaa.attribution` run, forward and backward, so nothing of their
mathematics is written a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from saaa.attribution.base import GradientMethod
from saaa.attribution.registry import METHODS
from saaa.errors import NotTraceable
from saaa.models.classifier import Classifier
from saaa.runtime.converting import convert, one_graph, pack
from saaa.runtime.graph import CLASSES_AT_ONCE, LOGITS, PIXELS, Graph, class_of, logits_of, map_of, target_of
from saaa.runtime.recording import record
from saaa.work import AUTO_METHOD, ExplainOptions


def trace(classifier: Classifier, methods: Sequence[str] = (AUTO_METHOD,)) -> Graph:
    """Trace a classifier with some of its attribution methods, for one image at a time.

    Args:
        classifier: on the CPU.
        methods: names in the registry; "auto" is the classifier's default.

    Raises:
        NotTraceable: openvino is missing, a method is not one of gradients or does not support the classifier, or
            an operation cannot be converted; the message says which.
    """
    chosen = [_find(classifier, name) for name in dict.fromkeys(methods)]
    function, outputs = _function(classifier, chosen)
    size = classifier.config.input_size
    pixels = torch.full((1, size, size, 3), 128, dtype=torch.uint8)
    arguments = (pixels, *[torch.full((1,), -1) for _ in range(CLASSES_AT_ONCE)])
    architecture, names = classifier.config.architecture, [method.name for method in chosen]
    with one_graph(f"{architecture} with {', '.join(names)}"):
        ports = [PIXELS, *map(target_of, range(CLASSES_AT_ONCE))]
        inputs = {name: tuple(argument.shape) for name, argument in zip(ports, arguments, strict=True)}
        return pack(architecture, [convert(record(classifier, function, arguments), inputs, outputs)], names)


def _find(classifier: Classifier, name: str) -> GradientMethod:
    supported = [method for method in METHODS if method.supports(classifier)]
    found = next((method for method in supported if name in (AUTO_METHOD, method.name)), None)
    if isinstance(found, GradientMethod):
        return found
    able = ", ".join(method.name for method in supported if isinstance(method, GradientMethod))
    raise NotTraceable(
        f"Attribution method {name!r} of {classifier.config.architecture} is not one forward and one backward, so it "
        f"cannot be a graph; these can: {able}."
    )


def _function(
    classifier: Classifier, methods: Sequence[GradientMethod]
) -> tuple[Callable[..., tuple[Tensor, ...]], list[str]]:
    """What is traced, and the names of its outputs: of pixels and classes to explain, -1 for the most probable."""

    def joint(pixels: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
        # Not channels last: pooling would set strides then, for which there is no converter.
        inputs = classifier.preprocess(pixels).contiguous()
        with torch.no_grad():
            made = [classifier(inputs)]
        for method in methods:
            with torch.enable_grad():
                forward = method.forward(classifier, inputs, ExplainOptions())
                logits = forward.logits.detach()
                made.append(logits)
                for target in targets:
                    chosen = torch.where(target < 0, logits.argmax(dim=1), target)
                    wanted = forward.logits.gather(1, chosen[:, None]).sum()
                    gradients = torch.autograd.grad(wanted, forward.sources, retain_graph=True)
                    made += [chosen, forward.combine(*gradients)]
        return tuple(made)

    names = [LOGITS]
    for method in methods:
        names.append(logits_of(method.name))
        for turn in range(CLASSES_AT_ONCE):
            names += [class_of(method.name, turn), map_of(method.name, turn)]
    return joint, names
