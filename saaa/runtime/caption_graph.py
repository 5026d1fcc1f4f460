"""What goes into the graph of a captioner's decode step, and what comes out, as an archive keeps it.

Rows, nodes and real nodes are free: R hypotheses of N places, of which M hold a node. See
`saaa.models.captioner.decoder` for what the parts are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from torch import Tensor

from saaa.models.captioner.decoder import Guide, State

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
INPUTS = (*STATE.values(), *GUIDE.values(), WORD)
OUTPUTS = (*NEXT.values(), SCORES)


def shapes(width: int) -> Sequence[Sequence[int]]:
    """Of the inputs, -1 where a size is free."""
    rows, nodes = -1, -1
    state = [(rows, width)] * 4 + [(rows, nodes), (rows, nodes, width)]
    guide = [(rows, 4 * width), (rows, nodes, nodes), (rows, nodes), (-1,)]
    return [*state, *guide, (rows, 4 * width)]


def parts_of(whole: State | Guide) -> list[Tensor]:
    """The tensors, in their order."""
    return [getattr(whole, field.name) for field in fields(whole)]
