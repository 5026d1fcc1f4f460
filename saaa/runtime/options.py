"""How a worker executes its model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saaa.errors import OptionInvalid

AUTO, TORCH, OPENVINO = "auto", "torch", "openvino"
RUNTIMES = (AUTO, TORCH, OPENVINO)
FP32, BF16 = "fp32", "bf16"
PRECISIONS = (AUTO, FP32, BF16)
RUNTIME_VARIABLE, PRECISION_VARIABLE, CACHE_VARIABLE = "SAAA_RUNTIME", "SAAA_PRECISION", "SAAA_CACHE_DIR"


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """What to execute a model with. What cannot be had falls back, and `ModelInfo.runtime` says so.

    Raises:
        OptionInvalid: an option is not one of its values.
    """

    runtime: str = AUTO
    """"torch"; "openvino": the graph in the archive; "auto": the graph where there is one and openvino is installed."""
    precision: str = AUTO
    """Of the graph: "fp32"; "bf16"; "auto": bf16 where the processor has units for it and the archive allows it."""
    cache_dir: Path | None = None
    """Where what was compiled is kept for the next start; None keeps nothing."""

    def __post_init__(self) -> None:
        for name, value, able in (("runtime", self.runtime, RUNTIMES), ("precision", self.precision, PRECISIONS)):
            if value not in able:
                raise OptionInvalid(f"{name} is {value!r}; choose one of {', '.join(able)}.", field=name)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> RuntimeOptions:
        """As SAAA_RUNTIME, SAAA_PRECISION and SAAA_CACHE_DIR say; the last is the user's cache by default, and
        nothing is kept when it is empty."""
        cache = environment.get(CACHE_VARIABLE)
        if cache is None:
            home = environment.get("XDG_CACHE_HOME") or str(
                Path(environment.get("HOME") or "~").expanduser() / ".cache"
            )
            cache = str(Path(home, "saaa"))
        return cls(
            runtime=environment.get(RUNTIME_VARIABLE) or AUTO,
            precision=environment.get(PRECISION_VARIABLE) or AUTO,
            cache_dir=Path(cache) if cache else None,
        )
