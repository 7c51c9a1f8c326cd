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
from budgetflow.config.keys import replace_fields
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import Dimension
from budgetflow.errors import UserError
from budgetflow.files import read_json
from budgetflow.playbook.carry_over import Derivation, derive, next_points
from budgetflow.playbook.held import choose_reruns
from budgetflow.playbook.measurement import Role, Selection
from budgetflow.playbook.settings import SEED, TriedSetting, tried_settings
from budgetflow.playbook.transfer import Transfer
from budgetflow.schedule_config import resolve_schedule
from budgetflow.schedules import Schedule
from budgetflow.studies.plans import TrialPlan, carried_over
from budgetflow.studies.trial import read_trials

# Roles of trials that were not there to find the best setting.
_OF_IDEAS = ("baseline", "idea")


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A complete round that another one is derived from.

    Attributes:
        name: the study's.
        settings: what it tried, the best first, without what was there to compare ideas.
        derivation: what becomes of each of its hyperparameters.
        ideas: the names of those that it promoted.
    """

    name: str
    settings: tuple[TriedSetting, ...]
    derivation: Derivation
    ideas: tuple[str, ...]


def read_earlier(config: StudyConfig, folder: epath.Path, selection: Selection) -> Earlier:
    """Reads the round that a study is derived from.

    Args:
        config: the study's.
        folder: the earlier one's, complete.
        selection: what selects trials.

    Raises:
        UserError: every trial of it diverged.
    """
    records = [r for r in read_trials(folder) if r.role not in _OF_IDEAS]
    outcome = read_json(folder / "outcome.json")
    if outcome["best_trial"] is None:
        raise UserError(
            f"{config.name} is derived from {folder.name}, of which every trial diverged"
        )
    derivation = derive(
        _searched(folder, outcome),
        records,
        selection,
        {**dict(config.search.carry), **{d.name: d for d in config.search.space}},
    )
    promoted = [idea["name"] for idea in outcome.get("ideas") or () if idea["status"] == "promoted"]
    settings = tuple(tried_settings(records, selection))
    return Earlier(folder.name, settings, derivation, tuple(promoted))


def _searched(folder: epath.Path, outcome: dict[str, Any]) -> tuple[Dimension, ...]:
    """The search space of a complete round: what it derived, or what its config says."""
    written = read_json(folder / "config.json")["config"]["search"]["space"]
    if outcome.get("carried_over"):
        written = [row["dimension"] for row in outcome["carried_over"] if row["dimension"]]
    # A range has no values, and choices have no ends: null, in JSON.
    known = [{k: v for k, v in each.items() if v is not None} for each in written]
    return pydantic.TypeAdapter(tuple[Dimension, ...]).validate_python(known)


def derived(
    config: StudyConfig, lengths: Sequence[int], folder: epath.Path, selection: Selection
) -> Iterator[TrialPlan]:
    """The trials of a round that is derived from an earlier one, at each length.

    Its best setting, the re-runs and the ideas that it promoted come first, each with every seed;
    then points of the derived search space.

    Raises:
        UserError: every trial of the earlier round diverged, or its best schedule has no rule.
    """
    earlier = processes.on_main(read_earlier, config, folder, selection)
    best, *others = earlier.settings
    again = choose_reruns(earlier.settings, config.search.reruns)
    points = next_points(earlier.derivation, config.seed, config.search.trials or 0)
    for length in lengths:
        for role, setting in [("best", best), *(("rerun", other) for other in again)]:
            yield from _run_again(config, setting, length, earlier.name, role)
        carried = _carried_over(config, best, length, earlier.name)
        for name in earlier.ideas:
            patch = changed_fields(config.ideas[name])
            for plan in _run_again(config, best, length, earlier.name, "idea"):
                yield _with_idea(plan, name, patch, length)
        for values in points:
            schedule = _schedule_at(carried.after, values)
            yield TrialPlan(_filled(config, values), values, schedule, transfer=carried)


def of_ideas(config: StudyConfig, lengths: Sequence[int]) -> Iterator[TrialPlan]:
    """The ideas of a config and their baseline, the config itself, with every seed."""
    if not config.ideas:
        return
    patches: dict[str | None, dict[str, Any]] = {None: {}}
    patches |= {name: changed_fields(patch) for name, patch in config.ideas.items()}
    for length, (name, patch) in itertools.product(lengths, patches.items()):
        role: Role = "baseline" if name is None else "idea"
        for seed in _seeds(config):
            values = {**patch, **seed}
            filled = replace_fields(config, values)
            schedule = resolve_schedule(filled.schedule, length)
            yield TrialPlan(filled, values, schedule, role=role, idea=name)


def changed_fields(patch: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """An idea as dotted config fields and their values."""
    fields: dict[str, Any] = {}
    for name, value in patch.items():
        if isinstance(value, Mapping):
            fields |= changed_fields(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def _seeds(config: StudyConfig) -> Iterator[dict[str, int]]:
    """The seeds of what is compared, as hyperparameters; the study's own is none."""
    yield {}
    for seed in range(config.seed + 1, config.seed + config.search.seeds):
        yield {SEED: seed}


def _filled(config: StudyConfig, values: dict[str, Any]) -> StudyConfig:
    """A config with hyperparameters filled in; the schedule is carried over as a whole instead."""
    others = {k: v for k, v in values.items() if not k.startswith("schedule.")}
    return replace_fields(config, others)


def _carried_over(
    config: StudyConfig, setting: TriedSetting, length: int, earlier: str
) -> Transfer:
    config = dataclasses.replace(config, schedule=type(config.schedule)())
    return carried_over(config, setting.trials[0].schedule, length, earlier)


def _run_again(
    config: StudyConfig, setting: TriedSetting, length: int, earlier: str, role: Role
) -> Iterator[TrialPlan]:
    """An earlier setting at another length, with every seed."""
    carried = _carried_over(config, setting, length, earlier)
    before = {trial.seed: trial for trial in setting.trials}
    for seed in _seeds(config):
        values = {**setting.hyperparameters, **seed}
        yield TrialPlan(
            config=_filled(config, values),
            hyperparameters=values,
            schedule=carried.after,
            promoted_from=before.get(seed.get(SEED, config.seed)),
            transfer=carried,
            role=role,
        )


def _with_idea(plan: TrialPlan, name: str, patch: dict[str, Any], length: int) -> TrialPlan:
    """A plan with an idea; one that changes the schedule gets that of its config."""
    values, schedule = {**plan.hyperparameters, **patch}, plan.schedule
    if any(field.startswith("schedule.") for field in patch):
        schedule = resolve_schedule(replace_fields(plan.config, values).schedule, length)
    filled = _filled(plan.config, values)
    return dataclasses.replace(
        plan,
        config=filled,
        hyperparameters=values,
        schedule=schedule,
        promoted_from=None,
        transfer=None,
        role="idea",
        idea=name,
    )


def _schedule_at(schedule: Schedule, values: dict[str, Any]) -> Schedule:
    """A schedule with another base learning rate and another length of its decay, as a point has."""
    decay_steps = schedule.decay_steps
    if (steps := values.get("schedule.decay_steps")) is not None:
        decay_steps = steps
    elif (fraction := values.get("schedule.decay_fraction")) is not None:
        decay_steps = round(fraction * schedule.total_steps)
    return dataclasses.replace(
        schedule,
        base_learning_rate=values.get("schedule.base_learning_rate", schedule.base_learning_rate),
        decay_steps=decay_steps,
        constant_steps=schedule.constant_steps + schedule.decay_steps - decay_steps,
    )
