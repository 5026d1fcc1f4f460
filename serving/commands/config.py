"""Options in a YAML file: its lines are the options of the command line, and come before those that are typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from saaa.errors import OptionInvalid

HIDDEN = "HIDDEN"
"""What stands for a password in what is shown."""


def with_file(words: Sequence[str]) -> list[str]:
    """The command line with the options of the file that --config names put before its own, which so override them.

    Args:
        words: the options as they were typed.

    Raises:
        OptionInvalid: the file cannot be read, or is no mapping of options.
    """
    path = None
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(iter(words[place + 1 :]), None)
    return [*words] if path is None else [*_words(_read(Path(path))), *words]


def to_yaml(*parts: Any) -> str:
    """Options as `with_file` reads them, without passwords.

    Args:
        parts: dataclasses of options, and mappings of options by name.
    """
    flat: dict[str, Any] = {}
    for part in parts:
        flat.update(_plain(part))
    return yaml.safe_dump(flat, sort_keys=False, allow_unicode=True)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OptionInvalid(f"Cannot read the options in {path}: {reason}", field="config") from None
    if not isinstance(values, dict):
        raise OptionInvalid(f"{path} must hold lines such as `port: 50051`.", field="config")
    if HIDDEN in re.split(r"\W", str(values)):
        raise OptionInvalid(f"{path} has {HIDDEN} in the place of a password; put the real one.", field="config")
    return values


def _words(values: Mapping[str, Any], prefix: str = "--") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _words(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}" if value else f"{prefix}no_{name}"
        elif isinstance(value, list):
            yield from (f"{prefix}{name}", *map(str, value))
        else:
            # None too: the file may undo what is not so by default.
            yield from (f"{prefix}{name}", str(value))


def _plain(value: Any) -> Any:
    """A value in YAML's own types."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if is_dataclass(value):
        return _plain_fields(value)
    if isinstance(value, str | Path):
        return _without_password(str(value))
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _plain_fields(options: Any) -> dict[str, Any]:
    types = get_type_hints(type(options), include_extras=True)
    flat: dict[str, Any] = {}
    for field in fields(options):
        part = _plain(getattr(options, field.name))
        marks = getattr(types[field.name], "__metadata__", ())
        # As on the command line: options of a part without a name stand among the others.
        nameless = any(getattr(mark, "name", None) == "" for mark in marks)
        flat.update(part if nameless else {field.name: part})
    return flat


def _without_password(text: str) -> str:
    """The text, unless it is a URL with a password; tokens and keys are in files of their own."""
    if "://" not in text:
        return text
    text = re.sub("(?i)(password=)[^&]+", rf"\1{HIDDEN}", text)
    return re.sub("(?<=://)([^:/?#@]*):.+@", rf"\1:{HIDDEN}@", text)
