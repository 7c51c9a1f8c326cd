"""How far apart the decay schedules of a study end: a sign of a length that is too short.

The playbook: with a very stingy ``max_train_steps``, it may be impossible to do well without a
perfectly tuned decay schedule; with more steps, many schedules give about the same.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence
from typing import NamedTuple

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection, TrialRecord

# The result hinges on the decay where the worst schedule is worse than the best by more than this.
HINGES_ABOVE = 0.10


class End(NamedTuple):
    """Where a schedule ends: the metric at its best step, and its best trial."""

    value: float
    trial: int
    schedule: Schedule


@dataclasses.dataclass(frozen=True)
class DecayEnds:
    """Where schedules end that differ in nothing but their decay.

    Attributes:
        ends: of each schedule, the best first.
        worse_by: how much worse the last is than the first, as a fraction of the first.
    """

    ends: Sequence[End]
    worse_by: float

    @property
    def hinges_on_decay(self) -> bool:
        """Whether they end too far apart for a length that is long enough."""
        return self.worse_by > HINGES_ABOVE


def decay_spread(trials: Sequence[TrialRecord], selection: Selection) -> DecayEnds | None:
    """How far apart trials end that differ in nothing but the decay of their schedule.

    Compared are trials of the same length, warmup, base learning rate and hyperparameters (the seed
    among them) but for those of the schedule, each at the step that retrospective selection finds:
    the group of the study's best trial or, where no other schedule was tried beside that one, the
    group that ends the farthest apart of those whose best competes for the study's best result (by
    :func:`budgetflow.playbook.common.competing.compete`; decays at a hopeless learning rate say
    nothing). Within a group every schedule counts, since how badly the others end is the question.

    Args:
        trials: the study's trials; left out are diverged ones and, since nobody knows which part of
            a function of the user's own is its decay, those with such a schedule.
        selection: what selects steps and trials.

    Returns:
        The ends of that group; None where no group that competes has two schedules.
    """
    competing = {trial.trial for trial, _ in compete(trials, selection).competing}
    ranked = selection.ranked(trials)
    groups: collections.defaultdict[str, dict[Schedule, End]] = collections.defaultdict(dict)
    # Best first, so that each schedule's best trial is the one that stays.
    for trial, row in ranked:
        if trial.schedule.function is None:
            end = End(row[selection.key], trial.trial, trial.schedule)
            groups[_all_but_the_decay(trial)].setdefault(trial.schedule, end)
    compared = [
        DecayEnds(ends, selection.worse_by(ends[-1].value, than=ends[0].value))
        for ends in (list(group.values()) for group in groups.values())
        if len(ends) > 1 and ends[0].trial in competing
    ]
    if not compared:
        return None
    best_trial = ranked[0][0].trial
    # Groups are in the order of their best trials, so that the first of equally wide ones is taken.
    return max(compared, key=lambda group: (group.ends[0].trial == best_trial, group.worse_by))


def _all_but_the_decay(trial: TrialRecord) -> str:
    """What trials have in common whose decays can be compared."""
    schedule = trial.schedule
    others = {k: v for k, v in trial.hyperparameters.items() if not k.startswith("schedule.")}
    warmup = schedule.warmup_steps, schedule.warmup_start_learning_rate
    same = [others, schedule.base_learning_rate, warmup, schedule.total_steps]
    return json.dumps(same, sort_keys=True, default=repr)
