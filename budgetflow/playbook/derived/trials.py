"""The trials of a round that is derived from an earlier one: settings and their schedules."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from budgetflow.config.search_space import BASE_LEARNING_RATE, Value, points
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import Competition, compete
from budgetflow.playbook.common.measurement import SEED, Role, Selection, TrialRecord, by_setting
from budgetflow.playbook.common.transfer import Transfer, transfer
from budgetflow.playbook.derived.narrowing import in_order
from budgetflow.playbook.derived.search_space import DECAY_LENGTHS, Derivation

# Points that are drawn for each one asked for, before one gives up looking for new ones.
_DRAWS = 16


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
        derivation: the search space of the next round.
        records: the earlier round's trials, by number.
        selection: what selects trials.
        max_train_steps: the length of the trials.
        reruns: how many of the earlier round's other settings are run again.
        seeds: how many seeds the settings that run again have, from ``seed`` on.
        points: how many new points there are, at most.
        seed: the study's own, which is no hyperparameter.

    Raises:
        NoTransferRuleError: no rule carries a schedule over to this length.
    """
    best = records[derivation.best_trial]
    others = choose_reruns(compete(list(records.values()), selection), reruns)
    for record in (best, *(records[number] for number in others)):
        carried = transfer(record.schedule, max_train_steps)
        for seeded in seed_values(seed, seeds):
            values = record.setting | seeded
            same = (r for r in records.values() if r.hyperparameters == values)
            yield NextTrial(
                hyperparameters=values,
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
    """The seeds that are compared, as hyperparameters; the study's own is none."""
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
        base_learning_rate=values.get(BASE_LEARNING_RATE, schedule.base_learning_rate),
        decay_steps=decay_steps,
        constant_steps=schedule.constant_steps + schedule.decay_steps - decay_steps,
    )


def next_points(derivation: Derivation, seed: int, trials: int) -> list[dict[str, Value]]:
    """The hyperparameters of the next round's new trials: complete settings, all different.

    The winner's own setting is none of them, since it is a trial of the next round anyway. First
    come the sweeps, each value of a swept choice with all else the winner's (the base learning rate
    and the decay's length are cheap: they share steps with others), in turn, the decay's length
    first, as many as there are trials for. The rest are Halton points of all that is searched.

    Args:
        derivation: the search space of the next round.
        seed: for the Halton points.
        trials: how many; fewer where nothing else is left to try.
    """
    winner, space = derivation.winner, derivation.space
    swept = [row for row in derivation.rows if row.action == "swept"]
    # A decay that keeps its steps is far from its share of a much longer run: with trials for one
    # thing only, that one tells most (experiments/round_planning).
    swept.sort(key=lambda row: row.field not in DECAY_LENGTHS)
    sweeps = ([{row.field: value} for value in row.values] for row in swept)
    in_turn = (each for column in itertools.zip_longest(*sweeps) for each in column if each)
    drawn = points(space, "halton", _DRAWS * trials, seed) if space and trials else []
    if all(d.values for d in space) and math.prod(len(d.values) for d in space) <= len(drawn):
        drawn += points(space, "grid", trials, seed)  # what no draw has hit
    candidates = [{**winner, **changed} for changed in (*in_turn, *drawn)]
    different = {json.dumps(setting, sort_keys=True): setting for setting in candidates}
    different.pop(json.dumps(winner, sort_keys=True), None)
    return list(different.values())[:trials]


def choose_reruns(competition: Competition, count: int) -> tuple[int, ...]:
    """The numbers of the trials to run again beside the winner, chosen to tell most.

    Only trials that compete: a hopeless one that loses again shows nothing. The first is the
    runner-up, the likeliest to overtake the winner. The ranks behind it are cut into as many equal
    parts as are left to choose, so that a rank correlation has a range to work with; of each part,
    the trial is taken whose hyperparameters are the farthest from those chosen before (the winner's
    among them), so that what is transferred is tested over the search space. A distance is the
    mean over the hyperparameters: for numbers, of how many of the values tried lie in between, as a
    share (so no scale has to be known); for others, of whether they differ. Of equally far trials,
    the better one is taken. Trials that differ from a better one in nothing but the seed are no
    settings of their own.

    Args:
        competition: of the earlier round's trials; the best of them is its winner.
        count: how many to choose, 0 or more; there may be fewer.
    """
    settings = [same[0] for same in by_setting(t for t, _ in competition.competing).values()]
    distance = _distances([trial.setting for trial in settings])
    slots = min(count, len(settings) - 1)
    chosen = list(range(min(slots, 1) + 1))
    if slots > 1:
        for part in np.array_split(np.arange(2, len(settings)), slots - 1):
            # The first of equally far ones is the better one.
            farthest = np.argmax(distance[part][:, chosen].min(axis=1))
            chosen.append(int(part[farthest]))
    return tuple(settings[i].trial for i in chosen[1:])


def _distances(settings: Sequence[dict[str, Any]]) -> np.ndarray:
    """How far any two settings are apart, from 0 to 1: see :func:`choose_reruns`."""
    fields = list(dict.fromkeys(field for setting in settings for field in setting))
    total = np.zeros((len(settings), len(settings)))
    for field in fields:
        values = [setting.get(field) for setting in settings]
        if in_order(values):
            tried, ranks = np.unique(np.array(values, float), return_inverse=True)
            places = ranks / max(len(tried) - 1, 1)
            total += abs(places[:, None] - places)
        else:
            total += np.array([[one != other for other in values] for one in values], float)
    return total / max(len(fields), 1)
