"""The best-step diagnosis: was ``max_train_steps`` too high or too low for this study?

The playbook: from all trials of a study, plot the training step that retrospective checkpoint
selection finds. If the best step is always in the first 10 % of training, ``max_train_steps`` is
far too high; if it is consistently in the last 25 %, longer training and a re-tuned decay may help.

The trials in question are those that compete for the best result. A hopeless learning rate has its
best step at once, or at the very end, at any length; how many of them a search space holds says
nothing about ``max_train_steps``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import Competition, compete
from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.common.transfer import NoTransferRuleError, stretch, transfer

FIRST, LAST = 0.10, 0.25
# "Always" is every trial that competes; "consistently" is at least this share of them.
CONSISTENTLY = 0.75
MIN_TRIALS = 3
Verdict = Literal["too_long", "too_short", "about_right", "undecided"]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Whether a length was right, and what that is found on.

    Attributes:
        verdict: "undecided" where fewer than three trials compete.
        competition: which trials compete.
        diverged: how many are left out.
        in_first, in_last: how many best steps of those that compete lie in the first 10 % and in
            the last 25 % of training.
        hopeless_in_first, hopeless_in_last: the same of the others.
        max_train_steps: the length that is judged.
        suggested_max_train_steps: on the longer side, as the playbook asks when in doubt.
        suggested_schedule: of that many steps: the best trial's, carried over by
            :func:`budgetflow.playbook.common.transfer.transfer` or :func:`shortened`.
        no_schedule_because: why no rule gives one.
    """

    verdict: Verdict
    competition: Competition
    diverged: int
    in_first: int
    in_last: int
    hopeless_in_first: int
    hopeless_in_last: int
    max_train_steps: int
    suggested_max_train_steps: int | None
    suggested_schedule: Schedule | None = None
    no_schedule_because: str | None = None


def diagnose(
    trials: Sequence[TrialRecord], max_train_steps: int, selection: Selection
) -> Diagnosis:
    """Judges a round's length by its trials that compete for the best result.

    By :func:`compete`: trials that are worse than its threshold or diverge change neither the
    verdict nor the suggestion, however many there are.

    Args:
        trials: the study's trials; diverged ones are left out.
        max_train_steps: the length of every trial.
        selection: what selects steps and trials.
    """
    competition = compete(trials, selection)
    competing, hopeless = competition.competing, competition.hopeless
    steps = [row["step"] for _, row in competing]
    in_first, in_last = _in_first_and_last(steps, max_train_steps)
    hopeless_in_first, hopeless_in_last = _in_first_and_last(
        [row["step"] for _, row in hopeless], max_train_steps
    )
    verdict, suggestion = _verdict(steps, in_first, in_last, max_train_steps)
    schedule, why_not = None, None
    if suggestion is not None:
        best, _ = competing[0]
        try:
            schedule = _at_length(best.schedule, suggestion)
        except NoTransferRuleError as error:
            why_not = str(error)
    return Diagnosis(
        verdict=verdict,
        competition=competition,
        diverged=len(trials) - len(competing) - len(hopeless),
        in_first=in_first,
        in_last=in_last,
        hopeless_in_first=hopeless_in_first,
        hopeless_in_last=hopeless_in_last,
        max_train_steps=max_train_steps,
        suggested_max_train_steps=suggestion,
        suggested_schedule=schedule,
        no_schedule_because=why_not,
    )


def shortened(schedule: Schedule, max_train_steps: int) -> Schedule:
    """The schedule for a shorter run of ``max_train_steps``: the reverse of a transfer.

    Warmup and the decay's length in steps stay, the constant period is shortened. Where it is not
    long enough for that, all lengths shrink in proportion; but an inverse square root, which does
    not depend on the length of the run, just ends earlier.

    Raises:
        NoTransferRuleError: the schedule is a function of the user's own.
        ValueError: the new length is not in [1, ``schedule.total_steps``].
    """
    surplus = schedule.total_steps - max_train_steps
    if surplus < 0 or max_train_steps < 1:
        raise ValueError(
            f"a schedule of {schedule.total_steps} steps cannot be shortened to {max_train_steps}"
        )
    if schedule.family.shortens is None:
        raise NoTransferRuleError(
            f"{schedule.function} is a function of the step, which does not say what becomes of it "
            "in a shorter run"
        )
    if surplus <= schedule.constant_steps:
        return dataclasses.replace(schedule, constant_steps=schedule.constant_steps - surplus)
    if schedule.family.shortens == "by ending earlier" and surplus < schedule.decay_steps:
        return dataclasses.replace(schedule, decay_steps=schedule.decay_steps - surplus)
    return stretch(schedule, max_train_steps)


def _in_first_and_last(steps: Sequence[int], max_train_steps: int) -> tuple[int, int]:
    """How many best steps lie in the first 10 % and in the last 25 % of training."""
    in_first = sum(step <= FIRST * max_train_steps for step in steps)
    in_last = sum(step > (1 - LAST) * max_train_steps for step in steps)
    return in_first, in_last


def _verdict(
    steps: list[int], in_first: int, in_last: int, max_train_steps: int
) -> tuple[Verdict, int | None]:
    if len(steps) < MIN_TRIALS:
        return "undecided", None
    if in_first == len(steps):
        # Twice the latest best step: generous, since training longer does not hurt.
        return "too_long", min(2 * max(steps), max_train_steps)
    if in_last >= CONSISTENTLY * len(steps):
        return "too_short", 2 * max_train_steps
    return "about_right", max_train_steps


def _at_length(schedule: Schedule, max_train_steps: int) -> Schedule:
    if max_train_steps == schedule.total_steps:
        return schedule
    if max_train_steps < schedule.total_steps:
        return shortened(schedule, max_train_steps)
    return transfer(schedule, max_train_steps).after
