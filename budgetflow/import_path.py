"""Objects named in a config by their import path, and the arguments they take."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from budgetflow.errors import ConfigError, nearest


def is_import_path(name: str) -> bool:
    """Whether ``name`` is dotted like ``my_lab.models.ResNet``."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) is not None


def import_object(path: str, field: str) -> Any:
    """The object at ``path``, such as ``"my_lab.models.ResNet"``.

    Args:
        path: module and attribute, separated by dots.
        field: the config field that holds the path, for the error message.

    Raises:
        ConfigError: the module cannot be imported, or has no such attribute.
    """
    if not is_import_path(path):
        raise ConfigError(
            f"{field} = {path!r} is not an import path such as 'my_lab.models.ResNet'"
        )
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{field} = {path!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{field}: {module_name} has no {attribute!r}; {nearest(attribute, public)}"
        )
    return getattr(module, attribute)


def keyword_names(function: Callable[..., Any]) -> set[str]:
    """The names of the parameters that ``function`` (or a class's constructor) takes by keyword."""
    return {
        p.name for p in _parameters(function) if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def check_arguments(
    function: Callable[..., Any], given: Iterable[str], field: str, provided: set[str]
) -> None:
    """Checks that ``function`` takes every argument in ``given``, and needs none that is missing.

    Args:
        function: what will be called with the arguments.
        given: the argument names that stand in the config.
        field: the config section they stand in, for the error message.
        provided: the argument names that budgetflow itself passes.

    Raises:
        ConfigError: an argument is unknown (the nearest valid one is named) or missing.
    """
    parameters = _parameters(function)
    names = keyword_names(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in given:
        if name in provided or (name not in names and not open_ended):
            raise ConfigError(
                f"{field}.{name} is not an option of {_name(function)}; "
                f"{nearest(name, names - provided)}"
            )
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.name in names
        if required and parameter.name not in provided and parameter.name not in given:
            raise ConfigError(f"{field}.{parameter.name} is missing; {_name(function)} needs it")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    if not isinstance(function, type):
        return list(inspect.signature(function).parameters.values())
    # Not the class's own signature, which for an nnx module is its metaclass's (*args, **kwargs).
    constructor = function.__init__  # type: ignore[misc]
    return list(inspect.signature(constructor).parameters.values())[1:]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
