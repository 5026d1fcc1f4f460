"""An analysis that went through JSON is the same analysis."""

from __future__ import annotations

import json
from typing import Any

import pytest

from saaa.client import convert
from saaa.client.reading import read_analysis
from saaa.v1 import analysis_pb2 as pb


def test_reading_undoes_writing(response: pb.AnalyzeResponse) -> None:
    analysis = convert.analysis(response)
    written = analysis.to_json()
    again = read_analysis(json.loads(json.dumps(written)))
    assert again.to_json() == written
    for one, other in zip(analysis.attributions, again.attributions, strict=True):
        assert (one.grid == other.grid).all()
        assert one.grid.dtype == other.grid.dtype
        assert (one.kind, one.label, one.region) == (other.kind, other.label, other.region)
        assert (one.node_weights == other.node_weights).all()
    assert again.graph == analysis.graph
    assert again.caption_nodes == analysis.caption_nodes


def test_an_empty_analysis(response: pb.AnalyzeResponse) -> None:
    written = convert.analysis(pb.AnalyzeResponse(image_width=3, image_height=2)).to_json()
    assert read_analysis(written).to_json() == written


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"image": 3},
        {"predictions": [{"label": "a"}]},
        {"attributions": [{}]},
        {"captions": 5},
        {"graph": {"objects": [{}]}},
        {"provenance": {"new": 1}},
    ],
)
def test_something_else_is_told(response: pb.AnalyzeResponse, broken: dict[str, Any]) -> None:
    written = convert.analysis(response).to_json()
    changed = {**written, **broken} if broken else {}
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_analysis(changed)
