"""Linear layers for inference whose weights lie in the order in which the CPU reads them.

With the few rows that decoding has, the matrix library spends most of a product on bringing the weights into that
order: done once, a product with 5 or 16 rows takes about half the time. One row is bound by reading the weights, which
is fastest along the rows of the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ROWS = 16
"""For how many rows the order is chosen; it was seen to serve 1 to 160 well."""


def pack(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A function that computes `linear(values, weight, bias)` of values (R, in), without gradients.

    It keeps two copies of `weight` (out, in). Off the CPU, in other precisions than float32 and where torch lacks
    oneDNN's products, the weight is kept as it is.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    kernels = torch.ops.mkldnn
    able = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch._C._has_mkldnn
    if not (able and hasattr(kernels, "_reorder_linear_weight") and hasattr(kernels, "_linear_pointwise")):
        kept = weight.contiguous()
        return lambda values: nn.functional.linear(values, kept, bias)
    packed = kernels._reorder_linear_weight(weight.contiguous(), ROWS)
    across = weight.t().contiguous()

    def product(values: Tensor) -> Tensor:
        if len(values) == 1:
            return values @ across if bias is None else torch.addmm(bias, values, across)
        found: Tensor = kernels._linear_pointwise(values, packed, bias, "none", [], "")
        return found

    return product
