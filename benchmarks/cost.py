"""What an attribution costs, in forwards of the same network: ours, captum's and pytorch-grad-cam's side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.speed_turns import Call, medians
from saaa.attribution import attribute
from saaa.attribution.hires_cam import CELL
from saaa.attribution.layers import Layer, find_layer
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.work import ExplainOptions

SIZE = 224
CLASSES = tuple(f"class {k}" for k in range(1000))
STEPS = 8
"""Integration steps where captum's Integrated Gradients run beside ours."""
DEAR = ("occlusion", "rise", "region_shapley")
"""Their cost is that of their forwards; timing them would take minutes."""


def classifier(architecture: str, **options: str | bool) -> Classifier:
    """An untrained network: what it costs does not depend on its weights."""
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=SIZE, options=options)
    return Classifier(config).eval().requires_grad_(False)


def forward(network: Classifier, inputs: Tensor) -> Call:
    """A prediction alone."""

    def run() -> object:
        with torch.inference_mode():
            return network(inputs)

    return run


def ours(network: Classifier, inputs: Tensor, classes: tuple[int, ...], method: str, steps: int = 16) -> Call:
    """A prediction and the maps of some classes, through the one verb."""
    options = ExplainOptions(method=method, steps=steps)
    return lambda: attribute(network, inputs, [classes] * len(inputs), options)


def ratios(calls: Mapping[str, Call], unit: str, rounds: int) -> dict[str, float]:
    """Median processor time of each call, in units of that of `unit`."""
    found = medians(calls, rounds)
    return {name: median / found[unit] for name, median in found.items()}


def cost_of_methods(network: Classifier, methods: tuple[str, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Each method's cost at batch 1 and 8 for one class, and at batch 1 for four, in forwards of the same batch."""
    shapes = {"one_class_batch1": (1, (7,)), "one_class_batch8": (8, (7,)), "four_classes_batch1": (1, (7, 8, 9, 10))}
    found: dict[str, dict[str, float]] = {method: {} for method in methods}
    for shape, (images, classes) in shapes.items():
        inputs = torch.randn(images, 3, SIZE, SIZE)
        calls: dict[str, Call] = {"forward": forward(network, inputs)}
        calls |= {method: ours(network, inputs, classes, method) for method in methods}
        measured = ratios(calls, "forward", rounds if images == 1 else max(3, rounds // 3))
        for method in methods:
            found[method][shape] = measured[method]
    return found


def beside_others(architecture: str, rounds: int) -> dict[str, float]:
    """Our time divided by that of a library for the same method and layer, prediction included; below 1 is faster.

    Grad-CAM of captum and of pytorch-grad-cam give no prediction of their own to the caller; one forward is added.
    """
    # Theirs get a network of their own, because pytorch-grad-cam leaves its hooks in it.
    network, other = classifier(architecture), classifier(architecture)
    layer, fine = find_layer(other.net), find_layer(other.net, reduction=CELL)
    assert layer is not None
    assert fine is not None
    inputs = torch.randn(1, 3, SIZE, SIZE)
    predict = forward(network, inputs)
    target = [ClassifierOutputTarget(7)]
    cell = (3, CELL, CELL)

    def grad_cam_of(kind: type, at: Layer) -> Call:
        with_tokens = {} if at.convolutional else {"reshape_transform": at.as_maps}
        made = kind(model=other, target_layers=[at.module], **with_tokens)

        def run() -> object:
            with torch.enable_grad():
                # The network is frozen for them as for us; they then need a gradient to begin at the pixels.
                return made(input_tensor=inputs.clone().requires_grad_(True), targets=target), predict()

        return run

    def captum_of(attribute_it: Callable[[], object]) -> Call:
        return lambda: (attribute_it(), predict())

    pairs: dict[str, tuple[Call, Call]] = {
        "grad_cam, pytorch-grad-cam": (ours(network, inputs, (7,), "grad_cam"), grad_cam_of(GradCAM, layer)),
        "integrated_gradients, captum": (
            ours(network, inputs, (7,), "integrated_gradients", STEPS),
            captum_of(
                lambda: IntegratedGradients(other).attribute(
                    inputs, target=7, n_steps=STEPS, method="gausslegendre", return_convergence_delta=True
                )
            ),
        ),
        "occlusion, captum": (
            ours(network, inputs, (7,), "occlusion"),
            captum_of(
                lambda: Occlusion(other).attribute(
                    inputs, cell, strides=cell, target=7, baselines=0, perturbations_per_eval=32
                )
            ),
        ),
    }
    if layer.convolutional:
        cam = LayerGradCam(other, layer.module)
        pairs["grad_cam, captum"] = (
            ours(network, inputs, (7,), "grad_cam"),
            captum_of(lambda: cam.attribute(inputs, target=7)),
        )
        pairs["hires_cam, pytorch-grad-cam"] = (ours(network, inputs, (7,), "hires_cam"), grad_cam_of(HiResCAM, fine))
    found = {}
    for name, (mine, theirs) in pairs.items():
        few = 3 if "occlusion" in name else rounds
        found[name] = ratios({"ours": mine, "theirs": theirs}, "theirs", few)["ours"]
    return found
