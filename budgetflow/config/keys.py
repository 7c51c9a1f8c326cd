"""Dotted keys of a config, such as "optimizer.momentum": their values, and new ones for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key; 0 for a key that is not in a dict, as a strength left out is."""
    for name in key.split("."):
        config = config.get(name, 0.0) if isinstance(config, dict) else getattr(config, name)
    return config


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a section and of the sections in it, each as its dotted key and its value.

    Args:
        key: the section's own key, with which theirs begin; a field's key gives the field itself.
        value: the section.
    """
    if not dataclasses.is_dataclass(value):
        yield key, value
        return
    for field in dataclasses.fields(value):
        yield from leaves(f"{key}.{field.name}", getattr(value, field.name))


def replace_fields(config: Any, values: dict[str, Any]) -> Any:
    """A copy of a frozen dataclass with other values.

    Args:
        config: the dataclass; its sections are dataclasses or dicts.
        values: the new values by dotted key.

    Raises:
        TypeError: a dataclass has no such field.
    """
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            section, change = getattr(config, head), {rest: value}
            is_dict = isinstance(section, dict)
            value = {**section, **change} if is_dict else dataclasses.replace(section, **change)
        config = dataclasses.replace(config, **{head: value})
    return config


def changed_fields(patch: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A change of a config, as nested sections, by dotted key."""
    fields: dict[str, Any] = {}
    for name, value in patch.items():
        if isinstance(value, Mapping):
            fields |= changed_fields(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields
