"""Precision: plain steps are the optimiser's own, 16 bits are used where asked for, clipping cuts to the norm."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from training.precision import Precision

CPU = torch.device("cpu")


def problem() -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(4, 3), torch.randn(5, 4)


def one_step(name: str, net: nn.Linear, inputs: torch.Tensor, largest: float | None = None) -> float:
    precision = Precision(name, CPU)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with precision.autocast():
        outputs = net(inputs)
    assert outputs.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
    precision.backward(outputs.float().square().mean())
    norm = precision.norm(net.parameters(), optimizer)
    precision.step(net.parameters(), optimizer, norm, largest)
    return norm.item()


@pytest.mark.parametrize(("name", "tolerance"), [("none", 1e-6), ("auto", 1e-6), ("bf16", 0.05), ("fp16", 0.01)])
@pytest.mark.parametrize("largest", [None, 0.2])
def test_a_step_by_hand(name: str, tolerance: float, largest: float | None) -> None:
    net, inputs = problem()
    before = copy.deepcopy(net)
    norm = one_step(name, net, inputs, largest)
    # d/dW mean (x W' + b)^2 = 2 (x W' + b)' x / 15, and for b the sum of rows.
    with torch.no_grad():
        errors = 2 * before(inputs) / 15
        gradients = torch.cat([errors.T @ inputs, errors.sum(0)[:, None]], dim=1)
        moved = torch.cat([before.weight - net.weight, (before.bias - net.bias)[:, None]], dim=1)
    own = gradients.norm().item()
    assert norm == pytest.approx(own, rel=tolerance)
    expected = gradients * (1 if largest is None else min(1, largest / own))
    assert torch.allclose(moved, expected, atol=tolerance * expected.abs().max().item())


def test_overflow_in_fp16_skips_the_step_and_lowers_the_scale() -> None:
    net, _ = problem()
    before = copy.deepcopy(net.state_dict())
    precision, optimizer = Precision("fp16", CPU), torch.optim.SGD(net.parameters(), lr=1.0)
    assert precision.scaled
    scale = precision.scaler.get_scale()
    precision.backward(net.weight.sum() * math.inf)
    norm = precision.norm(net.parameters(), optimizer)
    assert not math.isfinite(norm.item())
    precision.step(net.parameters(), optimizer, norm, None)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert precision.scaler.get_scale() < scale
    again = Precision("fp16", CPU)
    again.scaler.load_state_dict(precision.scaler.state_dict())
    assert again.scaler.get_scale() == precision.scaler.get_scale()
