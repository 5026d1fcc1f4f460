"""Weights of 8 bits for a graph whose time goes into reading its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as op

LEAST = 10_000
"""Weights of a matrix that it pays to round."""
_LARGEST = 127


def with_rounded_weights(model: Any) -> Any:
    """Round every large matrix that something is multiplied by: each output's weights to a multiple of the 127th part
    of its largest one. What they multiply stays as it is, and so does the arithmetic.

    Args:
        model: changed in place.
    """
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul" or not product.get_attributes()["transpose_b"]:
            continue
        source = product.input_value(1).get_node()
        if source.get_type_name() != "Constant" or source.get_data().size < LEAST:
            continue
        weights = source.get_data()
        unit = np.abs(weights).max(axis=1, keepdims=True) / _LARGEST
        unit[unit == 0] = 1  # an output without weights
        rounded = op.constant(np.round(weights / unit).astype(np.int8))
        again = op.multiply(op.convert(rounded, "f32"), op.constant(unit.astype(np.float32)))
        product.input(1).replace_source_output(again.output(0))
    return model
