"""Tiny models for the executor."""

from tests.tiny_models import tiny_models

__all__ = ["tiny_models"]
