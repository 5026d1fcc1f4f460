"""Checked reading of the numbers, names and JSON that people send: each fault is a `SceneGraphError` with
its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from saaa.errors import SceneGraphError

MAX_NAME = 64
"""The longest name in characters."""

T = TypeVar("T")


def check_whole(value: object, path: str, low: int, high: int) -> None:
    """Checks that `value` is a whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise SceneGraphError(f"give a whole number instead of {show(value)}", field=path)
    if not low <= value <= high:
        raise SceneGraphError(f"{show(value)} is out of range; give a whole number from {low} to {high}", field=path)


def check_name(name: object, path: str) -> None:
    """Checks that `name` is text of 1 to `MAX_NAME` characters."""
    if not isinstance(name, str):
        raise SceneGraphError(f"give a name as text instead of {show(name)}", field=path)
    if not name.strip():
        raise SceneGraphError("the name is empty; give one, or leave the item out", field=path)
    if len(name) > MAX_NAME:
        raise SceneGraphError(f"the name has {len(name)} characters; shorten it to at most {MAX_NAME}", field=path)
    # A lone surrogate can stand in a Python or JSON string but in no UTF-8 message.
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise SceneGraphError("the name is not valid Unicode text; encode it as UTF-8", field=path)


def read_items(
    holder: Mapping[str, Any],
    key: str,
    read: Callable[[Mapping[str, Any], str], T],
    *,
    required: bool = False,
) -> list[T]:
    """Reads the list of JSON objects at `key` with `read(item, path)`."""
    values = read_list(holder, key, "", required=required)
    return [read(read_mapping(value, f"{key}[{i}]"), f"{key}[{i}]") for i, value in enumerate(values)]


def read_mapping(value: object, path: str) -> Mapping[str, Any]:
    """`value` as a JSON object."""
    if not isinstance(value, Mapping):
        raise SceneGraphError(f"give {path or 'the region'} as a JSON object instead of {show(value)}", field=path)
    return value


def read_list(holder: Mapping[str, Any], key: str, path: str, *, required: bool = False) -> Sequence[Any]:
    """The list at `key`; empty when absent and not required."""
    value = read_value(holder, key, path) if required else holder.get(key, ())
    if not isinstance(value, list | tuple):
        raise SceneGraphError(f"give {key} as a list instead of {show(value)}", field=join(path, key))
    return value


def read_value(holder: Mapping[str, Any], key: str, path: str) -> Any:
    """The value at `key`, which must be there."""
    if key not in holder:
        raise SceneGraphError(f"{join(path, key)} is missing; add it", field=join(path, key))
    return holder[key]


def read_whole(holder: Mapping[str, Any], key: str, path: str) -> int:
    """The whole number at `key`; 3.0 counts as 3."""
    value = read_value(holder, key, path)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, float | np.floating):
        raise SceneGraphError(f"give a whole number instead of {show(value)}", field=join(path, key))
    if not float(value).is_integer():
        raise SceneGraphError(f"{show(value)} is not a whole number; round it", field=join(path, key))
    return int(value)


def join(path: str, key: str) -> str:
    """The path of `key` inside `path`."""
    return f"{path}.{key}" if path else key


def show(value: object) -> str:
    """A short and safe text for a value that somebody sent."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if value is None or isinstance(value, str | int | float):
        text = ascii(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"a {type(value).__name__}"
