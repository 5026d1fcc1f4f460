"""Pieces of HTML that several parts of the page share; every text is escaped."""

from __future__ import annotations

import base64
import importlib.resources
from html import escape

from saaa.client.results import Caption
from saaa.report import colors
from saaa.report.nodes import NodeStyle, strongest


def document(title: str, *, header: str, main: str, footer: str = "", style: str = "") -> str:
    """A whole page that needs no other file; `title` is escaped, the parts are HTML, `style` is CSS beside the common
    one."""
    common = importlib.resources.files("saaa.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{common}{style}</style>
</head>
<body>
<header class="top">
<h1>{escape(title)}</h1>
{header}
</header>
<main>
{main}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def bar(share: float) -> str:
    """A horizontal bar, filled to `share` of its length."""
    return f'<span class="track"><span style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></span></span>'


def node(style: NodeStyle) -> str:
    """A node's badge and title."""
    look = f"--node:{colors.css(style.color)};--on:{colors.css(colors.text_on(style.color))}"
    badge = f'<span class="badge" style="{look}">{escape(style.badge) or "→"}</span>'
    return f'<span class="node">{badge}{escape(style.title)}</span>'


def caption(said: Caption, styles: tuple[NodeStyle, ...]) -> str:
    """A caption, each word in the colour of the node that it attends to most; `styles` of all nodes."""
    words = []
    for word in said.words:
        best = strongest(word)
        if best is None or best >= len(styles):
            words.append(f"<span>{escape(word.text)}</span>")
            continue
        style = styles[best]
        note = f"{style.title}: {word.node_weights[best]:.2f}; log-probability {word.log_probability:.2f}"
        words.append(
            f'<span class="word" style="--node:{colors.css(style.color)}" title="{escape(note)}">'
            f"{escape(word.text)}</span>"
        )
    # A caption without word detail is still a caption.
    sentence = " ".join(words) or escape(said.text)
    return (
        f'<p class="caption" aria-label="{escape(said.text)}">{sentence}</p>'
        f'<p class="muted">log-probability {said.log_probability:.2f}</p>'
    )


def figure(picture: bytes, alternative: str) -> str:
    """A picture with the text for those who do not see it."""
    return f'<figure><img alt="{escape(alternative)}" src="{data_uri(picture)}"></figure>'


def data_uri(picture: bytes) -> str:
    """The picture itself, PNG or JPEG, as an address."""
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
