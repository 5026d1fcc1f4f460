"""Gradients for which OpenVINO has no converter, in operations for which it has one.

Arguments and results are those of the operations of the same name in torch.ops.aten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saaa.errors import NotTraceable

_aten = torch.ops.aten


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


def avg_pool2d_backward(
    gradient: Tensor,
    inputs: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """The gradient of means, each over the same number of pixels: a transposed convolution by that mean.

    Raises:
        NotTraceable: means over different numbers of pixels.
    """
    stride = stride or kernel
    rest = [size + 2 * p - k for size, p, k in zip(inputs.shape[-2:], padding, kernel, strict=True)]
    cut = ceil_mode and any(room % s for room, s in zip(rest, stride, strict=True))
    if cut or (any(padding) and not count_include_pad) or divisor_override is not None:
        raise NotTraceable("the gradient of an average pooling whose means are over different numbers of pixels")
    channels = inputs.shape[1]
    weight = gradient.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    outer = [room % s for room, s in zip(rest, stride, strict=True)]
    made: Tensor = _aten.convolution.default(gradient, weight, None, stride, padding, [1, 1], True, outer, channels)
    return made


def max_pool2d_with_indices_backward(
    gradient: Tensor,
    inputs: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """The gradient of maxima: each goes to the pixel that was the largest."""
    images, channels, height, width = inputs.shape
    nothing = gradient.new_zeros((images, channels, height * width))
    made: Tensor = _aten.scatter_add.default(nothing, 2, indices.flatten(2), gradient.flatten(2))
    return made.reshape(inputs.shape)


GRADIENTS: dict[Any, Callable[..., Any]] = {
    _aten.convolution_backward.default: convolution_backward,
    _aten.select_backward.default: select_backward,
    _aten.slice_backward.default: slice_backward,
    _aten.avg_pool2d_backward.default: avg_pool2d_backward,
    _aten.max_pool2d_with_indices_backward.default: max_pool2d_with_indices_backward,
}
"""By operation."""
