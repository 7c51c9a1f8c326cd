"""The trials of a round that is derived from an earlier one: settings and their schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Role, Selection, TrialRecord
from budgetflow.playbook.common.transfer import Transfer, transfer
from budgetflow.playbook.derived.carry_over import Derivation, next_points
from budgetflow.playbook.derived.reruns import choose_reruns

SEED = "seed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTrial:
    """A trial of a derived round.

    Attributes:
        hyperparameters: config field to value; the seed is one of them where it is not the study's.
        schedule: its learning rates.
        transfer: how the earlier round's schedule was carried over to this length.
        role: the earlier round's "best" setting, a "rerun" of another one, or a new "point".
        promoted_from: the earlier trial with the same hyperparameters, or None.
    """

    hyperparameters: dict[str, Any]
    schedule: Schedule
    transfer: Transfer
    role: Role
    promoted_from: TrialRecord | None = None


def next_trials(
    derivation: Derivation,
    records: Mapping[int, TrialRecord],
    selection: Selection,
    *,
    max_train_steps: int,
    reruns: int,
    seeds: int,
    points: int,
    seed: int,
) -> Iterator[NextTrial]:
    """The earlier round's best setting and re-runs of others, with every seed; then new points.

    Args:
        derivation: what the earlier round says of the next one's search space.
        records: the earlier round's trials, by number.
        selection: what selects trials.
        max_train_steps: the length of the trials.
        reruns: how many of the earlier round's other settings are run again.
        seeds: how many seeds those that run again have, from ``seed`` on.
        points: how many new points there are, at most.
        seed: the study's own, which is no hyperparameter.

    Raises:
        NoTransferRuleError: no rule carries a schedule over to this length.
    """
    best = records[derivation.best_trial]
    others = choose_reruns(compete(list(records.values()), selection), reruns)
    for record in (best, *(records[number] for number in others)):
        carried = transfer(record.schedule, max_train_steps)
        setting = {k: v for k, v in record.hyperparameters.items() if k != SEED}
        for seeded in seed_values(seed, seeds):
            same = (r for r in records.values() if r.hyperparameters == setting | seeded)
            yield NextTrial(
                hyperparameters=setting | seeded,
                schedule=carried.after,
                transfer=carried,
                role="best" if record is best else "rerun",
                promoted_from=next(same, None),
            )
    carried = transfer(best.schedule, max_train_steps)
    for values in next_points(derivation, seed, points):
        schedule = _schedule_at(carried.after, values)
        yield NextTrial(hyperparameters=values, schedule=schedule, transfer=carried, role="point")


def seed_values(seed: int, count: int) -> Iterator[dict[str, int]]:
    """The seeds of what is compared, as hyperparameters; the study's own is none."""
    yield {}
    for other in range(seed + 1, seed + count):
        yield {SEED: other}


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
