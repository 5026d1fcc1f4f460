"""Tiny models for the handlers."""

from tests.tiny_models import tiny_models

__all__ = ["tiny_models"]
