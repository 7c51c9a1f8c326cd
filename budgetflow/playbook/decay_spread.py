"""How far apart the decay schedules of a study end: a sign of a length that is too short.

The playbook: with a very stingy ``max_train_steps``, it may be impossible to do well without a
perfectly tuned decay schedule; with more steps, many schedules give about the same.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Any

from budgetflow.playbook.measurement import TrialView, best_row
from budgetflow.schedules import Schedule

# The result hinges on the decay where the worst schedule is worse than the best by more than this.
HINGES_ABOVE = 0.10

# The metric at the best step, the trial's number (which settles ties), and the trial's schedule.
_End = tuple[float, int, Schedule]


def decay_spread(trials: Sequence[TrialView], selection_metric: str) -> dict[str, Any] | None:
    """How far apart trials end that differ in nothing but the decay of their schedule.

    Compared are trials of the same length, warmup, base learning rate and hyperparameters (the seed
    among them) but for those of the schedule, each at the step that retrospective selection finds:
    the group of the study's best trial or, where no other schedule was tried beside that one, the
    group that ends the farthest apart.

    Args:
        trials: the study's trials; left out are diverged ones and, since nobody knows which part of
            a function of the user's own is its decay, those with such a schedule.
        selection_metric: the measurement's key, like "validation_error_rate"; lower is better.

    Returns:
        ``schedules`` (how many), ``best`` and ``worst`` (the metric), ``relative`` (how much higher
        the worst is, as a fraction of the best; None if the best is 0), ``best_trial``,
        ``worst_trial``, ``hinges_on_decay`` (more than ``HINGES_ABOVE`` of the best apart) and
        ``means`` (a sentence); None where no group has two schedules.
    """
    usable = [
        (row[selection_metric], trial.trial, trial)
        for trial in trials
        if not trial.diverged and (row := best_row(trial.rows, selection_metric))
    ]
    groups: collections.defaultdict[str, dict[Schedule, _End]] = collections.defaultdict(dict)
    # Best first, so that each schedule's best trial is the one that stays.
    for value, number, trial in sorted(usable, key=lambda item: item[:2]):
        if trial.schedule is not None and trial.schedule.decay != "function":
            ends = groups[_all_but_the_decay(trial, trial.schedule)]
            ends.setdefault(trial.schedule, (value, number, trial.schedule))
    compared = [list(ends.values()) for ends in groups.values() if len(ends) > 1]
    if not compared:
        return None
    best_trial = min(usable, key=lambda item: item[:2])[1]
    # Groups are in the order of their best trials, so that the first of equally wide ones is taken.
    group = max(compared, key=lambda ends: (ends[0][1] == best_trial, _spread(ends)))
    return _described(group, selection_metric)


def _all_but_the_decay(trial: TrialView, schedule: Schedule) -> str:
    """What trials have in common whose decays can be compared."""
    others = {k: v for k, v in trial.hyperparameters.items() if not k.startswith("schedule.")}
    same = [others, schedule.base_learning_rate, schedule.warmup_steps, schedule.total_steps]
    return json.dumps(same, sort_keys=True, default=repr)


def _spread(ends: Sequence[_End]) -> float:
    """How much worse the last is than the first, as a fraction of the first."""
    best, worst = ends[0][0], ends[-1][0]
    if best == worst:
        return 0.0
    return (worst - best) / abs(best) if best else float("inf")


def _described(ends: Sequence[_End], selection_metric: str) -> dict[str, Any]:
    (best, best_trial, first), (worst, worst_trial, last) = ends[0], ends[-1]
    spread = _spread(ends)
    hinges = spread > HINGES_ABOVE
    apart = f", {spread:.1%} apart" if best else ""
    conclusion = (
        f"Ending more than {HINGES_ABOVE:.0%} apart is a sign that max_train_steps is too short: a "
        "stingy length takes a perfectly tuned decay."
        if hinges
        else f"Ending within {HINGES_ABOVE:.0%} is no sign that max_train_steps is too short."
    )
    return {
        "schedules": len(ends),
        "best": best,
        "worst": worst,
        "relative": spread if best else None,
        "best_trial": best_trial,
        "worst_trial": worst_trial,
        "hinges_on_decay": hinges,
        "means": f"{len(ends)} schedules that differ only in their decay end at a "
        f"{selection_metric.replace('_', ' ')} from {best:.4g} (trial {best_trial}, "
        f"{_decay(first)}) to {worst:.4g} (trial {worst_trial}, {_decay(last)}){apart}. "
        f"{conclusion}",
    }


def _decay(schedule: Schedule) -> str:
    if schedule.decay == "none":
        return "no decay"
    return f"{schedule.decay.replace('_', ' ')} decay over {schedule.decay_steps} steps"
