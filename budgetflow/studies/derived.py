"""What a round takes from the one before: its best setting, re-runs of others, a search space.

And ideas: changes of the config that a round compares with itself without them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic
from etils import epath

from budgetflow import processes
from budgetflow.config.keys import changed_fields, replace_fields
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import Dimension
from budgetflow.errors import UserError
from budgetflow.files import finite, read_json
from budgetflow.playbook.carry_over import (
    Derivation,
    NothingToCarryOverError,
    derive,
    next_points,
)
from budgetflow.playbook.competing import compete
from budgetflow.playbook.measurement import Role, Selection, TrialRecord
from budgetflow.playbook.reruns import choose_reruns
from budgetflow.schedule_config import ScheduleConfig, resolve_schedule
from budgetflow.schedules import Schedule
from budgetflow.studies.plans import TrialPlan, carried_over
from budgetflow.studies.trial import read_trials

SEED = "seed"
# Roles of trials that are there to compare ideas, not to find the best setting.
OF_IDEAS = ("baseline", "idea")


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A complete round that another one is derived from.

    Attributes:
        name: the study's.
        records: its trials, by number, without what was there to compare ideas.
        derivation: what becomes of each of its hyperparameters.
        ideas: the names of those that it promoted.
    """

    name: str
    records: dict[int, TrialRecord]
    derivation: Derivation
    ideas: tuple[str, ...]

    @property
    def best(self) -> TrialRecord:
        """The trial whose setting is carried over."""
        return self.records[self.derivation.best_trial]


def read_earlier(
    config: StudyConfig, folder: epath.Path, selection: Selection, length: int
) -> Earlier:
    """Reads the round that a study is derived from.

    Args:
        config: the study's.
        folder: the earlier one's, complete.
        selection: what selects trials.
        length: of the study's trials.

    Raises:
        ConfigError: the config says what is to become of what the earlier round did not vary.
        UserError: every trial of it diverged.
    """
    records = {r.trial: r for r in read_trials(folder) if r.role not in OF_IDEAS}
    outcome = read_json(folder / "outcome.json")
    said = {**dict(config.search.carry), **{d.name: d for d in config.search.space}}
    try:
        derivation = derive(
            _searched(folder, outcome),
            list(records.values()),
            selection,
            said,
            max_train_steps=length,
        )
    except NothingToCarryOverError as error:
        raise UserError(f"{config.name} is derived from {folder.name}: {error}") from error
    ideas = outcome.get("ideas") or ()
    promoted = tuple(idea["name"] for idea in ideas if idea["status"] == "promoted")
    return Earlier(folder.name, records, derivation, promoted)


def derivation_basis(
    config: StudyConfig, folder: epath.Path, selection: Selection, length: int
) -> dict[str, Any]:
    """What a derived round's trials come from, as JSON values: a part of what it is found on."""
    earlier = read_earlier(config, folder, selection, length)
    rows = [dataclasses.asdict(row) for row in earlier.derivation.rows]
    return {"rows": finite(rows), "best_trial": earlier.best.trial, "ideas": list(earlier.ideas)}


