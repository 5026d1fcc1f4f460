"""Pieces of HTML that several parts of the page share; every text is escaped."""

from __future__ import annotations

import base64
from html import escape

from saaa.report import colors
from saaa.report.nodes import NodeStyle


def bar(share: float) -> str:
    """A horizontal bar, filled to `share` of its length."""
    return f'<span class="track"><span style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></span></span>'


def node(style: NodeStyle) -> str:
    """A node's badge and title."""
    look = f"--node:{colors.css(style.color)};--on:{colors.css(colors.text_on(style.color))}"
    badge = f'<span class="badge" style="{look}">{escape(style.badge) or "→"}</span>'
    return f'<span class="node">{badge}{escape(style.title)}</span>'


def figure(png: bytes, alternative: str) -> str:
    """A picture with the text for those who do not see it."""
    return f'<figure><img alt="{escape(alternative)}" src="{data_uri(png)}"></figure>'


def data_uri(png: bytes) -> str:
    """The picture itself as an address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
