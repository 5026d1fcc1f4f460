"""How good is a map: does it point at the pixels that are known to matter, and does it add up?"""

from __future__ import annotations

import numpy as np

LEAST = float(np.finfo(np.float32).eps)
"""What stands in for a difference of 0 where one divides by it."""


def completeness_gap(total: float, difference: float) -> float:
    """Say how far a map is from adding up to what it explains (completeness, Sundararajan et al. 2017).

    Args:
        total: sum of the map.
        difference: what the sum should be, such as the logit minus that of the neutral image.

    Returns:
        |total - difference| / |difference|, at least 0; 0 is exact.
    """
    return abs(total - difference) / max(abs(difference), LEAST)
