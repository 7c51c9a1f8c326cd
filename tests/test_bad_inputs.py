"""Every bad input is refused in one line, which names key, value and what would be valid."""

import dataclasses
import math
import re
import types
import typing
from typing import Annotated, Literal

import pytest
from absl import flags
from conftest import REPOSITORY

from budgetflow import command_line
from budgetflow.config import StudyConfig
from budgetflow.errors import UserError
from budgetflow.launch import check, load_chain

SWEEP = str(REPOSITORY / "configs" / "lr_sweep.py")
# How a message says what would be valid.
VALID = re.compile(
    r"should|did you mean|valid: |valid here|at most|needs|is for|keep|set |use |name |leave|give"
)
HUGE = 10**30
BAD = {
    int: ("many", 2.5, True, -2, HUGE, math.nan, (1,)),
    float: ("many", True, -1.0, math.nan, math.inf, -math.inf, 10 * HUGE, 10**400, (0.1,)),
    str: (3, True, ("a",)),
    bool: ("perhaps", 3),
    tuple: (3.5, ({},), (math.nan,), ("many",), (-1,), ((),)),
    dict: (3, "many"),
    Literal: ("nonsense", 3),
}


def refused(arguments, workdir, *parts):
    """Launches as far as anything runs; the message that it was refused with."""
    with pytest.raises(UserError) as caught:
        check(load_chain(command_line.parse(["launch", *arguments], flags.FLAGS)), str(workdir))
    message = str(caught.value)
    assert "\n" not in message
    assert VALID.search(message), message
    for part in parts:
        assert part in message
    assert not workdir.exists()
    return message


def leaves(schema=StudyConfig, prefix=""):
    """All fields of the schema: dotted names and types."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")
            yield f"{prefix}{field.name}", dict
        else:
            yield f"{prefix}{field.name}", hint


def kinds(hint):
    """The plain types that a field can have."""
    if typing.get_origin(hint) is Annotated:
        return kinds(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return set().union(*map(kinds, typing.get_args(hint)))
    return {typing.get_origin(hint) or hint}


def bad_values():
    """For every field, values of wrong types and out of range."""
    for name, hint in leaves():
        of = kinds(hint)
        values = list(BAD[next(kind for kind in BAD if kind in of)])
        if types.NoneType not in of:
            values.append(None)
        if of >= {str, tuple}:
            values.remove(("a",))
        yield from ((name, value) for value in values)


GENERATED = list(bad_values())


def test_there_are_enough():
    assert len(GENERATED) > 300


@pytest.mark.parametrize(("name", "value"), GENERATED, ids=str)
def test_a_wrong_value_in_a_file_is_refused(tmp_path, name, value):
    path = tmp_path / "mine.py"
    path.write_text(
        "from math import inf, nan\nfrom budgetflow.config import default_config\n"
        f"def get_config():\n    config = default_config('round')\n"
        f"    config.max_train_steps = 10\n    config.{name} = {value!r}\n    return config\n"
    )
    message = refused([f"--config={path}"], tmp_path / "runs", f"config.{name}")
    assert re.search(re.escape(repr(value)[:30].strip("(){},'")), message), message


# Any text is a name, and one number a tuple of it.
FINE_BY_FLAG = ("name", "sweep.learning_rates-3.5")
BY_FLAG = [(n, v) for n, v in GENERATED if n not in FINE_BY_FLAG and f"{n}-{v}" not in FINE_BY_FLAG]


@pytest.mark.parametrize(("name", "value"), BY_FLAG, ids=str)
def test_a_wrong_value_by_flag_is_refused(tmp_path, name, value):
    message = refused(
        [f"--config={SWEEP}", f"--config.{name}={value}"], tmp_path / "runs", f"config.{name}"
    )
    assert re.search(re.escape(str(value)[:30].strip("(){},'")), message), message
