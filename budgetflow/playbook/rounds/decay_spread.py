"""How far apart the decay schedules of a study end: a sign of a length that is too short.

The playbook: with a very stingy ``max_train_steps``, it may be impossible to do well without a
perfectly tuned decay schedule; with more steps, many schedules give about the same.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection, TrialRecord

# The result hinges on the decay where the worst schedule is worse than the best by more than this.
HINGES_ABOVE = 0.10


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecaySpread:
    """How far apart schedules end that differ in nothing but their decay.

    Attributes:
        schedules: how many.
        best, worst: the metric of the best and the worst of them.
        relative: how much worse the worst is, as a fraction of the best; None if the best is 0.
        best_trial, worst_trial: the trials of these two.
        hinges_on_decay: whether they end too far apart for a length that is long enough.
        means: a sentence, of :mod:`budgetflow.playbook.rounds.words`.
    """

    schedules: int
    best: float
    worst: float
    relative: float | None
    best_trial: int
    worst_trial: int
    hinges_on_decay: bool
    means: str = ""


class _End(NamedTuple):
    """The metric at the best step of a schedule's best trial, and that trial."""

    value: float
    trial: int


def decay_spread(
    trials: Sequence[TrialRecord], selection: Selection, competing_trials: Collection[int]
) -> DecaySpread | None:
    """How far apart trials end that differ in nothing but the decay of their schedule.

    Compared are trials of the same length, warmup, base learning rate and hyperparameters (the seed
    among them) but for those of the schedule, each at the step that retrospective selection finds:
    the group of the study's best trial or, where no other schedule was tried beside that one, the
    group that ends the farthest apart of those whose best competes for the study's best result
    (decays at a hopeless learning rate say nothing). Within a group every schedule counts, since
    how badly the others end is the question.

    Args:
        trials: the study's trials; left out are diverged ones and, since nobody knows which part of
            a function of the user's own is its decay, those with such a schedule.
        selection: what selects steps and trials.
        competing_trials: the numbers of those that compete, by
            :func:`budgetflow.playbook.common.competing.compete`.

    Returns:
        The spread of that group; None where no group that competes has two schedules.
    """
    ranked = selection.ranked(trials)
    groups: collections.defaultdict[str, dict[Schedule, _End]] = collections.defaultdict(dict)
    # Best first, so that each schedule's best trial is the one that stays.
    for trial, row in ranked:
        if trial.schedule.function is None:
            end = _End(row[selection.key], trial.trial)
            groups[_all_but_the_decay(trial)].setdefault(trial.schedule, end)
    spreads = [
        (selection.worse_by(ends[-1].value, than=ends[0].value), ends)
        for ends in (list(group.values()) for group in groups.values())
        if len(ends) > 1 and ends[0].trial in competing_trials
    ]
    if not spreads:
        return None
    best_trial = ranked[0][0].trial
    # Groups are in the order of their best trials, so that the first of equally wide ones is taken.
    worse_by, ends = max(spreads, key=lambda spread: (spread[1][0].trial == best_trial, spread[0]))
    best, worst = ends[0], ends[-1]
    return DecaySpread(
        schedules=len(ends),
        best=best.value,
        worst=worst.value,
        relative=worse_by if best.value else None,
        best_trial=best.trial,
        worst_trial=worst.trial,
        hinges_on_decay=worse_by > HINGES_ABOVE,
    )


def _all_but_the_decay(trial: TrialRecord) -> str:
    """What trials have in common whose decays can be compared."""
    schedule = trial.schedule
    others = {k: v for k, v in trial.hyperparameters.items() if not k.startswith("schedule.")}
    warmup = schedule.warmup_steps, schedule.warmup_start_learning_rate
    same = [others, schedule.base_learning_rate, warmup, schedule.total_steps]
    return json.dumps(same, sort_keys=True, default=repr)
