"""The one place where the options of attribution are checked."""

from __future__ import annotations

from saaa.errors import OptionInvalid
from saaa.work import ExplainOptions

MAX_STEPS = 64
MAX_MASKS = 8000
MAX_SEED = 2**63 - 1


def check_options(options: ExplainOptions) -> None:
    """Keep every option inside its range, also those that the chosen method ignores.

    The method's name is left to `attribute`, which knows what the model supports.

    Raises:
        OptionInvalid: an option is outside its range; `field` is "attribution." and its name.
    """
    ranges = (
        ("steps", options.steps, 1, MAX_STEPS),
        ("gamma", options.gamma, 0, 1),
        ("masks", options.masks, 1, MAX_MASKS),
        ("seed", options.seed, 0, MAX_SEED),
    )
    for name, value, lowest, highest in ranges:
        if not lowest <= value <= highest:
            raise OptionInvalid(f"{name} is {value}; choose {lowest} to {highest}.", field=f"attribution.{name}")
