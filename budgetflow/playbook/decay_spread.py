"""How far apart the decay schedules of a study end: a sign of a length that is too short.

The playbook: with a very stingy ``max_train_steps``, it may be impossible to do well without a
perfectly tuned decay schedule; with more steps, many schedules give about the same.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Any

from budgetflow.playbook.competing import compete
from budgetflow.playbook.measurement import Selection, TrialView
from budgetflow.schedules import Schedule

# The result hinges on the decay where the worst schedule is worse than the best by more than this.
HINGES_ABOVE = 0.10

# The metric at the best step, the trial's number (which settles ties), and the trial's schedule.
_End = tuple[float, int, Schedule]


def decay_spread(trials: Sequence[TrialView], selection: Selection) -> dict[str, Any] | None:
    """How far apart trials end that differ in nothing but the decay of their schedule.

    Compared are trials of the same length, warmup, base learning rate and hyperparameters (the seed
    among them) but for those of the schedule, each at the step that retrospective selection finds:
    the group of the study's best trial or, where no other schedule was tried beside that one, the
    group that ends the farthest apart of those whose best competes for the study's best result (by
    :func:`budgetflow.playbook.competing.compete`; decays at a hopeless learning rate say nothing).
    Within a group every schedule counts, since how badly the others end is the question.

    Args:
        trials: the study's trials; left out are diverged ones and, since nobody knows which part of
            a function of the user's own is its decay, those with such a schedule.
        selection: what selects steps and trials.

    Returns:
        ``schedules`` (how many), ``best`` and ``worst`` (the metric), ``relative`` (how much worse
        the worst is, as a fraction of the best; None if the best is 0), ``best_trial``,
        ``worst_trial``, ``hinges_on_decay`` (more than ``HINGES_ABOVE`` of the best apart) and
        ``means`` (a sentence); None where no group that competes has two schedules.
    """
    competing = {trial.trial for trial, _ in compete(trials, selection).competing}
    ranked = selection.ranked(trials)
    groups: collections.defaultdict[str, dict[Schedule, _End]] = collections.defaultdict(dict)
    # Best first, so that each schedule's best trial is the one that stays.
    for trial, row in ranked:
        if trial.schedule is not None and trial.schedule.decay != "function":
            ends = groups[_all_but_the_decay(trial, trial.schedule)]
            ends.setdefault(trial.schedule, (row[selection.key], trial.trial, trial.schedule))
    ended = (list(ends.values()) for ends in groups.values())
    compared = [ends for ends in ended if len(ends) > 1 and ends[0][1] in competing]
    if not compared:
        return None
    best_trial = ranked[0][0].trial
    # Groups are in the order of their best trials, so that the first of equally wide ones is taken.
    group = max(compared, key=lambda ends: (ends[0][1] == best_trial, _spread(ends, selection)))
    return _described(group, selection)


def _all_but_the_decay(trial: TrialView, schedule: Schedule) -> str:
    """What trials have in common whose decays can be compared."""
    others = {k: v for k, v in trial.hyperparameters.items() if not k.startswith("schedule.")}
    warmup = schedule.warmup_steps, schedule.warmup_start_learning_rate
    same = [others, schedule.base_learning_rate, warmup, schedule.total_steps]
    return json.dumps(same, sort_keys=True, default=repr)


def _spread(ends: Sequence[_End], selection: Selection) -> float:
    """How much worse the last is than the first, as a fraction of the first."""
    return selection.worse_by(ends[-1][0], than=ends[0][0])


def _described(ends: Sequence[_End], selection: Selection) -> dict[str, Any]:
    (best, best_trial, first), (worst, worst_trial, last) = ends[0], ends[-1]
    spread = _spread(ends, selection)
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
        f"{selection.words} from {best:.4g} (trial {best_trial}, "
        f"{_decay(first)}) to {worst:.4g} (trial {worst_trial}, {_decay(last)}){apart}. "
        f"{conclusion}",
    }


def _decay(schedule: Schedule) -> str:
    if schedule.decay == "none":
        return "no decay"
    return f"{schedule.decay.replace('_', ' ')} decay over {schedule.decay_steps} steps"
