"""Which trials of a study begin alike, so that the steps they share are trained once.

Two runs are bit for bit the same up to the step at which their schedules part, if all else about
them is the same. So a study of decay lengths needs the steps before the decays, its trunk, only
once; and a run of several lengths costs the longest trunk and the decays (Hägele et al. 2024,
arXiv:2405.18392).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable, Sequence

from budgetflow.engine.schedules import Schedule, common_prefix_steps

# A trial waits for the one it continues: it must share at least this part of its run to do so.
WORTH_SHARING = 0.1


@dataclasses.dataclass(frozen=True)
class Branch:
    """Where a trial leaves another one of its study.

    Attributes:
        trial: the one it continues.
        step: the last step that they share.
    """

    trial: int
    step: int


def branches(schedules: Sequence[Schedule], all_else: Sequence[Hashable]) -> list[Branch | None]:
    """For each trial, the one before it with which it shares the most steps; None for a trunk.

    What is left to train are the steps of a prefix tree, whatever the order of the trials.

    Args:
        schedules: of each trial.
        all_else: what else its states depend on.
    """
    of_trials: list[Branch | None] = []
    alike: collections.defaultdict[Hashable, list[int]] = collections.defaultdict(list)
    for number, (schedule, other) in enumerate(zip(schedules, all_else, strict=True)):
        group = (other, _beginning(schedule))
        shared = [Branch(n, shared_steps(schedules[n], schedule)) for n in alike[group]]
        most = max(shared, key=lambda branch: branch.step, default=None)
        is_worth_it = most is not None and most.step >= WORTH_SHARING * schedule.total_steps
        of_trials.append(most if is_worth_it else None)
        alike[group].append(number)
    return of_trials


def shared_steps(source: Schedule, schedule: Schedule) -> int:
    """The last step up to which one run can take over the states of another.

    The first update of a decay still has the base learning rate. That one is given up, so that the
    checkpoint at the start of the decay serves, which each run keeps in any case.
    """
    if _beginning(source) != _beginning(schedule):
        return 0
    steps = common_prefix_steps(source, schedule)
    starts = {run.decay_start_step for run in (source, schedule) if run.total_steps > steps}
    return steps - 1 if steps - 1 in starts else steps


def _beginning(schedule: Schedule) -> Hashable:
    """What makes schedules part in their first steps if it differs: no need to evaluate them."""
    return schedule.base_learning_rate, schedule.warmup_steps, schedule.function


def branch_steps(of_trials: Sequence[Branch | None]) -> dict[int, set[int]]:
    """The steps of each trial at which others leave it, and so need its checkpoint."""
    steps: collections.defaultdict[int, set[int]] = collections.defaultdict(set)
    for branch in of_trials:
        if branch is not None:
            steps[branch.trial].add(branch.step)
    return dict(steps)
