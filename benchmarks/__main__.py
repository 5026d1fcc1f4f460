"""`python -m benchmarks`: every measurement, one after the other. Needs the archives that `make demo` leaves."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

MEASUREMENTS = (
    "install",
    "decode",
    "scenes",
    "agreement",
    "latency",
    "speed",
    "serving",
    "waterfall",
    "simulate",
    "ratings",
    "attribution",
    "training egdd",
    "captioner",
    "ega",
    "debugging",
)


def main() -> None:
    """Run each measurement as its own command would."""
    if not Path("build/demo/models").is_dir():
        sys.exit("build/demo/models is missing: run `make demo` first")
    for command in MEASUREMENTS:
        print(f"\n=== python -m benchmarks.{command}", flush=True)
        name, *arguments = command.split()
        sys.argv = [f"benchmarks.{name}", *arguments]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
