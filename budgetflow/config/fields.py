"""Types of config fields, checked by pydantic, and the marks of what a field can change."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field

CHECKED = pydantic.ConfigDict(extra="forbid")
# The learning rates of all steps of a trial are in memory, and compared with other trials'.
MAX_STEPS = 10**7
# As JAX has it on devices.
MAX_INT = 2**31 - 1
# Nothing between these is 0 or infinite in float32.
LEAST_RATE, MAX_RATE = 1e-30, 1e30
# The last number below 1 that is below it in float32 too.
ALMOST_ONE = 0.9999999


def _check_name(name: str) -> str:
    """Checks the name of a study, and so of its folder; "" stands for the config file's name."""
    fits = len(name.encode()) <= 100 and name.isprintable() and not {"/", "\\"} & set(name)
    if not fits or name.startswith((".", "-", " ")) or name == "trials":
        raise ValueError(
            "be the name of a folder: at most 100 bytes, no slash and no control character "
            "among them, the first one no dot, dash or space, and not 'trials'"
        )
    return name


def _check_option(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_check_option(item) for item in value)
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError("be a number, a string, True, False, None or a tuple of these")
    most = MAX_RATE if isinstance(value, float) else MAX_INT
    if isinstance(value, int | float) and not -most <= value <= most:
        raise ValueError(f"be finite, from {-most} to {most}")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
Text = Annotated[str, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[int, Field(gt=0, le=MAX_INT, strict=True)]
Steps = Annotated[int, Field(gt=0, le=MAX_STEPS, strict=True)]
SomeSteps = Annotated[int, Field(ge=0, le=MAX_STEPS, strict=True)]
Bytes = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
# More devices than any machine has, on one axis.
AxisSize = Annotated[int, Field(ge=-1, le=2**20, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
DecayRate = Annotated[float, Field(ge=0, le=ALMOST_ONE, allow_inf_nan=False, strict=True)]
Strength = Annotated[float, Field(ge=0, le=MAX_RATE, allow_inf_nan=False, strict=True)]
# How many seeds to run something with.
Seeds = Annotated[int, Field(gt=0, le=1000, strict=True)]
# How far apart two neighbouring values may be.
Ratio = Annotated[float, Field(ge=1.001, le=MAX_RATE, strict=True)]
Rate = Annotated[float, Field(ge=LEAST_RATE, le=MAX_RATE, allow_inf_nan=False, strict=True)]
# An argument of a model, a task or an optimizer.
Option = Annotated[Any, AfterValidator(_check_option)]

# Types of arguments in sections of any keys, by name; others have a type by section.
_OPTIONS = {
    "name": Text,
    "nesterov": Flag,
    "dropout_rate": DecayRate,
    "label_smoothing": DecayRate,
    "flip_probability": Fraction,
    "momentum": DecayRate | None,
    "b1": DecayRate,
    "b2": DecayRate,
}


def option_type(section: str, name: str) -> Any:
    """The type of an argument in a section of any keys, such as ``momentum`` of "optimizer"."""
    is_strength = section in ("regularization", "augmentation")
    return _OPTIONS.get(name, Strength if is_strength else Option)


type_adapter = functools.cache(pydantic.TypeAdapter)  # Of the types of fields, which are few.


def should(kind: Any, value: Any) -> str | None:
    """What is wrong with a value, as in "be greater than 0" (after "should"); None if nothing."""
    try:
        type_adapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        return what_it_should(problem["msg"] for problem in error.errors(include_url=False))
    return None


def what_it_should(messages: Iterable[str]) -> str:
    """Pydantic's messages about a value as the end of a sentence, after "should"."""
    wanted = (re.sub(r"^(Value error, |\w+ should )", "", message) for message in messages)
    joined = " or ".join(dict.fromkeys(wanted)).replace(" or be ", " or ")
    # Pydantic writes very large and very small numbers out.
    return re.sub(r"\d{13,}|0\.0{9,}\d+", lambda number: f"{float(number[0]):g}", joined)


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


# Marks fields and sections of a config that a study does not take from the one that it builds on.
OWN = "own"


def changing(least: Changes, schema: type, values: Any) -> Any:
    """The values of those fields of a config (or section) that can change ``least`` or more.

    Args:
        least: see :class:`Changes`.
        schema: the dataclass that the values are of.
        values: one of these, or its fields as a mapping, and so are its sections; or several.
    """
    if isinstance(values, list | tuple):
        return [changing(least, schema, each) for each in values]
    values = values if isinstance(values, Mapping) else vars(values)
    return {
        name: values[name] if section is None else changing(least, section, values[name])
        for name, mark, section in _marked(schema)
        if mark >= least
    }


@functools.cache  # To resolve the hints takes longer than all else.
def _marked(schema: type) -> list[tuple[str, Changes, type | None]]:
    """The fields of a dataclass: name, mark, and the type of the section or sections that it is."""
    fields = []
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        mark = next((mark for mark in marks if isinstance(mark, Changes)), Changes.STATES)
        kind = hint.__origin__ if marks else hint
        # Itself, or of each, as in ``tuple[Dimension, ...]``.
        types = (t for t in (kind, *typing.get_args(kind)) if isinstance(t, type))
        fields.append((name, mark, next(filter(dataclasses.is_dataclass, types), None)))
    return fields
