"""What a search space may vary, and between which values."""

from __future__ import annotations

import typing
from typing import Any

from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import Dimension
from budgetflow.errors import ConfigError, nearest, shown
from budgetflow.fields import option_type, should
from budgetflow.schedule_config import ScheduleConfig

# The sections of a config that may vary.
SEARCHABLE = ("schedule", "optimizer", "regularization", "augmentation", "model")


def check_search_space(config: StudyConfig) -> None:
    """Checks that every dimension names a field that may vary, and holds nothing but its values.

    Raises:
        ConfigError: it does not; for ``max_train_steps`` with the playbook's reason.
    """
    seen = set()
    for dimension in config.search.space:
        kind = _field_type(dimension.name)
        is_choice = dimension.distribution == "choices"
        # All that a range can draw lies between its ends, and so does all that a field allows.
        values = dimension.values if is_choice else (dimension.low, dimension.high)
        for value in values:
            if wanted := should(kind, value):
                raise ConfigError(
                    f"config.search.space: {dimension.name} = {shown(value)}: should {wanted}"
                    + ("" if is_choice else "; or name some with choices(…)")
                )
        _check_once(dimension)
        if dimension.name in seen:
            raise ConfigError(f"config.search.space holds {dimension.name} twice")
        seen.add(dimension.name)


def _field_type(name: str) -> Any:
    """The type of the field that a dimension varies."""
    section, _, field = name.partition(".")
    if "max_train_steps" in name:
        raise ConfigError(
            "config.search.space varies max_train_steps: never tune the number of steps within a "
            "study. Pick one value for all its trials, plot the best steps that retrospective "
            "checkpoint selection finds, and use them to choose the next study's value"
        )
    if section not in SEARCHABLE or not field:
        names = ", ".join(f"{name}.…" for name in SEARCHABLE)
        raise ConfigError(f"config.search.space cannot vary {name!r}; what can vary: {names}")
    if section != "schedule":
        # It may be an argument that the config leaves at its default; whether the model or
        # optimizer takes it is checked with each trial.
        return option_type(section, field)
    hints = typing.get_type_hints(ScheduleConfig, include_extras=True)
    if field not in hints:
        raise ConfigError(
            f"config.search.space: schedule has no field {field!r}; {nearest(field, hints)}"
        )
    return hints[field]


def _check_once(dimension: Dimension) -> None:
    for number, value in enumerate(dimension.values):
        if value in dimension.values[:number]:
            raise ConfigError(
                f"config.search.space: {dimension.name} has the choice {shown(value)} twice"
            )
