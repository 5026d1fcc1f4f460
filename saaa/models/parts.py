"""The captioner's parts that something else than torch may compute in its place."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from saaa.models.captioner import GraphBatch
from saaa.models.captioner.decoder import Guide, State


class CaptionerParts(Protocol):
    """What `GuidedCaptioner` asks for, in the order in which it does; float32 throughout."""

    def see(self, pixels: Tensor) -> list[Tensor]:
        """The backbone's maps, one a level, (B, channels, rows, columns), of uint8 (B, S, S, 3)."""
        ...

    def begin(self, regions: Tensor, image: Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        """See `Captioner.begin`."""
        ...

    def advance(self, state: State, guide: Guide, last: Tensor) -> tuple[State, Tensor]:
        """See `saaa.models.captioner.decoding.Advance`."""
        ...
