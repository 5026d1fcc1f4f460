"""Small networks for the tests of attribution, and what a method could leave behind on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saaa.attribution import methods_for
from saaa.models.classifier import Classifier, ClassifierConfig

CLASSES = ("bath", "den", "hall", "loft")

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "efficientnet": ("test_efficientnet", 64, {}),
    "resnet": ("test_resnet", 64, {}),
    "mambaout": ("test_mambaout", 64, {}),
    "vit_token": ("test_vit", 64, SMALL),
    "vit_mean": ("test_vit", 48, {**SMALL, "global_pool": "avg", "class_token": False, "patch_size": 8}),
    "vit_registers": ("test_vit2", 64, SMALL),
    "vit_attention_pool": ("test_vit3", 64, SMALL),
    "vit_rms_norm": ("test_vit4", 64, SMALL),
    "eva": ("eva02_tiny_patch14_224", 64, {**SMALL, "patch_size": 16}),
    "beit": ("beit_base_patch16_224", 64, SMALL),
}
"""Architecture, input size and options of each."""
TRANSFORMERS = [name for name in MODELS if name.startswith(("vit", "eva", "beit"))]

ANY = ("integrated_gradients", "gradient_x_input", "occlusion", "rise", "region_shapley")
CNN = ("hires_cam", "grad_cam", *ANY)
POOLED = ("layer_lrp", "cp_lrp", "attn_lrp", "grad_cam", "gae", "legrad", *ANY)
OFFERED: dict[str, tuple[str, ...]] = {
    "efficientnet": CNN,
    "resnet": CNN,
    "mambaout": CNN[1:],  # no batch norm
    **dict.fromkeys(
        ("vit_token", "vit_mean", "vit_registers", "vit_attention_pool", "vit_rms_norm", "eva", "beit"), POOLED
    ),
}
"""The methods of each model, its default first."""


def make(architecture: str, size: int, options: dict[str, Any] | None = None) -> Classifier:
    """A network with lively statistics and a head that tells images apart."""
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=size, options=options or {})
    classifier = Classifier(config)
    batch_norm = any(isinstance(part, nn.BatchNorm2d) for part in classifier.modules())
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
            elif not batch_norm:
                # Biases, norms and layer scales that matter.
                parameter.copy_(torch.randn_like(parameter) * 0.2 + (0 if "bias" in name else 1))
        if batch_norm:
            for _ in range(3):
                classifier.train()(make_inputs(classifier, 8, seed=9))
    return classifier.eval()


@functools.cache
def network(name: str) -> Classifier:
    """One of `MODELS`; the same object every time, so leave it as it is."""
    return make(*MODELS[name])


def make_inputs(classifier: Classifier, count: int, seed: int = 1) -> Tensor:
    size = classifier.config.input_size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)
    fine = coarse.repeat_interleave(size // 8, dim=1).repeat_interleave(size // 8, dim=2)
    return classifier.preprocess(fine)


def two_regions(classifier: Classifier, count: int) -> list[Tensor]:
    """The upper half, and the left half, of every image."""
    size = classifier.config.input_size
    regions = torch.zeros((2, size, size), dtype=torch.bool)
    regions[0, : size // 2] = True
    regions[1, :, : size // 2] = True
    return [regions] * count


def offered(classifier: Classifier) -> tuple[str, ...]:
    return tuple(method.name for method in methods_for(classifier))


class TinyNet(nn.Module):
    """Features = the first two input channels as they are; logits = W mean(body(features))."""

    feature_info = [{"module": "last", "reduction": 1}]  # noqa: RUF012 - as timm's networks have it

    def __init__(self, weight: list[list[float]], body: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 2, 1, bias=False)
        self.last.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).view(2, 3, 1, 1)
        self.head = nn.Linear(2, len(weight), bias=False)
        self.head.weight.data = torch.tensor(weight)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.last(x)).mean(dim=(2, 3)))


WEIGHT = [[1.0, -1.0], [0.0, 3.0], [0.5, 0.5], [0.0, 0.0]]
CELLS = 256


def tiny(body: Callable[[Tensor], Tensor] = lambda x: x) -> Classifier:
    """A classifier whose network is a `TinyNet` with `WEIGHT`."""
    config = ClassifierConfig(architecture="test_efficientnet", classes=CLASSES, input_size=16)
    classifier = Classifier(config)
    classifier.net = TinyNet(WEIGHT, body)
    return classifier.eval()


def some_input() -> Tensor:
    """Zero, but for channels 0 and 1 at two places of 16 x 16."""
    x = torch.zeros((1, 3, 16, 16))
    x[0, 0, 2, 3] = 4.0
    x[0, 1, 5, 6] = 2.0
    return x


def state_of(classifier: nn.Module) -> list[Any]:
    """All that a method could leave behind: hooks, modes, flags, gradients, weights."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training)
        for m in classifier.modules()
    ]
    plain = [
        {key: value for key, value in vars(m).items() if isinstance(value, bool | int | float | str)}
        for m in classifier.modules()
    ]
    flags = [(p.requires_grad, p.grad is None, p.detach().sum().item()) for p in classifier.parameters()]
    return [hooks, plain, flags, [b.detach().double().sum().item() for b in classifier.buffers()]]


class Fails(torch.autograd.Function):
    """The identity, whose backward raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise RuntimeError("broken backward")
