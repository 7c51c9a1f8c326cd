"""What the processes of a run send each other: values as JSON, of a few known types.

Reading a message imports nothing and calls nothing that its sender names. A new type of value is
added to :func:`_encoded` and :func:`_decoded`; a dataclass needs nothing but to be frozen.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
import sys
import types
from collections.abc import Callable
from typing import Any

from etils import epath

from budgetflow.base.errors import ConfigError, DamagedFileError, UserError

_PATH = type(epath.Path("."))
# Of other classes of these, the nearest base is sent.
_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (
        *(UserError, ConfigError, DamagedFileError),
        *(OSError, BlockingIOError, ConnectionError, FileExistsError, FileNotFoundError),
        *(InterruptedError, IsADirectoryError, NotADirectoryError, PermissionError, TimeoutError),
    )
}


def to_bytes(value: Any) -> bytes:
    """A value as a message, which :func:`from_bytes` reads as an equal value of the same types.

    Those are None, bool, int, float (bit for bit), str, list, tuple, dict, ``epath.Path``, errors
    that a user can act on, OSErrors, and frozen dataclasses: budgetflow's own and those that derive
    from them, as the outcome of a user's own kind of study does.

    Raises:
        TypeError: the value, or one in it, is of another type.
    """
    return json.dumps(_encoded(value), allow_nan=False, separators=(",", ":")).encode()


def from_bytes(message: bytes) -> Any:
    """The value of a message.

    Raises:
        ValueError: it is not what :func:`to_bytes` makes.
    """
    try:
        return _decoded(json.loads(message))
    except (AttributeError, KeyError, TypeError, IndexError, struct.error) as error:
        raise ValueError(f"damaged message: {error}") from error


def _encoded(value: Any) -> Any:
    """A value as JSON; what JSON has no type for is an object whose one key names the type."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if kind is list:
        return [_encoded(item) for item in value]
    if kind is tuple:
        return {"tuple": [_encoded(item) for item in value]}
    if kind is dict:
        return {"dict": [[_encoded(key), _encoded(item)] for key, item in value.items()]}
    if kind is _PATH:
        return {"path": os.fspath(value)}
    if isinstance(value, UserError | OSError):
        return {"error": _encoded(_error_parts(value))}
    if kind is _dataclass_named(kind.__module__, kind.__qualname__):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {"dataclass": [kind.__module__, kind.__qualname__, _encoded(fields)]}
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be sent between processes")


def _decoded(content: Any) -> Any:
    if isinstance(content, list):
        return [_decoded(item) for item in content]
    if not isinstance(content, dict):
        return content
    ((name, part),) = content.items()
    return _DECODERS[name](part)


def _error_parts(error: UserError | OSError) -> list[Any]:
    """The name of an error's class, and what the class is called with."""
    name = next(each.__name__ for each in type(error).__mro__ if each.__name__ in _ERRORS)
    if isinstance(error, OSError) and error.errno is not None:
        filenames = [
            os.fspath(each) if each else None for each in (error.filename, error.filename2)
        ]
        return [name, error.errno, error.strerror, filenames[0], None, filenames[1]]
    return [name, *map(str, error.args)]


def _error(parts: Any) -> Exception:
    name, *arguments = _decoded(parts)
    return _ERRORS[name](*arguments)


def _dataclass(part: Any) -> Any:
    """A dataclass of the fields sent, set without a call of its constructor."""
    module, qualname, fields = part
    kind, values = _dataclass_named(module, qualname), _decoded(fields)
    if kind is None or values.keys() != {each.name for each in dataclasses.fields(kind)}:
        raise ValueError(f"{module}.{qualname} is no value that a process may send")
    value = object.__new__(kind)
    for name, item in values.items():
        object.__setattr__(value, name, item)
    return value


def _dataclass_named(module_name: str, qualname: str) -> Any:
    """A frozen dataclass that may be sent, by its name; None if there is none."""
    module = sys.modules.get(module_name)
    if not isinstance(module, types.ModuleType):
        return None
    kind = vars(module).get(qualname)
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return None
    is_known = any(
        base.__module__.partition(".")[0] == "budgetflow" and dataclasses.is_dataclass(base)
        for base in kind.__mro__
    )
    is_frozen = vars(kind)["__dataclass_params__"].frozen if is_known else False
    return kind if is_frozen else None


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": lambda part: struct.unpack(">d", bytes.fromhex(part))[0],
    "tuple": lambda part: tuple(map(_decoded, part)),
    "dict": lambda part: {_decoded(key): _decoded(item) for key, item in part},
    "path": epath.Path,
    "error": _error,
    "dataclass": _dataclass,
}
