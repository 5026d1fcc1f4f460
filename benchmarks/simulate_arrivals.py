"""Bursty arrivals, synthetic: a Poisson process whose rate is modulated by two Markov chains, minutes and seconds long.

    python -m benchmarks.simulate_arrivals

writes the recorded intensity, `simulate_arrivals.json`. Nobody's traffic is in it, so it may be handed on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RECORDED = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, kw_only=True)
class Modulation:
    """The generator: a slow chain for the hour's ups and downs, a fast one for bursts; their levels multiply."""

    seed: int = 9
    seconds: int = 1500
    slow_levels: tuple[float, float] = (0.6, 1.8)
    slow_mean_s: tuple[float, float] = (240.0, 120.0)
    """Mean time in each level; exponential."""
    fast_levels: tuple[float, float] = (0.75, 2.25)
    fast_mean_s: tuple[float, float] = (12.0, 4.0)

    def intensity(self) -> NDArray[np.float64]:
        """(seconds,) of mean 1."""
        rng = np.random.default_rng(self.seed)
        product = self._chain(rng, self.slow_levels, self.slow_mean_s) * self._chain(
            rng, self.fast_levels, self.fast_mean_s
        )
        return np.asarray(np.round(product / product.mean(), 3), np.float64)

    def _chain(
        self, rng: np.random.Generator, levels: tuple[float, float], means: tuple[float, float]
    ) -> NDArray[np.float64]:
        """(seconds,), starting in the first level."""
        parts: list[NDArray[np.float64]] = []
        state, length = 0, 0
        while length < self.seconds:
            stay = max(1, round(rng.exponential(means[state])))
            parts.append(np.full(stay, levels[state]))
            state, length = 1 - state, length + stay
        return np.concatenate(parts)[: self.seconds]


def recorded() -> NDArray[np.float64]:
    """(seconds,) The committed intensity, relative to its mean."""
    return np.asarray(json.loads(RECORDED.read_text())["intensity"], np.float64)


def arrivals(intensity: NDArray[np.float64], rate: float, seed: int) -> NDArray[np.float64]:
    """Sorted seconds at which requests come.

    Args:
        intensity: (seconds,), relative, of each second.
        rate: requests a second where the intensity is 1, above 0.
        seed: of the Poisson process.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(intensity * rate)
    return np.sort(np.repeat(np.arange(len(intensity)), counts) + rng.random(int(counts.sum())))


def main() -> None:
    """Record it anew."""
    modulation = Modulation()
    about = "synthetic: two-level Markov chains multiplied, one value a second; see benchmarks/simulate_arrivals.py"
    found = {"about": about, **vars(modulation), "intensity": modulation.intensity().tolist()}
    RECORDED.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
