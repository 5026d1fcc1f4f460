"""Gathering the faults of one request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from saaa.errors import InvalidInput, ModelNotFound, OptionInvalid, SaaaError
from serving.requests import RequestInvalid


class Violations:
    """Gathers the faults of one request, so that the caller hears of all of them at once."""

    def __init__(self, found: tuple[InvalidInput, ...] = ()) -> None:
        self.found: list[SaaaError] = list(found)

    def add(self, error: SaaaError) -> None:
        """Note a fault."""
        self.found.append(error)

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Note what is raised inside."""
        try:
            yield
        except (InvalidInput, ModelNotFound) as error:
            self.add(error)

    def check(self, condition: bool, field: str, message: str) -> None:
        """Note a fault of an option unless the condition holds."""
        if not condition:
            self.add(OptionInvalid(message, field=field))

    def about(self, field: str) -> bool:
        """Whether a fault of this field, or of a part of it, was noted."""
        return any(error.field.startswith(field) for error in self.found)

    def raise_any(self) -> None:
        """Raises what was found: the fault itself when it is one, `RequestInvalid` when they are several."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise RequestInvalid(self.found)
