"""The types of a config's fields, checked by pydantic, and what a field can change."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field

CHECKED = pydantic.ConfigDict(extra="forbid")
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[int, Field(gt=0, strict=True)]
NonNegative = Annotated[int, Field(ge=0, strict=True)]
AxisSize = Annotated[int, Field(ge=-1, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
DecayRate = Annotated[float, Field(ge=0, lt=1, strict=True)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class Changes(enum.IntEnum):
    """The most that a config field can change; whatever a field changes, it changes those below.

    A field changes the trained states unless its definition is marked otherwise, as in
    ``Annotated[str, Changes.MEASUREMENTS]``. A mark on a section holds for all of its fields. From
    these marks follow the fingerprint of a study, which tells whether its folder can be gone on
    with, and the keys by which trials take over states and measurements from each other.

    Attributes:
        NOTHING: speed, memory, places and names.
        OUTCOME: which trials there are and what is concluded from them.
        MEASUREMENTS: how a state is measured.
        STATES: the states that training goes through.
    """

    NOTHING = 0
    OUTCOME = 1
    MEASUREMENTS = 2
    STATES = 3


def changing(least: Changes, schema: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those fields of a config (or section) that can change ``least`` or more.

    Args:
        least: see :class:`Changes`.
        schema: the dataclass that the values are of.
        values: its fields, sections as mappings.
    """
    hints = typing.get_type_hints(schema, include_extras=True)
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        marks = getattr(hints[field.name], "__metadata__", ())
        mark = next((mark for mark in marks if isinstance(mark, Changes)), Changes.STATES)
        if mark < least:
            continue
        value, kind = values[field.name], getattr(hints[field.name], "__origin__", None)
        section = kind if kind is not None and marks else hints[field.name]
        if dataclasses.is_dataclass(section):
            value = changing(least, typing.cast(type, section), value)
        chosen[field.name] = value
    return chosen
