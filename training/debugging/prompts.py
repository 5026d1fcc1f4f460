"""What is asked of a generator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One picture that is wanted."""

    label: str
    """The class that the picture shall show, and be labelled with; as the class folders are named."""
    text: str
    """As a text-to-image model reads it, with the class in words; "{token}" stands for the class's learned token."""
    negative: tuple[str, ...] = ()
    """Concepts that shall not be in the picture."""
    concept: str = ""
    """The concept that the prompt adds to the class; "" for none."""

    @property
    def token(self) -> bool:
        """Whether it uses the class's learned token."""
        return "{token}" in self.text
