"""Attribution: hand-solved networks, independent oracles, batching, cleanliness, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from saaa.attribution import attribute, methods_for
from saaa.attribution.layers import find_layer
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig

METHODS = ("hires_cam", "grad_cam", "integrated_gradients", "gradient_x_input")
MODELS = (("test_efficientnet", 64), ("resnet10t", 64), ("test_vit", 64), ("test_mambaout", 64))
CLASSES = ("bath", "den", "hall", "loft")


def make(architecture: str, size: int) -> Classifier:
    """A network with lively batch statistics and a head that tells images apart."""
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=architecture, classes=CLASSES, input_size=size)
    classifier = Classifier(config)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
        for _ in range(3):
            classifier.train()(make_inputs(classifier, 8, seed=9))
    return classifier.eval()


def make_inputs(classifier: Classifier, count: int, seed: int = 1) -> Tensor:
    size = classifier.config.input_size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)
    fine = coarse.repeat_interleave(size // 8, dim=1).repeat_interleave(size // 8, dim=2)
    return classifier.preprocess(fine)


def offered(classifier: Classifier) -> list[str]:
    return [method.name for method in methods_for(classifier)]


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[0])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return make(*request.param)


class TinyNet(nn.Module):
    """Features = the first two input channels as they are; logits = W mean(features)."""

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


def tiny(weight: list[list[float]], body: Callable[[Tensor], Tensor] = lambda x: x) -> Classifier:
    classifier = make("test_efficientnet", 16)
    classifier.net = TinyNet(weight, body)
    return classifier.eval()


def some_input() -> Tensor:
    """Zero, but for channels 0 and 1 at two places of 16 x 16."""
    x = torch.zeros((1, 3, 16, 16))
    x[0, 0, 2, 3] = 4.0
    x[0, 1, 5, 6] = 2.0
    return x


WEIGHT = [[1.0, -1.0], [0.0, 3.0], [0.5, 0.5], [0.0, 0.0]]
CELLS = 256


def test_grad_cam_by_hand() -> None:
    maps = attribute(tiny(WEIGHT), some_input(), [[0, 1, 3]], method="grad_cam").maps[0]
    first, second, third = (m.values for m in maps)
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3] = 4.0 * 1.0 / CELLS  # the other place is negative for class 0
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    expected = np.zeros((16, 16), np.float32)
    expected[5, 6] = 2.0 * 3.0 / CELLS
    np.testing.assert_allclose(second, expected, rtol=1e-6)
    assert not third.any()


def test_hires_cam_by_hand() -> None:
    """With a square above the features the gradient differs from cell to cell: 2 w a / cells, times a."""
    classifier = tiny(WEIGHT, lambda x: x**2)
    maps = attribute(classifier, some_input(), [[0, 1]], method="hires_cam").maps[0]
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3] = 2 * 4.0**2 / CELLS
    np.testing.assert_allclose(maps[0].values, expected, rtol=1e-6)
    expected = np.zeros((16, 16), np.float32)
    expected[5, 6] = 3 * 2 * 2.0**2 / CELLS
    np.testing.assert_allclose(maps[1].values, expected, rtol=1e-6)


@pytest.mark.parametrize(("architecture", "size"), MODELS[:2])
def test_hires_cam_has_cells_of_16_pixels(architecture: str, size: int) -> None:
    found = attribute(make(architecture, size), torch.randn(1, 3, size, size), [[0]], method="hires_cam")
    assert found.maps[0][0].values.shape == (size // 16, size // 16)


def test_gradient_x_input_by_hand() -> None:
    values = attribute(tiny(WEIGHT), some_input(), [[0]], method="gradient_x_input").maps[0][0].values
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3], expected[5, 6] = 4.0 / CELLS, -2.0 / CELLS
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_integrated_gradients_by_hand() -> None:
    """For logits that are sums of cubes a pixel's share is w x^3 / cells, exact with two Gauss points."""
    classifier = tiny(WEIGHT, lambda x: x**3)
    found = attribute(classifier, some_input(), [[0]], method="integrated_gradients", steps=2).maps[0][0]
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3], expected[5, 6] = 64.0 / CELLS, -8.0 / CELLS
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    assert found.completeness_gap == pytest.approx(0, abs=1e-5)


