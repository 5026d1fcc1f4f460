"""Semantic-Aware Attribution Analysis: the method as a library."""

__version__ = "0.1.0"
