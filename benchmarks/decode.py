"""What it takes to make a model's input of a JPEG, at full size and at the reduced scales that an archive may allow.

    python -m benchmarks.decode --rounds 30

One thread, on pictures with the spectrum of photographs. Prints medians of the processor time in milliseconds, which
holds reading the header, decoding and resizing, and the memory faults of one image, that is pages that the system had
to give: with and without the blocks of memory that the facade lets Pillow keep.
"""

from __future__ import annotations

import io
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tyro
from PIL import Image

from saaa.fitting import Picture
from saaa.images import keep_buffers
from saaa.work import DECODE_SCALES
from serving.analysis.analysis import KEPT_BLOCKS

SIZES = ((1024, 768), (4032, 3024))
"""A picture of the web, and one of a telephone's camera, in pixels."""
SLOPE = 1.4
"""By which the amplitude falls with the frequency; photographs, softened by lens and sensor, have 1 to 1.5."""
QUALITY = 75
"""Of the JPEGs."""
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to measure."""

    rounds: int = 30
    """Images of each kind."""
    input_size: int = 224
    """Width and height of the model's input."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model takes an image, see `saaa.fitting.Input`."""

    input_size: int
    resize: str = "crop"
    crop_fraction: float = 0.875
    decode_scales: tuple[int, ...] = ()
    decode_margin: float = 1.0


def main(options: Options) -> None:
    """Print the table."""
    print(f"{'':<26}{'whole':>20}{'reduced':>20}{'times':>8}")
    for width, height in SIZES:
        data = photo(width, height)
        ways = [Model(input_size=options.input_size, decode_scales=scales) for scales in ((), DECODE_SCALES)]
        print(f"{width} x {height}, {len(data) / 1e3:.0f} KB")
        for blocks in (0, KEPT_BLOCKS):
            keep_buffers(blocks)
            times, faults = measured([fitting(data, way) for way in ways], options.rounds)
            cells = "".join(f"{t:9.2f} ms, {f:6.0f}" for t, f in zip(times, faults, strict=True))
            print(f"  {blocks} blocks kept{'':<12}{cells}{times[0] / times[1]:8.2f}")


def fitting(data: bytes, model: Model) -> Callable[[], object]:
    """The whole way of an image to one model's input."""
    return lambda: Picture(data).fit(model)


def photo(width: int, height: int) -> bytes:
    """A JPEG of noise whose amplitude falls as the frequency grows, as that of photographs does."""
    drawn = np.random.default_rng(0)
    picture = np.stack(list(_channels(drawn, width, height)), axis=2)
    buffer = io.BytesIO()
    Image.fromarray(picture, "YCbCr").save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _channels(drawn: np.random.Generator, width: int, height: int) -> Iterator[np.ndarray]:
    """Luma, and chroma of a third of its contrast."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    for contrast in (50, 16, 16):
        noise = np.fft.irfft2(np.fft.rfft2(drawn.normal(size=(height, width))) / frequency**SLOPE, (height, width))
        yield np.clip(128 + contrast * noise / noise.std(), 0, 255).astype(np.uint8)


def measured(calls: list[Callable[[], object]], rounds: int) -> tuple[list[float], list[float]]:
    """Median milliseconds of processor time, and mean memory faults, of each call; they take turns."""
    times: list[list[float]] = [[] for _ in calls]
    faults = [0] * len(calls)
    for turn in range(WARM_UP + rounds):
        for place, call in enumerate(calls):
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.thread_time()
            call()
            if turn >= WARM_UP:
                times[place].append((time.thread_time() - start) * 1000)
                faults[place] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return [statistics.median(own) for own in times], [count / rounds for count in faults]


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.decode", description=__doc__))
