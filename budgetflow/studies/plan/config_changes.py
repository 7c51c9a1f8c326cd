"""The changes of a study's config since the sweep that found its number of steps."""

from __future__ import annotations

import json
from typing import Any

from budgetflow.config.checks import possible
from budgetflow.config.fields import Changes, changing
from budgetflow.config.keys import value_of
from budgetflow.config.schema import FREE_FORM, StudyConfig, part
from budgetflow.engine.data.source import Dataset
from budgetflow.playbook.comparison import words as wording
from budgetflow.playbook.comparison.direction import NOT_RANDOM, RANDOM, Varied, directions
from budgetflow.studies.kinds.kind import STRENGTHS, Kind
from budgetflow.studies.store.keys import differing_fields

Changed = dict[str, tuple[Any, Any]]


def changes_since_sweep(
    config: StudyConfig, swept: dict[str, Any], swept_kind: Kind, dataset: Dataset
) -> tuple[str, ...]:
    """The changes of a config since its length was found, and their effect on the length.

    Args:
        config: of a study that takes its length from the one that it builds on.
        swept: the config of that one, as JSON values.
        swept_kind: its kind. A kind that trains with regularization and augmentation itself, such
            as a round, gives a length that holds for them.
        dataset: the study's data.

    Returns:
        Sentences; none where the length is the config's own.
    """
    if config.max_train_steps is not None or swept_kind.regularizes:
        return ()
    rows = directions(_changed(config, swept, dataset))
    factor = config.max_train_steps_factor
    return tuple(wording.departures(rows, swept["name"], factor))


def _changed(config: StudyConfig, swept: dict[str, Any], dataset: Dataset) -> Changed:
    """The fields that can change a trial's states, with their values in the sweep and here."""
    before, after = changing(Changes.STATES, StudyConfig, swept), part(config, Changes.STATES)
    for section in STRENGTHS:
        before[section] = {
            name: 0.0 if isinstance(value, int | float) else value
            for name, value in before[section].items()
        }
    fields = differing_fields(before, after)
    # What another model or optimizer takes for arguments is its own.
    renamed = tuple(f"{section}." for section in FREE_FORM if f"{section}.name" in fields)
    changed = {
        field: (_value(before, field), _value(after, field))
        for field in fields
        if field.endswith(".name") or not field.startswith(renamed)
    }
    for dimension in config.search.space:
        if not dimension.name.startswith("schedule."):
            values = dimension.values or (dimension.low, dimension.high)
            values = tuple(json.loads(json.dumps(values)))
            changed[dimension.name] = (_value(before, dimension.name), Varied(values))
    if decays := sorted(possible(config, "schedule.decay") - {"none"}):
        changed["schedule.decay"] = ("none", Varied(tuple(decays)))
    if dataset.train.is_random and "data.transform" not in changed:
        changed["data.transform"] = (NOT_RANDOM, RANDOM)
    return changed


def _value(config: dict[str, Any], field: str) -> Any:
    """The value of a field; an argument that is left out has its default, a strength is 0."""
    section, _, name = field.partition(".")
    if name and section not in STRENGTHS and name not in config[section]:
        return "its default"
    return value_of(config, field)
