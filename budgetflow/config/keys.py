"""Dotted keys of a config, such as "optimizer.momentum": their values, and new ones for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key; 0 for an argument that a section of any keys leaves out."""
    for name in key.split("."):
        config = config.get(name, 0.0) if isinstance(config, dict) else getattr(config, name)
    return config


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a section, with their dotted names; of a field, itself."""
    if not dataclasses.is_dataclass(value):
        yield key, value
        return
    for field in dataclasses.fields(value):
        yield from leaves(f"{key}.{field.name}", getattr(value, field.name))


def replace_fields(config: Any, values: dict[str, Any]) -> Any:
    """A copy of a frozen (nested) dataclass with dotted fields replaced, dicts included."""
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            section = getattr(config, head)
            value = (
                {**section, rest: value}
                if isinstance(section, dict)
                else dataclasses.replace(section, **{rest: value})
            )
        config = dataclasses.replace(config, **{head: value})
    return config
