"""Options of attribution: each range, from both sides."""

from __future__ import annotations

import math
from typing import Any

import pytest

from saaa.attribution.options import check_options
from saaa.errors import OptionInvalid
from saaa.work import ExplainOptions


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"steps": 1},
        {"steps": 64},
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"masks": 1},
        {"masks": 8000},
        {"seed": 0},
        {"seed": 2**63 - 1},
    ],
)
def test_inside(good: dict[str, Any]) -> None:
    check_options(ExplainOptions(**good))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 65),
        ("gamma", -0.01),
        ("gamma", 1.01),
        ("gamma", math.nan),
        ("masks", 0),
        ("masks", 8001),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_outside(name: str, value: float) -> None:
    with pytest.raises(OptionInvalid, match="choose") as caught:
        check_options(ExplainOptions(**{name: value}))
    assert caught.value.field == f"attribution.{name}"
