"""Attribution: which parts of the image speak for a class (`attribute`), for a word of a caption or a node of its graph
(`attribute_caption`). One file a method.

Names are loaded when they are first used: who only checks options, or has a compiled graph, needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saaa.attribution.captions import Wanted, attribute_caption, caption_methods_for
    from saaa.attribution.registry import Attributed, attribute, methods_for

__all__ = ["Attributed", "Wanted", "attribute", "attribute_caption", "caption_methods_for", "methods_for"]

_HOMES = {
    **dict.fromkeys(("Wanted", "attribute_caption", "caption_methods_for"), "saaa.attribution.captions"),
    **dict.fromkeys(("Attributed", "attribute", "methods_for"), "saaa.attribution.registry"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
