"""Gradients taken apart for the compiled graph are torch's own."""

from __future__ import annotations

import pytest
import torch

from saaa.errors import NotTraceable
from saaa.runtime.gradients import (
    avg_pool2d_backward,
    convolution_backward,
    max_pool2d_with_indices_backward,
    slice_backward,
)


@pytest.mark.parametrize(
    ("inner", "outer", "kernel", "stride", "padding", "groups", "size"),
    [
        (3, 5, 4, 4, 0, 1, 18),
        (4, 6, 3, 1, 1, 2, 9),
        (4, 4, 3, 2, 1, 4, 9),
        (3, 2, 1, 1, 0, 1, 5),
        (2, 3, 3, 2, 0, 1, 8),
    ],
)
def test_the_gradient_of_a_convolution(
    inner: int, outer: int, kernel: int, stride: int, padding: int, groups: int, size: int
) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, inner, size, size, dtype=torch.double, requires_grad=True)
    weight = torch.randn(outer, inner // groups, kernel, kernel, dtype=torch.double)
    made = torch.conv2d(inputs, weight, stride=stride, padding=padding, groups=groups)
    gradient = torch.randn_like(made)
    (wanted,) = torch.autograd.grad(made, inputs, gradient)
    pairs = [[value, value] for value in (stride, padding, 1, 0)]
    found = convolution_backward(
        gradient, inputs, weight, None, *pairs[:3], False, pairs[3], groups, [True, False, False]
    )[0]
    torch.testing.assert_close(found, wanted)
    with pytest.raises(NotTraceable):
        convolution_backward(gradient, inputs, weight, None, *pairs[:3], True, pairs[3], groups, [True, False, False])


def test_the_gradient_of_a_slice() -> None:
    inputs = torch.randn(2, 7, 3, requires_grad=True)
    for dim, start, end in ((1, 2, 5), (1, -3, 2**63 - 1), (-1, 0, 1), (0, 1, 9)):
        made = torch.ops.aten.slice.Tensor(inputs, dim, start, end)
        (wanted,) = torch.autograd.grad(made.square().sum(), inputs)
        assert slice_backward(2 * made, list(inputs.shape), dim, start, end, 1).equal(wanted)
    with pytest.raises(NotTraceable):
        slice_backward(inputs, [2, 7, 3], 1, 0, 7, 2)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode", "size"), [(2, 2, 0, True, 8), (3, 2, 1, False, 8), (3, 1, 1, False, 5)]
)
def test_the_gradient_of_pooling(kernel: int, stride: int, padding: int, ceil_mode: bool, size: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, size, size, requires_grad=True)
    pairs = [[value, value] for value in (kernel, stride, padding)]
    made = torch.nn.functional.avg_pool2d(inputs, kernel, stride, padding, ceil_mode)
    gradient = torch.randn_like(made)
    (wanted,) = torch.autograd.grad(made, inputs, gradient)
    torch.testing.assert_close(avg_pool2d_backward(gradient, inputs, *pairs, ceil_mode, True, None), wanted)
    made, indices = torch.nn.functional.max_pool2d(
        inputs, kernel, stride, padding, ceil_mode=ceil_mode, return_indices=True
    )
    (wanted,) = torch.autograd.grad(made, inputs, gradient)
    found = max_pool2d_with_indices_backward(gradient, inputs, *pairs, [1, 1], ceil_mode, indices)
    torch.testing.assert_close(found, wanted)


def test_means_over_different_numbers_of_pixels_are_refused() -> None:
    inputs, gradient = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3)
    for padding, ceil_mode, count_include_pad, divisor in (
        (0, True, True, None),
        (1, False, False, None),
        (0, False, True, 3),
    ):
        with pytest.raises(NotTraceable, match="different numbers of pixels"):
            avg_pool2d_backward(gradient, inputs, [2, 2], [2, 2], [padding] * 2, ceil_mode, count_include_pad, divisor)
