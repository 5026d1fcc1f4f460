"""Record what torch does, forward and backward, as operations that each have a converter.

Fused attention is off meanwhile, nothing overwrites anything, and what OpenVINO cannot convert is taken apart into
basic operations: layer norm, and the gradients of `saaa.runtime.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from saaa.attribution.base import frozen
from saaa.runtime.gradients import GRADIENTS

_aten = torch.ops.aten


def record(net: nn.Module, function: Callable[..., tuple[Tensor, ...]], arguments: tuple[Tensor, ...]) -> GraphModule:
    """What a function of a network does, as one list of operations.

    Args:
        net: on the CPU; held in evaluation mode meanwhile.
        function: of tensors; may differentiate.
        arguments: of the sizes for which it is recorded.
    """
    with frozen(net), _out_of_place(net), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
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
