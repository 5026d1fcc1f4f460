"""Text in pictures: the font that Pillow carries, so that every machine draws the same."""

from __future__ import annotations

import functools
import unicodedata

from PIL import ImageFont

_BEYOND_ASCII = "·…"
"""What the font has beyond ASCII and we use."""


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font at `size` pixels."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType; install the Pillow wheel")
    return found


def drawable(text: str) -> str:
    """`text` in characters that the font has: accents fall away, other scripts become "?"; HTML keeps all."""
    plain = (c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in _BEYOND_ASCII else "?" for c in plain)


def width(text: str, size: int) -> int:
    """Width of drawable `text` in pixels."""
    return int(font(size).getlength(text) + 0.999)


def shorten(text: str, size: int, room: int) -> str:
    """`text` made drawable and cut with an ellipsis to at most `room` pixels."""
    text = drawable(text)
    if width(text, size) <= room:
        return text
    while text and width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


def wrap(text: str, size: int, room: int) -> list[str]:
    """`text` made drawable and broken at blanks into lines of at most `room` pixels; single words are cut."""
    lines: list[str] = []
    line = ""
    for word in drawable(text).split():
        longer = f"{line} {word}" if line else word
        if line and width(longer, size) > room:
            lines.append(line)
            line = word
        else:
            line = longer
    return [shorten(part, size, room) for part in (*lines, line)]
