"""Conversion of configs as people write them to dataclasses and back, and errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import traceback
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydantic
from ml_collections import config_dict

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.base.user_code import location
from budgetflow.config.fields import what_it_should


def as_config_dict(value: Any) -> config_dict.ConfigDict:
    """A dataclass or a dict as a ConfigDict, and so are those in it.

    It takes values of any type, which are checked together later. No key can be added to what was a
    dataclass; to what was a dict, any can.
    """
    result = config_dict.ConfigDict(type_safe=False)
    is_schema = dataclasses.is_dataclass(value)
    defaults = {f.name: f.default for f in dataclasses.fields(value)} if is_schema else {}
    items = {name: getattr(value, name) for name in defaults} if is_schema else value
    for name, item in items.items():
        if isinstance(item, dict) or dataclasses.is_dataclass(item):
            result[name] = as_config_dict(item)
        elif isinstance(item, tuple) or (isinstance(item, str) and defaults.get(name) is not None):
            result[name] = item  # on the command line, a tuple and a string
        else:
            # Of no type in particular: on the command line, a Python literal.
            result[name] = config_dict.FieldReference(item, field_type=object)
    if is_schema:
        result.lock()
        for name in (name for name, item in items.items() if isinstance(item, dict)):
            result[name].unlock()
    return result


def plain(value: Any) -> Any:
    """A value in Python's own types, whatever a config file made it of.

    NumPy's scalars become numbers, arrays and lists tuples, paths strings, ConfigDicts dicts.
    """
    if isinstance(value, config_dict.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@contextlib.contextmanager
def clear_errors(where: str, schema: type) -> Iterator[None]:
    """Turns what pydantic and ml_collections raise about a config into a ConfigError of one line.

    Args:
        where: the beginning of the message, such as "my_config.py: ".
        schema: the dataclass that the config is checked against.

    Raises:
        ConfigError: a key does not exist, or a value is not what the schema says.
    """
    try:
        yield
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where}{first_problem(error, schema)}{location(error)}") from error
    except (AttributeError, KeyError) as error:
        # ml_collections lists every field of the config, which hides the one line of use in it.
        theirs = "ml_collections" in traceback.extract_tb(error.__traceback__)[-1].filename
        unknown = re.search(r"""["'](\w+)["']""", str(error.args[0]))
        if not theirs or unknown is None:
            raise
        close = re.search(r'Did you mean "(.*?)"', str(error.args[0]))
        hint = f"did you mean {close[1]!r}?" if close else f"{schema.__name__} has all that do"
        raise ConfigError(
            f"{where}the key {unknown[1]!r} does not exist; {hint}{location(error)}"
        ) from error


def first_problem(error: pydantic.ValidationError, schema: type) -> str:
    """The first problem that pydantic reports: the key, its value, and what would be valid.

    Args:
        error: what pydantic raised.
        schema: the dataclass that was checked.
    """
    problems = error.errors(include_url=False)
    problem = problems[0]
    path, hint = _walk(schema, problem["loc"])
    field = "config." + ".".join(path)
    if problem["type"] == "unexpected_keyword_argument":
        unknown = str(problem["loc"][-1])
        hint = nearest(unknown, [f.name for f in dataclasses.fields(hint)])
        return f"{'.'.join(['config', *path, unknown])} does not exist; {hint}"
    # Of a field of several types, pydantic says of each why it is not of that one.
    same = [p for p in problems if _walk(schema, p["loc"])[0] == path]
    if problem["type"].startswith("missing"):
        options = [repr(option) for option in typing.get_args(hint)]
        hint = nearest("", options) if options else "it should be set"
        return f"{field} is missing in {shown(problem['input'])}; {hint}"
    return f"{field} = {shown(problem['input'])}: should {what_it_should(p['msg'] for p in same)}"


def _walk(schema: Any, location: tuple[str | int, ...]) -> tuple[list[str], Any]:
    """The keys on the way to a location, and the type of what is there."""
    path: list[str] = []
    for part in location:
        hint: Any = None
        if dataclasses.is_dataclass(schema):
            hint = typing.get_type_hints(schema).get(str(part))
            if hint is None:
                break
        elif isinstance(part, int) or typing.get_origin(schema) is dict:
            hint = (typing.get_args(schema) or (None,))[0 if isinstance(part, int) else -1]
        else:
            break  # one of several types
        schema = hint
        path.append(str(part))
    return path, schema
