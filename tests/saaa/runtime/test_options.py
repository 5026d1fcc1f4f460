"""Options of runtimes: their values, and how the environment says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from saaa.errors import OptionInvalid
from saaa.runtime.options import RuntimeOptions


@pytest.mark.parametrize("field", ["runtime", "precision"])
def test_what_is_not_a_value_is_refused_by_name(field: str) -> None:
    with pytest.raises(OptionInvalid, match=f"{field} is 'int4'; choose one of auto, ") as caught:
        RuntimeOptions(**{field: "int4"})
    assert caught.value.field == field


def test_the_environment_says_them() -> None:
    told = {"SAAA_RUNTIME": "openvino", "SAAA_PRECISION": "fp32", "SAAA_CACHE_DIR": "/a"}
    assert RuntimeOptions.from_environment(told) == RuntimeOptions(
        runtime="openvino", precision="fp32", cache_dir=Path("/a")
    )
    assert RuntimeOptions.from_environment({"HOME": "/h"}) == RuntimeOptions(cache_dir=Path("/h/.cache/saaa"))
    assert RuntimeOptions.from_environment({"HOME": "/h", "XDG_CACHE_HOME": "/x"}).cache_dir == Path("/x/saaa")
    assert RuntimeOptions.from_environment({"SAAA_CACHE_DIR": ""}).cache_dir is None
    with pytest.raises(OptionInvalid):
        RuntimeOptions.from_environment({"SAAA_RUNTIME": "tpu"})
