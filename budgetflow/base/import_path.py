"""Objects named in a config by their import path, and the arguments they take."""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable
from typing import Any

from budgetflow.base.errors import ConfigError, nearest
from budgetflow.base.user_code import user_code


def is_import_path(name: str) -> bool:
    """Whether ``name`` is dotted like ``my_lab.models.ResNet``."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) is not None


def import_object(path: str, field: str, of_type: type | None = None) -> Any:
    """The class or function at ``path``, such as ``"my_lab.models.ResNet"``.

    Args:
        path: module and attribute, separated by dots.
        field: the config field that holds the path, for the error message.
        of_type: what the object is to be an instance of, instead of a class or function.

    Raises:
        ConfigError: the module cannot be imported, or has no such object.
    """

    def is_wanted(value: Any) -> bool:
        return callable(value) if of_type is None else isinstance(value, of_type)

    if not is_import_path(path):
        raise ConfigError(
            f"{field} = {path!r} is not an import path such as 'my_lab.models.ResNet'"
        )
    module_name, _, attribute = path.rpartition(".")
    with user_code(field, path):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{module_name}.".startswith(f"{missing}."):
                raise  # an import in the user's own module
            raise ConfigError(
                f"{field} = {path!r}: there is no module {missing!r}; {_nearest_module(missing)}"
            ) from error
        named = getattr(module, attribute, None)
        if not hasattr(module, attribute) or not is_wanted(named):
            names = [name for name, value in vars(module).items() if is_wanted(value)]
            public = [name for name in names if not name.startswith("_")]
            wanted = "class or function" if of_type is None else of_type.__name__
            problem = f"{attribute!r} is of type {type(named).__name__}, not a {wanted}"
            if not hasattr(module, attribute):
                problem = f"{module_name} has no {attribute!r}"
            raise ConfigError(f"{field} = {path!r}: {problem}; {nearest(attribute, public)}")
    return named


def _nearest_module(missing: str) -> str:
    """A hint at the module whose name is nearest to that of a missing one."""
    package, _, name = missing.rpartition(".")
    folders = getattr(importlib.import_module(package), "__path__", []) if package else None
    modules = [module.name for module in pkgutil.iter_modules(folders)]
    return nearest(name, modules)


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
    if isinstance(function, type):
        # Not the class's own signature, which for an nnx module is its metaclass's (*args,
        # **kwargs); nor the (*args, **kwargs) of a class that defines no constructor.
        made_by = [function.__init__, function.__new__]  # type: ignore[misc]
        own = [f for f in made_by if f not in (object.__init__, object.__new__)]
        return _signature(own[0])[1:] if own else []
    return _signature(function)


def _signature(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C, without one: takes what it takes
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [inspect.Parameter(f"any{number}", kind) for number, kind in enumerate(kinds)]


def _name(function: Callable[..., Any]) -> str:
    """The import path of a function or class; of another callable, that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
