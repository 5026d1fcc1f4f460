"""What others' errors say, in one line."""

from __future__ import annotations

import pytest

from saaa.errors import ArchiveError
from saaa.runtime.reasons import reason

NO_CONVERTER = """Exception from src/frontends/pytorch/src/frontend.cpp:171:
Check 'ok' failed at src/frontends/pytorch/src/frontend.cpp:160:
Model wasn't fully converted.
-- No conversion rule found for operations: aten.digamma.default
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ArchiveError("The archive is damaged."), "The archive is damaged."),
        (RuntimeError(NO_CONVERTER), "No conversion rule found for operations: aten.digamma.default"),
        (
            RuntimeError("Exception from src/core.cpp:1:\n\nThe device has no such option.\n"),
            "The device has no such option.",
        ),
        (RuntimeError("Exception from src/core.cpp:1"), "Exception from src/core.cpp:1"),
        (RuntimeError("long " * 100), ("long " * 100)[:300]),
        (KeyError(), "KeyError"),
    ],
)
def test_the_line_that_tells_something(error: Exception, told: str) -> None:
    assert reason(error) == told
