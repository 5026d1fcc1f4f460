"""What a captioner sees before it says the first word: everything that captions and their explanations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saaa.models.captioner import GraphBatch


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the backbone makes of B images, and where and how the captioner is to look at it."""

    levels: list[Tensor]
    """One map a level, (B, channels, rows, columns)."""
    boxes: list[Tensor]
    """For each image (nodes, 4), in pixels of the input."""
    graphs: GraphBatch

    def __len__(self) -> int:
        return len(self.boxes)

    def finite(self) -> list[bool]:
        """Of each image, whether all of its maps are."""
        found: list[bool] = torch.stack([level.isfinite().flatten(1).all(1) for level in self.levels]).all(0).tolist()
        return found

    def select(self, rows: Sequence[int]) -> Seen:
        """The images of `rows`, one or more; each may come several times."""
        index = torch.tensor(rows, device=self.levels[0].device)
        return Seen(
            levels=[level[index] for level in self.levels],
            boxes=[self.boxes[row] for row in rows],
            graphs=self.graphs.select(index),
        )