def _searched(folder: epath.Path, outcome: dict[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a complete round: those of its config, or that it was derived with."""
    written = read_json(folder / "config.json")["config"]["search"]["space"]
    if rows := outcome.get("carried_over"):
        written = [_dimension(row) for row in rows]
    # A range has no values, and choices have no ends: null, in JSON.
    known = [{k: v for k, v in each.items() if v is not None} for each in written]
    return pydantic.TypeAdapter(tuple[Dimension, ...]).validate_python(known)


def _dimension(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table as the dimension that its round searched; a pinned value is a choice."""
    names = ("distribution", "low", "high", "values")
    searched = {name: row[name] for name in names}
    if row["distribution"] is None:
        searched = {"distribution": "choices", "values": [row["value"]]}
    tag = row["tag"] if row["tagged_by"] == "config" else None
    return {"name": row["field"], **searched, "tag": tag}


def derived(
    config: StudyConfig, lengths: Sequence[int], folder: epath.Path, selection: Selection
) -> Iterator[TrialPlan]:
    """The trials of a round that is derived from an earlier one, at each length.

    Its best setting, the re-runs and the ideas that it promoted come first, each with every seed;
    then points of the derived search space.

    Raises:
        UserError: every trial of the earlier round diverged, or its best schedule has no rule.
    """
    for length in lengths:
        earlier = processes.on_main(read_earlier, config, folder, selection, length)
        competition = compete(list(earlier.records.values()), selection)
        again = choose_reruns(competition, config.search.reruns)
        yield from _run_again(config, earlier.best, length, earlier, "best")
        for number in again:
            yield from _run_again(config, earlier.records[number], length, earlier, "rerun")
        for name in earlier.ideas:
            for plan in _run_again(config, earlier.best, length, earlier, "idea"):
                yield _with_idea(plan, name, changed_fields(config.ideas[name]), config)
        carried = carried_over(_unscheduled(config), earlier.best.schedule, length, earlier.name)
        for values in next_points(earlier.derivation, config.seed, config.search.trials or 0):
            schedule = _schedule_at(carried.after, values)
            yield TrialPlan(_filled(config, values), values, schedule, transfer=carried)


def of_ideas(config: StudyConfig, lengths: Sequence[int]) -> Iterator[TrialPlan]:
    """The ideas of a config and their baseline, the config itself, with every seed."""
    if not config.ideas:
        return
    patches: dict[str | None, dict[str, Any]] = {None: {}}
    patches |= {name: changed_fields(patch) for name, patch in config.ideas.items()}
    for length, (name, patch) in itertools.product(lengths, patches.items()):
        for seed in _seeds(config):
            values = {**patch, **seed}
            filled = replace_fields(config, values)
            schedule = resolve_schedule(filled.schedule, length)
            role: Role = "baseline" if name is None else "idea"
            yield TrialPlan(filled, values, schedule, role=role, idea=name)


def _seeds(config: StudyConfig) -> Iterator[dict[str, int]]:
    """The seeds of what is compared, as hyperparameters; the study's own is none."""
    yield {}
    for seed in range(config.seed + 1, config.seed + config.search.seeds):
        yield {SEED: seed}


def _filled(config: StudyConfig, values: Mapping[str, Any]) -> StudyConfig:
    """A config with hyperparameters filled in; the schedule is carried over as a whole instead."""
    others = {k: v for k, v in values.items() if not k.startswith("schedule.")}
    return replace_fields(config, others)


def _unscheduled(config: StudyConfig) -> StudyConfig:
    """A config in which no schedule takes the place of the one that is carried over."""
    return dataclasses.replace(config, schedule=ScheduleConfig())


def _run_again(
    config: StudyConfig, record: TrialRecord, length: int, earlier: Earlier, role: Role
) -> Iterator[TrialPlan]:
    """The setting of an earlier trial at another length, with every seed."""
    carried = carried_over(_unscheduled(config), record.schedule, length, earlier.name)
    setting = {k: v for k, v in record.hyperparameters.items() if k != SEED}
    for seed in _seeds(config):
        values = {**setting, **seed}
        same = (r for r in earlier.records.values() if r.hyperparameters == values)
        yield TrialPlan(
            config=_filled(config, values),
            hyperparameters=values,
            schedule=carried.after,
            promoted_from=next(same, None),
            transfer=carried,
            role=role,
        )


def _with_idea(
    plan: TrialPlan, name: str, patch: Mapping[str, Any], config: StudyConfig
) -> TrialPlan:
    """A plan with an idea; one that changes the schedule has that of its config."""
    values, schedule = {**plan.hyperparameters, **patch}, plan.schedule
    if any(field.startswith("schedule.") for field in patch):
        base = {"schedule.base_learning_rate": schedule.base_learning_rate, **patch}
        schedule = resolve_schedule(replace_fields(config, base).schedule, plan.length_steps)
    return dataclasses.replace(
        plan,
        config=_filled(config, values),
        hyperparameters=values,
        schedule=schedule,
        promoted_from=None,
        transfer=None,
        idea=name,
    )


def _schedule_at(schedule: Schedule, values: Mapping[str, Any]) -> Schedule:
    """A schedule with the base learning rate and the length of the decay that a point has."""
    decay_steps = values.get("schedule.decay_steps")
    if (fraction := values.get("schedule.decay_fraction")) is not None:
        decay_steps = round(fraction * schedule.total_steps)
    if decay_steps is None:
        decay_steps = schedule.decay_steps
    return dataclasses.replace(
        schedule,
        base_learning_rate=values.get("schedule.base_learning_rate", schedule.base_learning_rate),
        decay_steps=decay_steps,
        constant_steps=schedule.constant_steps + schedule.decay_steps - decay_steps,
    )
