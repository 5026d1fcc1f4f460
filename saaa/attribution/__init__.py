"""Attribution: which parts of the image speak for a class. One verb, `attribute`; one file a method."""

from saaa.attribution.registry import Attributed, attribute, methods_for

__all__ = ["Attributed", "attribute", "methods_for"]