def test_completeness_gap_shows_too_few_steps() -> None:
    """One Gauss point takes the gradient half way: 3 (x/2)^2 x = 0.75 x^3, so a quarter is missing."""
    classifier = tiny(WEIGHT, lambda x: x**3)
    found = attribute(classifier, some_input(), [[1]], method="integrated_gradients", steps=1).maps[0][0]
    assert found.completeness_gap == pytest.approx(0.25, abs=1e-5)
    assert attribute(classifier, some_input(), [[1]], method="grad_cam").maps[0][0].completeness_gap is None


@pytest.mark.parametrize(("architecture", "size"), MODELS[:2])
def test_grad_cam_equals_captum(architecture: str, size: int) -> None:
    classifier = make(architecture, size)
    inputs = make_inputs(classifier, 3)
    layer = find_layer(classifier.net)
    assert layer is not None
    targets = [2, 0, 3]
    oracle = LayerGradCam(classifier, layer.module).attribute(inputs, target=targets, relu_attributions=True)
    found = attribute(classifier, inputs, [[t] for t in targets], method="grad_cam")
    for own, other in zip(found.maps, oracle.detach().numpy()[:, 0], strict=True):
        np.testing.assert_allclose(own[0].values, other, rtol=1e-4, atol=1e-6 * max(1e-3, other.max()))


def test_grad_cam_on_transformer_equals_plain_backward() -> None:
    classifier = make("test_vit", 64)
    inputs = make_inputs(classifier, 1)
    net: Any = classifier.net
    tokens = net._pos_embed(net.patch_embed(inputs))
    tokens = net.norm_pre(tokens)
    for block in net.blocks[:-1]:
        tokens = block(tokens)
    tokens = tokens.detach().requires_grad_()
    logits = net.forward_head(net.norm(net.blocks[-1](tokens)))
    logits[0, 1].backward()
    start = net.num_prefix_tokens
    assert start == 1, "the test is to see the class token left out"
    weights = tokens.grad[0, start:].mean(dim=0)
    expected = (tokens.detach()[0, start:] @ weights).relu().view(4, 4).numpy()
    assert expected.max() > 0
    found = attribute(classifier, inputs, [[1]], method="grad_cam").maps[0][0].values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_one_by_one(classifier: Classifier, method: str) -> None:
    if method not in offered(classifier):
        pytest.skip("not for this network")
    inputs = make_inputs(classifier, 4)
    targets: list[list[int]] = [[1], [], [3, 0, 2], [2, 2]]
    together = attribute(classifier, inputs, targets, method=method, steps=3)
    probabilities = classifier(inputs).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(together.probabilities, probabilities, rtol=1e-4, atol=1e-6)
    assert [len(maps) for maps in together.maps] == [1, 1, 3, 2]
    for i, wanted in enumerate(targets):
        alone = attribute(classifier, inputs[i : i + 1], [wanted], method=method, steps=3)
        assert [m.target for m in alone.maps[0]] == (wanted or [int(probabilities[i].argmax())])
        for one, batched in zip(alone.maps[0], together.maps[i], strict=True):
            assert one.target == batched.target
            assert one.method == batched.method == method
            assert one.values.dtype == np.float32
            largest = np.abs(one.values).max()
            np.testing.assert_allclose(batched.values, one.values, rtol=0, atol=1e-5 * largest)
    largest = max(np.abs(m.values).max() for maps in together.maps for m in maps)
    assert largest > 0, "all maps are empty; the comparison says nothing"


