"""The trials of a derived round: the earlier one's best setting, re-runs of others, new points.

And of ideas: changes of the config that a round compares with itself without them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pydantic
from etils import epath

from budgetflow.base import processes
from budgetflow.base.errors import UserError
from budgetflow.base.files import finite, read_json
from budgetflow.config.keys import changed_fields, replace_fields
from budgetflow.config.schedule import resolve_schedule
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import BASE_LEARNING_RATE, Dimension
from budgetflow.playbook.common.measurement import OF_IDEAS, Role, Selection, TrialRecord
from budgetflow.playbook.common.transfer import NoTransferRuleError
from budgetflow.playbook.derived.search_space import (
    CarriedField,
    Derivation,
    NothingToCarryOverError,
    derive,
)
from budgetflow.playbook.derived.trials import next_trials, seed_values
from budgetflow.studies.plan.trials import TrialPlan, without_schedule
from budgetflow.studies.store.trial import read_trials


@dataclasses.dataclass(frozen=True)
class EarlierRound:
    """A complete round that another one is derived from.

    Attributes:
        records: its trials, by number, without those that compare ideas.
        derivation: what becomes of each of its hyperparameters.
        ideas: the names of those that it promoted.
    """

    records: dict[int, TrialRecord]
    derivation: Derivation
    ideas: tuple[str, ...]


def read_earlier(
    config: StudyConfig, folder: epath.Path, selection: Selection, length: int
) -> EarlierRound:
    """Reads the round that a study is derived from.

    Args:
        config: the study's.
        folder: the earlier one's, complete.
        selection: what selects trials.
        length: of the study's trials.

    Raises:
        ConfigError: the config carries over a field that the earlier round did not vary.
        UserError: every trial of it diverged.
    """
    records = {r.trial: r for r in read_trials(folder) if r.role not in OF_IDEAS}
    outcome = read_json(folder / "outcome.json")
    overrides = {**dict(config.search.carry), **{d.name: d for d in config.search.space}}
    trials = list(records.values())
    try:
        derivation = derive(
            _searched(folder, outcome), trials, selection, overrides, max_train_steps=length
        )
    except NothingToCarryOverError as error:
        raise UserError(f"{config.name} is derived from {folder.name}: {error}") from error
    ideas = outcome.get("ideas") or ()
    promoted = tuple(idea["name"] for idea in ideas if idea["status"] == "promoted")
    return EarlierRound(records, derivation, promoted)


def derivation_basis(
    config: StudyConfig, folder: epath.Path, selection: Selection, length: int
) -> dict[str, Any]:
    """The origin of a derived round's trials, as JSON values: a part of what it is found on."""
    earlier = read_earlier(config, folder, selection, length)
    rows = finite([dataclasses.asdict(row) for row in earlier.derivation.rows])
    best_trial, ideas = earlier.derivation.best_trial, list(earlier.ideas)
    return {"rows": rows, "best_trial": best_trial, "ideas": ideas}


def _searched(folder: epath.Path, outcome: dict[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a complete round: those of its config, or that it was derived with."""
    if rows := outcome.get("carried_over"):
        carried = pydantic.TypeAdapter(tuple[CarriedField, ...]).validate_python(rows)
        return tuple(row.searched_dimension for row in carried)
    written = read_json(folder / "config.json")["config"]["search"]["space"]
    # A range has no values, and choices have no ends: null, in JSON.
    given = [{k: v for k, v in each.items() if v is not None} for each in written]
    return pydantic.TypeAdapter(tuple[Dimension, ...]).validate_python(given)


def derived(
    config: StudyConfig, lengths: Sequence[int], folder: epath.Path, selection: Selection
) -> Iterator[TrialPlan]:
    """The trials of a round that is derived from an earlier one, at each length.

    Its best setting, the re-runs and the ideas that it promoted come first, each with every seed;
    then points of the derived search space.

    Raises:
        UserError: every trial of the earlier round diverged, or its best schedule has no rule.
    """
    search = config.search
    for length in lengths:
        earlier = processes.on_main(read_earlier, config, folder, selection, length)
        trials = next_trials(
            earlier.derivation,
            earlier.records,
            selection,
            max_train_steps=length,
            reruns=search.reruns,
            seeds=search.seeds,
            points=search.trials or 0,
            seed=config.seed,
        )
        try:
            plans = [
                TrialPlan(config=without_schedule(config, trial.hyperparameters), **vars(trial))
                for trial in trials
            ]
        except NoTransferRuleError as error:
            raise UserError(f"{folder.name}: {error}") from error
        best = [plan for plan in plans if plan.role == "best"]
        plans += [_with_idea(plan, name, config) for name in earlier.ideas for plan in best]
        yield from sorted(plans, key=lambda plan: plan.role == "point")


def of_ideas(config: StudyConfig, lengths: Sequence[int]) -> Iterator[TrialPlan]:
    """The ideas of a config and their baseline, the config itself, with every seed."""
    entrants = (None, *config.ideas) if config.ideas else ()
    seeds = seed_values(config.seed, config.search.seeds)
    for length, name, seed in itertools.product(lengths, entrants, seeds):
        patch = {} if name is None else changed_fields(config.ideas[name])
        values = {**patch, **seed}
        filled = replace_fields(config, values)
        schedule = resolve_schedule(filled.schedule, length)
        role: Role = "baseline" if name is None else "idea"
        yield TrialPlan(filled, values, schedule, role=role, idea=name)


def _with_idea(plan: TrialPlan, name: str, config: StudyConfig) -> TrialPlan:
    """A plan with an idea; one that changes the schedule has that of its config."""
    patch = changed_fields(config.ideas[name])
    values, schedule = {**plan.hyperparameters, **patch}, plan.schedule
    if any(field.startswith("schedule.") for field in patch):
        base = {BASE_LEARNING_RATE: schedule.base_learning_rate, **patch}
        schedule = resolve_schedule(replace_fields(config, base).schedule, plan.length_steps)
    return dataclasses.replace(
        plan,
        config=without_schedule(config, values),
        hyperparameters=values,
        schedule=schedule,
        promoted_from=None,
        transfer=None,
        role="idea",
        idea=name,
    )
