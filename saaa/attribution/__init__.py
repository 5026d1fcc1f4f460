"""Attribution: which parts of the image speak for a class (`attribute`), for a word of a caption or a node of its graph
(`attribute_caption`). One file a method."""

from saaa.attribution.captions import Wanted, attribute_caption, caption_methods_for
from saaa.attribution.registry import Attributed, attribute, methods_for

__all__ = ["Attributed", "Wanted", "attribute", "attribute_caption", "caption_methods_for", "methods_for"]