def test_maps_of_classes_differ(classifier: Classifier) -> None:
    maps = attribute(classifier, make_inputs(classifier, 1), [[0, 1, 2, 3]], method="gradient_x_input").maps[0]
    for a in range(4):
        for b in range(a):
            assert not np.allclose(maps[a].values, maps[b].values)


def state_of(classifier: Classifier) -> list[Any]:
    """All that a method could leave behind: hooks, modes, flags, gradients, weights."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training)
        for m in classifier.modules()
    ]
    flags = [(p.requires_grad, p.grad is None, p.detach().sum().item()) for p in classifier.parameters()]
    return [hooks, flags, [b.detach().double().sum().item() for b in classifier.buffers()]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_left_behind(classifier: Classifier, method: str, training: bool) -> None:
    if method not in offered(classifier):
        pytest.skip("not for this network")
    classifier.train(training)
    next(classifier.parameters()).requires_grad_(False)
    before = state_of(classifier)
    inputs = make_inputs(classifier, 2)
    attribute(classifier, inputs, [[0], [1, 2]], method=method, steps=2)
    assert state_of(classifier) == before
    assert not inputs.requires_grad
    with pytest.raises(OptionInvalid):
        attribute(classifier, inputs, [[0], [99]], method=method, steps=2)
    assert state_of(classifier) == before


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind_by_a_failing_module(method: str) -> None:
    classifier = tiny(WEIGHT)

    def fail(*_: Any) -> None:
        raise RuntimeError("broken head")

    handle = classifier.net.head.register_forward_hook(fail)
    before = state_of(classifier)
    with pytest.raises(RuntimeError, match="broken head"):
        attribute(classifier, some_input(), [[0]], method=method)
    assert state_of(classifier) == before
    handle.remove()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_caller_may_be_in_any_mode(method: str, mode: Callable[[], Any]) -> None:
    classifier = tiny(WEIGHT)
    expected = attribute(classifier, some_input(), [[0]], method=method).maps[0][0].values
    with mode():
        found = attribute(classifier, some_input(), [[0]], method=method).maps[0][0].values
    assert found.max() > 0
    np.testing.assert_array_equal(found, expected)


def test_auto_is_the_first_of_the_list(classifier: Classifier) -> None:
    no_batch_norm = classifier.config.architecture in ("test_vit", "test_mambaout")
    assert offered(classifier) == [name for name in METHODS if not (no_batch_norm and name == "hires_cam")]
    assert all(m.cost_forwards >= 1 and m.reference for m in methods_for(classifier))
    assert attribute(classifier, make_inputs(classifier, 1), [[]]).maps[0][0].method == offered(classifier)[0]


def test_grad_cam_is_not_offered_where_the_layer_is_unknown() -> None:
    config = ClassifierConfig(architecture="mixer_s32_224", classes=CLASSES, input_size=224)
    with torch.device("meta"):
        mixer = Classifier(config)
    names = [m.name for m in methods_for(mixer)]
    assert "grad_cam" not in names
    assert names[0] == "integrated_gradients"
    with pytest.raises(OptionInvalid, match="does not support"):
        attribute(mixer, torch.zeros((1, 3, 224, 224)), [[0]], method="grad_cam")


@pytest.mark.parametrize(
    ("targets", "options", "field"),
    [
        ([[0]], {"method": "tea_leaves"}, "attribution.method"),
        ([[4]], {}, "attribution.classes"),
        ([[-1]], {}, "attribution.classes"),
        ([[0]], {"steps": 0}, "attribution.steps"),
        ([[0]], {"steps": 65}, "attribution.steps"),
        ([[0], [1]], {}, "targets"),
    ],
)
def test_errors_before_any_computing(targets: list[list[int]], options: dict[str, Any], field: str) -> None:
    classifier = tiny(WEIGHT)
    calls: list[int] = []
    classifier.net.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(OptionInvalid) as caught:
        attribute(classifier, some_input(), targets, **options)
    assert caught.value.field == field
    assert not calls
