"""A captioner as one graph of three parts that share nothing, as an archive keeps it.

- "see": `PIXELS`, uint8 (1, S, S, 3), to the backbone's maps, `level_of(i)`, float32 (1, channels, rows, columns).
- "begin": `REGIONS` (B, N, region_size), `IMAGE` (B, global_size) and the structure of B graphs of N places, `GRAPHS`,
  to what the encoder makes of them: `MEMORY`, float32 (B, N, width), and `GATES`, float32 (B, 4 width).
- "advance": `STATE`, `GUIDE` and `WORD` of R hypotheses to `NEXT` and `SCORES`.

B, N, R and the number of real nodes are free. See `saaa.models.captioner.decoder` for what the tensors are. Who needs a
part cuts the graph there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from torch import Tensor

from saaa.models.captioner.config import RELATION_TYPES, CaptionerConfig
from saaa.models.captioner.decoder import Guide, State

PIXELS = "pixels"
REGIONS, IMAGE = "regions", "image"
"""Float32: what `GuidedCaptioner.pool` gives."""
GRAPHS = {name: f"graphs/{name}" for name in ("types", "orders", "mask", "relations")}
"""Fields of `GraphBatch`, as they are there."""
MEMORY, GATES = "memory", "gates"
STATE = {field.name: f"state/{field.name}" for field in fields(State)}
"""Inputs, float32: a hypothesis's tensors."""
GUIDE = {field.name: f"guide/{field.name}" for field in fields(Guide)}
"""Inputs: what stays the same; float32, bool (R, N) and int64 (M,)."""
WORD = "word"
"""Input, float32 (R, 4 width): the last word's gates."""
NEXT = {field.name: f"next/{field.name}" for field in fields(State)}
"""Outputs: the next state."""
SCORES = "scores"
"""Output, float32 (R, vocabulary): of the next word."""

BEGIN_INPUTS = (REGIONS, IMAGE, *GRAPHS.values())
BEGIN_OUTPUTS = (MEMORY, GATES)
ADVANCE_INPUTS = (*STATE.values(), *GUIDE.values(), WORD)
ADVANCE_OUTPUTS = (*NEXT.values(), SCORES)


def level_of(index: int) -> str:
    """The output of a map of the backbone."""
    return f"level/{index}"


def begin_shapes(config: CaptionerConfig) -> Mapping[str, Sequence[int]]:
    """Of that part's inputs, -1 where a size is free."""
    rows, nodes = -1, -1
    graphs = [(rows, nodes)] * 3 + [(rows, RELATION_TYPES, nodes, nodes)]
    shapes = [(rows, nodes, config.region_size), (rows, config.global_size), *graphs]
    return dict(zip(BEGIN_INPUTS, shapes, strict=True))


def advance_shapes(width: int) -> Mapping[str, Sequence[int]]:
    """Of that part's inputs, -1 where a size is free."""
    rows, nodes = -1, -1
    state = [(rows, width)] * 4 + [(rows, nodes), (rows, nodes, width)]
    guide = [(rows, 4 * width), (rows, nodes, nodes), (rows, nodes), (-1,)]
    return dict(zip(ADVANCE_INPUTS, [*state, *guide, (rows, 4 * width)], strict=True))


def parts_of(whole: State | Guide) -> list[Tensor]:
    """The tensors, in their order."""
    return [getattr(whole, field.name) for field in fields(whole)]
