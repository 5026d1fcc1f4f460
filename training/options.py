"""What the options of all jobs share: checks of ranges, and YAML files of options."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveTypeInfo, UnsupportedTypeAnnotationError

from saaa.errors import CheckpointError, OptionInvalid


def check(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Refuse a number outside its range; None, an option left open, passes.

    Raises:
        OptionInvalid: with the range in words.
    """
    if value is None:
        return
    rules = [
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    ]
    wanted = [(words, bound, meets(value, bound)) for words, bound, meets in rules if bound is not None]
    if not all(met for _, _, met in wanted):
        range_ = " and ".join(f"{words} {bound:g}" for words, bound, _ in wanted)
        raise OptionInvalid(f"{name} is {value:g}; it must be {range_}{hint and f': {hint}'}.", field=name)


def to_yaml(config: Any) -> str:
    """The whole configuration, a dataclass, as YAML: an option a line, in the order of --help."""
    return yaml.safe_dump({f.name: plain(getattr(config, f.name)) for f in fields(config)}, sort_keys=False)


def save_config(config: Any, path: Path) -> None:
    """Write a configuration so that --config reads it back as it was.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        path.write_text(to_yaml(config), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}") from error


def load_values(path: Path, options: type) -> Mapping[str, Any]:
    """Read the options that a YAML file sets, some or all.

    Args:
        path: a mapping of option names to values.
        options: the dataclass whose options they are.

    Returns:
        Values of the options' types. Their ranges are not checked: the command line may override them.

    Raises:
        OptionInvalid: the file cannot be read, is no mapping, or holds an option that the job does not have or a value
            of another type.
    """
    return typed_values(read_values(path), options, str(path))


def read_values(path: Path) -> Mapping[Any, Any]:
    """Read a YAML file of options as it is.

    Raises:
        OptionInvalid: it cannot be read, or is no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OptionInvalid(f"Cannot read the options in {path}: {reason}", field="config") from error
    if not isinstance(values, dict):
        raise OptionInvalid(f"{path} must hold lines such as `epochs: 100`.", field="config")
    return values


def typed_values(values: Mapping[Any, Any], options: type, source: str) -> Mapping[str, Any]:
    """Give options in YAML's own types, as `plain` makes them, their own.

    Args:
        values: by option name, some or all.
        options: the dataclass whose options they are.
        source: where they come from, for messages.

    Raises:
        OptionInvalid: an option that the job does not have, or a value of another type.
    """
    types = get_type_hints(options)
    unknown = [str(name) for name in values if name not in types]
    if unknown:
        raise OptionInvalid(
            f"{source}: the job has no option {', '.join(unknown)}; its --help lists those it has.", field=unknown[0]
        )
    return {name: _typed(value, types[name], f"{source}: {name}", name) for name, value in values.items()}


def _typed(value: Any, type_: Any, what: str, name: str) -> Any:
    """Read a value as the command line does, by tyro: so 1e-3, which YAML takes for a string, is a number."""
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(type_, set()))
    assert not isinstance(spec, UnsupportedTypeAnnotationError), f"{name} cannot be an option"
    words = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
    try:
        if spec.choices is not None and not set(words) <= set(spec.choices):
            raise ValueError("none of the choices")
        typed = spec.instance_from_str(words)
        if not isinstance(value, str) and plain(typed) != value:
            raise ValueError("of another type, such as true where a word is due")
    except ValueError as error:
        raise OptionInvalid(f"{what} is {value!r}; it must be {spec.metavar}.", field=name) from error
    return typed


def plain(value: Any) -> Any:
    """Give an option's value in YAML's own types."""
    if isinstance(value, Path):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value
