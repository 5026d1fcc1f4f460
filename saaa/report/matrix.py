"""A caption as a table: its words across, the graph's nodes down, the decoder's attention in the cells."""

from __future__ import annotations

from PIL import Image, ImageDraw

from saaa.client.results import Analysis, Caption, CaptionWord
from saaa.report import colors
from saaa.report.nodes import NodeStyle, node_styles, strongest
from saaa.report.text import font, shorten, width, wrap

MARGIN = 24
_LABELS = 216
"""Room for the nodes' names."""
_CELL, _WORDS, _TEXT, _SMALL = 26, 30, 16, 13
_NARROWEST = 42
_SHOWN = 0.1
"""Weights from here on are written into their cells."""


def draw_matrices(analysis: Analysis, total: int) -> list[Image.Image]:
    """One table a caption, `total` pixels wide; none for captions without node weights."""
    styles = node_styles(analysis.caption_nodes, analysis.graph)
    return [
        _matrix(caption, styles, total, number if len(analysis.captions) > 1 else 0)
        for number, caption in enumerate(analysis.captions, 1)
        if styles and all(len(word.node_weights) == len(styles) for word in caption.words)
    ]


def _matrix(caption: Caption, styles: tuple[NodeStyle, ...], total: int, number: int) -> Image.Image:
    title = f"{number}. {caption.text}" if number else caption.text
    lines = wrap(title, 20, total - 2 * MARGIN)
    rows = _break(caption.words, total - 2 * MARGIN - _LABELS)
    block = _WORDS + len(styles) * _CELL + 14
    canvas = Image.new("RGB", (total, 28 * len(lines) + 30 + block * len(rows)), colors.PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.line((MARGIN, 0, total - MARGIN, 0), colors.HAIRLINE)
    for i, line in enumerate(lines):
        draw.text((MARGIN, 10 + 28 * i), line, colors.INK, font(20))
    top = 10 + 28 * len(lines)
    note = "each word in the colour of the node it rests on most; cells: share of attention"
    draw.text((MARGIN, top), shorten(note, _SMALL, total - 2 * MARGIN), colors.MUTED, font(_SMALL))
    top += 22
    for words in rows:
        _block(draw, words, styles, top)
        top += block
    return canvas


def _break(words: tuple[CaptionWord, ...], room: int) -> list[list[CaptionWord]]:
    """Words in rows that fit into `room` pixels."""
    rows: list[list[CaptionWord]] = [[]]
    used = 0
    for word in words:
        if rows[-1] and used + _wide(word) > room:
            rows.append([])
            used = 0
        rows[-1].append(word)
        used += _wide(word)
    return rows


def _wide(word: CaptionWord) -> int:
    return max(_NARROWEST, width(_shown(word), _TEXT) + 16)


def _shown(word: CaptionWord) -> str:
    return shorten(word.text, _TEXT, 200)


def _block(draw: ImageDraw.ImageDraw, words: list[CaptionWord], styles: tuple[NodeStyle, ...], top: int) -> None:
    for i, style in enumerate(styles):
        middle = top + _WORDS + i * _CELL + _CELL / 2
        draw.rounded_rectangle((MARGIN, middle - 9, MARGIN + 22, middle + 9), radius=4, fill=style.color)
        ink = colors.text_on(style.color)
        if style.badge:
            draw.text((MARGIN + 11, middle), style.badge, ink, font(_SMALL), anchor="mm")
        else:
            draw.line((MARGIN + 4, middle, MARGIN + 14, middle), ink, width=2)
            draw.polygon([(MARGIN + 12, middle - 4), (MARGIN + 12, middle + 4), (MARGIN + 18, middle)], ink)
        name = shorten(style.title, 15, _LABELS - 40)
        draw.text((MARGIN + 30, middle), name, colors.INK, font(15), anchor="lm")
    left = MARGIN + _LABELS
    for word in words:
        wide = _wide(word)
        best = strongest(word)
        color = styles[best].color if best is not None else colors.MUTED
        draw.rounded_rectangle((left + 2, top + 2, left + wide - 2, top + _WORDS - 4), radius=4, fill=color)
        center = left + wide / 2
        draw.text((center, top + _WORDS / 2 - 1), _shown(word), colors.text_on(color), font(_TEXT), anchor="mm")
        for i, (style, weight) in enumerate(zip(styles, word.node_weights, strict=True)):
            y = top + _WORDS + i * _CELL
            fill = colors.mix((246, 247, 249), style.color, float(min(1, max(0, weight))))
            edge = colors.INK if i == best else fill
            draw.rectangle((left + 2, y + 1, left + wide - 3, y + _CELL - 3), fill=fill, outline=edge)
            if weight >= _SHOWN:
                draw.text(
                    (center, y + _CELL / 2 - 1),
                    f"{weight:.2f}",
                    colors.text_on(fill),
                    font(_SMALL),
                    anchor="mm",
                )
        left += wide
