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
from typing import Any

from budgetflow.playbook.competing import Competition, compete
from budgetflow.playbook.measurement import Selection, TrialView
from budgetflow.playbook.transfer import NoTransferRuleError, stretch, transfer
from budgetflow.schedules import Schedule

FIRST, LAST = 0.10, 0.25
# "Always" is every trial that competes; "consistently" is at least this share of them.
CONSISTENTLY = 0.75
MIN_TRIALS = 3


def diagnose(
    trials: Sequence[TrialView], max_train_steps: int, selection: Selection
) -> dict[str, Any]:
    """The ``best_step_diagnosis`` of a round's outcome.

    Judged are the trials that compete for the best result, by :func:`compete`: trials that are
    worse than its threshold or diverge change neither the verdict nor the suggestion, however many
    there are.

    Args:
        trials: the study's trials; diverged ones are left out.
        max_train_steps: the length of every trial.
        selection: what selects steps and trials.

    Returns:
        ``verdict`` ("too_long", "too_short", "about_right", "undecided" where fewer than three
        trials compete), the two shares, the counts behind them, the same counts of the trials that
        do not compete, ``competes_at`` (the worst value of the metric that does),
        ``suggested_max_train_steps`` (on the longer side, as the playbook asks when in doubt),
        ``suggested_schedule`` (of that many steps: the best trial's, carried over by
        :func:`budgetflow.playbook.transfer.transfer` or :func:`shortened`; None where there is none
        or no rule), ``caveats`` and ``means`` (sentences).
    """
    competition = compete(trials, selection)
    competing, hopeless = competition.competing, competition.hopeless
    steps = [row["step"] for _, row in competing]
    early, late = _early_and_late(steps, max_train_steps)
    hopeless_early, hopeless_late = _early_and_late(
        [row["step"] for _, row in hopeless], max_train_steps
    )
    verdict, suggestion = _verdict(steps, early, late, max_train_steps)
    diverged = len(trials) - len(competing) - len(hopeless)
    caveats = _caveats(diverged, [trial for trial, _ in competing])
    means = _means(verdict, suggestion, steps, early, late)
    means += f" {_beside(competition, hopeless_early, hopeless_late)}"
    schedule = None
    if suggestion is not None:
        best, _ = competing[0]
        try:
            schedule = _at_length(best.schedule, suggestion) if best.schedule else None
        except NoTransferRuleError as error:
            caveats.append(f"There is no suggested schedule: {error}.")
        if schedule is not None and suggestion != max_train_steps:
            means += (
                f" The schedule of the best trial ({best.trial}) at that length: base learning "
                f"rate {schedule.base_learning_rate:.4g} with {_in_words(schedule)}."
            )
    return {
        "verdict": verdict,
        "share_in_first_10_percent": early / len(steps) if steps else None,
        "share_in_last_25_percent": late / len(steps) if steps else None,
        "suggested_max_train_steps": suggestion,
        "suggested_schedule": schedule.to_dict() if schedule else None,
        "trials": len(steps),
        "in_first_10_percent": early,
        "in_last_25_percent": late,
        "competing_trials": sorted(trial.trial for trial, _ in competing),
        "hopeless_trials": sorted(trial.trial for trial, _ in hopeless),
        "hopeless_in_first_10_percent": hopeless_early,
        "hopeless_in_last_25_percent": hopeless_late,
        "competes_at": competition.threshold,
        "caveats": caveats,
        "means": means,
    }


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


def _early_and_late(steps: Sequence[int], max_train_steps: int) -> tuple[int, int]:
    """How many best steps lie in the first 10 % and in the last 25 % of training."""
    early = sum(step <= FIRST * max_train_steps for step in steps)
    late = sum(step > (1 - LAST) * max_train_steps for step in steps)
    return early, late


def _verdict(
    steps: list[int], early: int, late: int, max_train_steps: int
) -> tuple[str, int | None]:
    if len(steps) < MIN_TRIALS:
        return "undecided", None
    if early == len(steps):
        # Twice the latest best step: generous, since training longer does not hurt.
        return "too_long", min(2 * max(steps), max_train_steps)
    if late >= CONSISTENTLY * len(steps):
        return "too_short", 2 * max_train_steps
    return "about_right", max_train_steps


def _means(verdict: str, suggestion: int | None, steps: list[int], early: int, late: int) -> str:
    """What a verdict means, with the counts behind it."""
    count, compete = len(steps), "that compete for the best result"
    if not count:
        return "No trial is left to judge max_train_steps by."
    return {
        "undecided": f"{count} trial(s) {compete} (best at step {', '.join(map(str, steps))}) are "
        f"too few to judge max_train_steps by; it takes {MIN_TRIALS}: search closer to the best "
        "trial, or try more points.",
        "too_long": f"In all {count} trials {compete} the best step lies in the first {FIRST:.0%} "
        f"of training: max_train_steps is far too high; {suggestion} would do.",
        "too_short": f"In {late} of {count} trials {compete} the best step lies in the last "
        f"{LAST:.0%} of training ('consistently' means {CONSISTENTLY:.0%} or more): longer "
        f"training, up to {suggestion} steps, and re-tuning the decay may help.",
        "about_right": f"In {early} of {count} trials {compete} the best step lies in the first "
        f"{FIRST:.0%} of training and in {late} in the last {LAST:.0%}: neither always early nor "
        "consistently late, so max_train_steps is about right.",
    }[verdict]


def _beside(competition: Competition, early: int, late: int) -> str:
    """How many do not compete, where their best steps lie, and what competing means."""
    count = len(competition.hopeless)
    if not count:
        return competition.rule
    return (
        f"{count} other trial(s) do not compete ({early} with the best step in the first "
        f"{FIRST:.0%}, {late} in the last {LAST:.0%}) and do not count. {competition.rule}"
    )


def _caveats(left_out: int, trials: Sequence[TrialView]) -> list[str]:
    """What makes the verdict on these trials, without those left out, less certain."""
    caveats = []
    if left_out:
        caveats.append(f"{left_out} trial(s) that diverged are left out.")
    if decaying := sum(trial.decays_to_zero for trial in trials):
        caveats.append(
            f"The learning rate of {decaying} of {len(trials)} trials decays to zero, which by "
            "itself pushes best steps to the end; late best steps alone do not show that training "
            "was too short."
        )
    return caveats


def _at_length(schedule: Schedule, max_train_steps: int) -> Schedule:
    if max_train_steps == schedule.total_steps:
        return schedule
    if max_train_steps < schedule.total_steps:
        return shortened(schedule, max_train_steps)
    return transfer(schedule, max_train_steps).after


def _in_words(schedule: Schedule) -> str:
    """A schedule's lengths, as in "warmup 50, constant 1600 and linear decay over 350 steps"."""
    parts = {
        "warmup": schedule.warmup_steps,
        "constant": schedule.constant_steps,
        f"{schedule.decay.replace('_', ' ')} decay over": schedule.decay_steps,
        "final": schedule.final_steps,
    }
    *others, last = [f"{name} {steps}" for name, steps in parts.items() if steps]
    return f"{', '.join(others)} and {last} steps" if others else f"{last} steps"
