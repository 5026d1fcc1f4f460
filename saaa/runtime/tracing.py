"""Trace prediction and attribution of a classifier into one OpenVINO model.

The graph is recorded while the eager methods of `saaa.attribution` run, forward and backward, so nothing of their
mathematics is written a second time. Fused attention is off meanwhile, and what OpenVINO cannot convert is taken apart
into basic operations: layer norm, and the gradient of a convolution with respect to its input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from saaa.attribution.base import GradientMethod, frozen
from saaa.attribution.registry import METHODS
from saaa.errors import NotTraceable
from saaa.models.classifier import Classifier
from saaa.runtime.converting import convert, first_line
from saaa.runtime.graph import CLASSES_AT_ONCE, LOGITS, PIXELS, Graph, class_of, logits_of, map_of, target_of
from saaa.work import AUTO_METHOD, ExplainOptions

_aten = torch.ops.aten
_log = logging.getLogger(__name__)


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
    try:
        with frozen(classifier), _out_of_place(classifier), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            recorded = make_fx(function, decomposition_table=_table())(*arguments)
            _fold_transposes(recorded)
            exported = torch.export.export(recorded, arguments, strict=False)
        ports = [PIXELS, *map(target_of, range(CLASSES_AT_ONCE))]
        inputs = [(name, tuple(argument.shape)) for name, argument in zip(ports, arguments, strict=True)]
        name = classifier.config.architecture
        return convert(exported, name, inputs, outputs, [method.name for method in chosen])
    except NotTraceable:
        raise
    except Exception as error:  # torch and openvino raise what they like
        _log.debug("tracing failed", exc_info=error)
        raise NotTraceable(
            f"{classifier.config.architecture} with {', '.join(m.name for m in chosen)} cannot be made one graph: "
            f"{first_line(error)}"
        ) from error


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


def _fold_transposes(recorded: GraphModule) -> None:
    """Store square weights that are used transposed as what they are used as.

    A linear layer needs its weight one way forward and the other way backward. OpenVINO 2026.4 keeps what it packs of
    a weight under the weight's address and shape, so that of a square one the wrong way round would be found.
    """
    folded: dict[str, str] = {}
    for node in recorded.graph.nodes:
        source = node.args[0] if node.target is _aten.permute.default else None
        if not isinstance(source, Node) or source.op != "get_attr" or node.args[1] != [1, 0]:
            continue
        weight = getattr(recorded, str(source.target))
        if weight.shape[0] != weight.shape[1]:
            continue
        name = folded.setdefault(str(source.target), f"_folded{len(folded)}")
        if not hasattr(recorded, name):
            recorded.register_buffer(name, weight.detach().t().contiguous())
        node.op, node.target, node.args, node.kwargs = "get_attr", name, (), {}
    recorded.recompile()


def _table() -> dict[Any, Any]:
    table: dict[Any, Any] = dict(core_aten_decompositions())
    more = (_aten.native_layer_norm, _aten.native_batch_norm, _aten.native_batch_norm_backward, _aten.gelu)
    table.update(get_decompositions(more))
    table[_aten.convolution_backward.default] = convolution_backward
    table[_aten.select_backward.default] = select_backward
    table[_aten.slice_backward.default] = slice_backward
    return table


def select_backward(gradient: Tensor, input_sizes: list[int], dim: int, index: int) -> Tensor:
    """The gradient of what was selected from: zeros around it. Arguments are those of `aten.select_backward`."""
    return slice_backward(gradient.unsqueeze(dim), input_sizes, dim, index, index + 1, 1)


def slice_backward(gradient: Tensor, input_sizes: list[int], dim: int, start: int, end: int, step: int) -> Tensor:
    """The gradient of what was sliced: zeros around it. Arguments are those of `aten.slice_backward`.

    Raises:
        NotTraceable: a step other than 1.
    """
    if step != 1:
        raise NotTraceable(f"the gradient of a slice with step {step}")
    dim, size = dim % len(input_sizes), input_sizes[dim]
    first = start + size if start < 0 else min(start, size)
    after = size - first - gradient.shape[dim]
    rim = [0] * (2 * (len(input_sizes) - 1 - dim)) + [first, after]
    made: Tensor = _aten.constant_pad_nd.default(gradient, rim, 0.0)
    return made


def convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient of a two-dimensional convolution's inputs, in operations that have a converter.

    Arguments and result are those of `aten.convolution_backward`; gradients of weight and bias are not made.

    Raises:
        NotTraceable: another convolution, or another gradient.
    """
    if transposed or weight.ndim != 4 or any(output_mask[1:]):
        raise NotTraceable("the gradient of a transposed or not two-dimensional convolution, or of its weights")
    kernel = list(weight.shape[2:])
    if groups == 1 and stride == kernel and not any(padding) and dilation == [1, 1]:
        return _of_patches(gradient, inputs, weight), None, None
    if stride == [1, 1] and all(d * (k - 1) >= p for d, k, p in zip(dilation, kernel, padding, strict=True)):
        # A convolution again, by the mirrored kernel: faster than a transposed one where there are many groups.
        outer, inner = weight.shape[:2]
        mirrored = weight.reshape(groups, outer // groups, inner, *kernel).transpose(1, 2)
        mirrored = mirrored.reshape(groups * inner, outer // groups, *kernel).flip(2, 3)
        rim = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
        made = _aten.convolution.default(gradient, mirrored, None, stride, rim, dilation, False, [0, 0], groups)
        return made, None, None
    rest = [
        size - ((count - 1) * s - 2 * p + d * (k - 1) + 1)
        for size, count, s, p, d, k in zip(
            inputs.shape[2:], gradient.shape[2:], stride, padding, dilation, kernel, strict=True
        )
    ]
    made = _aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, rest, groups)
    return made, None, None


def _of_patches(gradient: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """The convolution of a patch embedding is a matrix product: no pixel is in two patches."""
    images, _, rows, columns = gradient.shape
    _, channels, height, width = weight.shape
    flat = gradient.permute(0, 2, 3, 1) @ weight.reshape(len(weight), -1)
    patches = flat.reshape(images, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    made = patches.reshape(images, channels, rows * height, columns * width)
    rim = [inputs.shape[3] - columns * width, inputs.shape[2] - rows * height]  # pixels that fill no patch
    padded: Tensor = _aten.constant_pad_nd.default(made, [0, rim[0], 0, rim[1]], 0.0)
    return padded


@contextmanager
def _out_of_place(net: nn.Module) -> Iterator[None]:
    """Have no layer overwrite its input: what is written into a view has no converter."""
    layers: list[Any] = [module for module in net.modules() if getattr(module, "inplace", False) is True]
    try:
        for layer in layers:
            layer.inplace = False
        yield
    finally:
        for layer in layers:
            layer.inplace = True
