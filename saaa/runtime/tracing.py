"""Trace prediction and attribution of a classifier into one OpenVINO model.

The graph is recorded while the eager methods of `saaa.attribution` run, forward and backward, so nothing of their
mathematics is written a second time. Fused attention is off meanwhile, and what OpenVINO cannot convert is taken apart
into basic operations: layer norm, and the gradients of `saaa.runtime.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from saaa.attribution.base import GradientMethod, frozen
from saaa.attribution.registry import METHODS
from saaa.errors import NotTraceable
from saaa.models.classifier import Classifier
from saaa.runtime.converting import convert, one_graph
from saaa.runtime.gradients import GRADIENTS
from saaa.runtime.graph import CLASSES_AT_ONCE, LOGITS, PIXELS, Graph, class_of, logits_of, map_of, target_of
from saaa.work import AUTO_METHOD, ExplainOptions

_aten = torch.ops.aten


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
        with frozen(classifier), _out_of_place(classifier), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            recorded = _record(function, arguments)
        ports = [PIXELS, *map(target_of, range(CLASSES_AT_ONCE))]
        inputs = [(name, tuple(argument.shape)) for name, argument in zip(ports, arguments, strict=True)]
        return convert(recorded, architecture, inputs, outputs, names)


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


def _record(function: Callable[..., tuple[Tensor, ...]], arguments: tuple[Tensor, ...]) -> GraphModule:
    """Forward and backward as one list of operations, each with a converter, none of which overwrites anything."""
    taken_apart = make_fx(function, decomposition_table=_table())(*arguments)
    recorded: GraphModule = make_fx(functionalize(taken_apart))(*arguments)
    _fold_transposes(recorded)
    recorded.graph.eliminate_dead_code()
    return recorded


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
    return {**table, **GRADIENTS}


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
