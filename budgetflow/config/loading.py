"""From a file's ``get_config()``, by way of a ConfigDict, to a frozen and checked StudyConfig."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import sys
import typing
from pathlib import Path

from ml_collections import config_dict

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.base.user_code import user_code
from budgetflow.config.checks import check_combinations
from budgetflow.config.fields import OWN, option_type, should, type_adapter
from budgetflow.config.schema import FREE_FORM, StudyConfig
from budgetflow.config.values import as_config_dict, clear_errors, plain

# More studies than build on each other; a chain of more has no end.
MOST_STUDIES = 50


def default_config(kind: str) -> config_dict.ConfigDict:
    """A config with every key at its default.

    An unknown key is refused when it is assigned; but the sections model, task, optimizer,
    regularization and augmentation take any key, as an argument of what they name.

    Raises:
        pydantic.ValidationError: there is no such kind; :func:`load_config_file` makes it a
            ConfigError.
    """
    return as_config_dict(StudyConfig(kind=kind))


def building_on(path: str | Path, kind: str) -> config_dict.ConfigDict:
    """A config for the study that follows another one, with that one's workload.

    All that is not the study's own (its kind, name and length, the schedule, the search and what
    else is for one kind of study) starts as the config file at ``path`` sets it; the launcher
    completes that study first.

    Raises:
        ConfigError: as from :func:`load_config_file`.
    """
    first = load_config_file(path)
    config = default_config(kind)
    config.builds_on = str(Path(path).resolve())
    for section, hint in typing.get_type_hints(StudyConfig, include_extras=True).items():
        if OWN not in getattr(hint, "__metadata__", ()):
            config[section] = first[section]
    return config


def load_config_file(path: str | Path) -> config_dict.ConfigDict:
    """What ``get_config()`` of the Python file at ``path`` returns, its name filled in.

    Args:
        path: the file; with an argument for its ``get_config``, as in "file.py:argument".

    Raises:
        ConfigError: there is no such file, it has no ``get_config``, or that returns something
            with an unknown key or a wrong value.
    """
    file = Path(path)
    argument: tuple[str, ...] = ()
    if not file.is_file() and ":" in file.name:
        name, _, text = file.name.partition(":")
        file, argument = file.with_name(name), (text,)
    if not file.is_file():
        folder = file if file.is_dir() else file.parent
        names = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
        where = str(path) or "''"
        raise ConfigError(f"there is no config file {where}; {nearest(file.name, names)}")
    config = plain(_get_config(file, argument))
    with clear_errors(f"{path}: ", StudyConfig):
        study = type_adapter(StudyConfig).validate_python(config)
    return as_config_dict(
        dataclasses.replace(study, name=study.name or "_".join([file.stem, *argument]))
    )


# Config files whose get_config() is running, each called by the one before.
_running: list[str] = []


def _get_config(file: Path, argument: tuple[str, ...]) -> config_dict.ConfigDict:
    """What the ``get_config`` of a file that exists returns."""
    path = ":".join([str(file), *argument])
    name = ":".join([str(file.resolve()), *argument])
    if name in _running or len(_running) >= MOST_STUDIES:
        raise ConfigError(f"{path} builds on itself: {' -> '.join([*_running[:3], name])}")
    # Not the file's own name, which may be that of a module.
    loader = importlib.machinery.SourceFileLoader(f"budgetflow_config_{file.stem}", str(file))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses defined in it look it up
    _running.append(name)
    try:
        with user_code(path), clear_errors(f"{path}: ", StudyConfig):
            loader.exec_module(module)
            if not callable(getattr(module, "get_config", None)):
                raise ConfigError(f"{path} defines no get_config()")
            config = module.get_config(*argument)
    finally:
        _running.pop()
    if not isinstance(config, config_dict.ConfigDict):
        raise ConfigError(
            f"get_config() of {path} returns {type(config).__name__}, not a ConfigDict; start "
            "from budgetflow.config.default_config"
        )
    return config


def parse_config(config: config_dict.ConfigDict) -> StudyConfig:
    """The frozen, type-checked form of a config.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named), a wrong type, a value out of
            range, or a combination that makes no sense.
    """
    study = typed_config(config)
    check_combinations(study)
    return study


def typed_config(config: config_dict.ConfigDict) -> StudyConfig:
    """The frozen form of a config, each key checked by itself.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    with clear_errors("", StudyConfig):
        study = type_adapter(StudyConfig).validate_python(plain(config))
    for section in FREE_FORM:
        for name, value in getattr(study, section).items():
            if wanted := should(option_type(section, name), value):
                raise ConfigError(f"config.{section}.{name} = {shown(value)}: should {wanted}")
    return study
