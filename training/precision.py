"""Automatic mixed precision: which numbers the forward computes in, and how a step is taken from its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """A precision on a device. The order of a step is `backward` for each loss, `norm`, `step`.

    Args:
        name: "none" computes in float32; "bf16" and "fp16" let torch choose what is safe in 16 bits, fp16 with its loss
            scaled so that small gradients survive; "auto" is bf16 on cuda, none elsewhere.
        device: where the network is.
    """

    def __init__(self, name: Literal["auto", "none", "bf16", "fp16"], device: torch.device) -> None:
        chosen = ("bf16" if device.type == "cuda" else "none") if name == "auto" else name
        self._device = device.type
        self._type = TYPES.get(chosen)
        self.scaler = torch.amp.GradScaler(device.type, enabled=chosen == "fp16")

    @property
    def scaled(self) -> bool:
        """Whether the loss is scaled: a step with a gradient that is not finite is then skipped and the scale lowered,
        as belongs to the method."""
        return self.scaler.is_enabled()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for a forward."""
        return torch.autocast(self._device, dtype=self._type, enabled=self._type is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those already there."""
        torch.autograd.backward(self.scaler.scale(loss))

    def norm(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> Tensor:
        """Give the norm of all gradients together, once a step, on the device."""
        self.scaler.unscale_(optimizer)
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def step(
        self,
        parameters: Iterable[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        norm: Tensor,
        largest: float | None,
    ) -> None:
        """Move the parameters.

        Args:
            parameters: all of the optimiser's.
            optimizer: what moves them.
            norm: of their gradients, as `norm` gave it.
            largest: the norm that gradients are cut to; None leaves them.
        """
        if largest is not None:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)
        self.scaler.step(optimizer)
        self.scaler.update()
