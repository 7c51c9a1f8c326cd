"""The fields that a search space and an idea may vary, and between which values."""

from __future__ import annotations

import typing
from typing import Any

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.config.fields import option_type, should
from budgetflow.config.keys import changed_fields
from budgetflow.config.schedule import ScheduleConfig
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import Dimension

# The sections of a config that may vary.
SEARCHABLE = ("schedule", "optimizer", "regularization", "augmentation", "model")
# The fields beside these that an idea may change.
CHANGEABLE = ("ema_decay", "clip_gradient_norm", "weight_decay_mask", "precision")


def check_search_space(config: StudyConfig) -> None:
    """Checks that every dimension names a field that may vary, and holds nothing but its values.

    Raises:
        ConfigError: it does not; for ``max_train_steps`` with the playbook's reason.
    """
    seen = set()
    for dimension in config.search.space:
        kind = _field_type(dimension.name)
        # All that a range can draw lies between its ends, and so does all that a field allows.
        for value in dimension.values or (dimension.low, dimension.high):
            if wanted := should(kind, value):
                raise ConfigError(
                    f"config.search.space: {dimension.name} = {shown(value)}: should {wanted}"
                    + ("" if dimension.values else "; or name some with choices(…)")
                )
        _check_once(dimension)
        if dimension.name in seen:
            raise ConfigError(f"config.search.space holds {dimension.name} twice")
        seen.add(dimension.name)


def check_ideas(config: StudyConfig) -> None:
    """Checks that every idea changes fields that may differ between the trials of a study.

    Raises:
        ConfigError: it changes another one, none at all, or has a value that the field cannot have.
    """
    for idea, patch in config.ideas.items():
        where = f"config.ideas.{idea}"
        if not idea.isidentifier():
            raise ConfigError(f"{where}: the name of an idea should be a word, like 'wider'")
        if not (changed := changed_fields(patch)):
            raise ConfigError(f"{where} changes nothing; give it a field, as in config.model")
        for field, value in changed.items():
            if wanted := should(_idea_field_type(field, where), value):
                raise ConfigError(f"{where}: {field} = {shown(value)}: should {wanted}")


def _idea_field_type(field: str, where: str) -> Any:
    """The type of a field that an idea changes."""
    section = field.partition(".")[0]
    hints = typing.get_type_hints(StudyConfig, include_extras=True)
    if field in CHANGEABLE:
        return hints[field]
    if section not in SEARCHABLE:
        names = [*CHANGEABLE, *(f"{name}.…" for name in SEARCHABLE)]
        raise ConfigError(
            f"{where} changes {field!r}, which trials of one study share; what an idea can change: "
            f"{', '.join(names)}"
        )
    return _field_type(field)


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
