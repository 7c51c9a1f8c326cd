"""The best-step diagnosis: was ``max_train_steps`` too high or too low for this study?

The playbook: from all trials of a study, plot the training step that retrospective checkpoint
selection finds. If the best step is always in the first 10 % of training, ``max_train_steps`` is
far too high; if it is consistently in the last 25 %, longer training and a re-tuned decay may help.

The trials in question are those that compete for the best result. A hopeless learning rate has its
best step at once, or at the very end, at any length; how many of them a search space holds says
nothing about ``max_train_steps``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Literal

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import Competition
from budgetflow.playbook.common.measurement import Row, TrialRecord
from budgetflow.playbook.common.transfer import NoTransferRuleError, stretch, transfer

FIRST, LAST = 0.10, 0.25
# "Always" is every trial that competes; "consistently" is at least this share of them.
CONSISTENTLY = 0.75
MIN_TRIALS = 3
# The field of an outcome that holds a diagnosis, of which a reason is a part.
PART = "best_step_diagnosis"
Verdict = Literal["too_long", "too_short", "about_right", "undecided"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestStepDiagnosis:
    """Whether a round's length was right, judged by the trials that compete for the best result.

    Attributes:
        verdict: "undecided" where fewer than three trials compete.
        share_in_first_10_percent, share_in_last_25_percent: of the best steps; None without any.
        suggested_max_train_steps: on the longer side, as the playbook asks when in doubt.
        suggested_schedule: of that many steps: the best trial's, by :func:`at_length`; None where
            there is none or no rule.
        trials: how many compete.
        in_first_10_percent, in_last_25_percent: how many of their best steps lie there.
        competing_trials, hopeless_trials: the numbers of those that compete and of the others.
        hopeless_in_first_10_percent, hopeless_in_last_25_percent: the same counts of the others.
        competes_at: the worst value of the metric with which a trial competes.
        caveats, means: sentences.
    """

    verdict: Verdict
    share_in_first_10_percent: float | None
    share_in_last_25_percent: float | None
    suggested_max_train_steps: int | None
    suggested_schedule: Schedule | None = None
    trials: int
    in_first_10_percent: int
    in_last_25_percent: int
    competing_trials: tuple[int, ...] = ()
    hopeless_trials: tuple[int, ...] = ()
    hopeless_in_first_10_percent: int = 0
    hopeless_in_last_25_percent: int = 0
    competes_at: float | None = None
    caveats: tuple[str, ...] = ()
    means: str = ""


def diagnose(competition: Competition, max_train_steps: int) -> BestStepDiagnosis:
    """Judges a round's length by its trials that compete for the best result.

    Trials that do not compete change neither the verdict nor the suggestion, however many there
    are. The sentences are left to :mod:`budgetflow.playbook.rounds.words`.

    Args:
        competition: the study's trials.
        max_train_steps: the length of every trial.
    """
    best_steps = [row["step"] for _, row in competition.competing]
    competing, in_first, in_last = _counted(competition.competing, max_train_steps)
    hopeless, hopeless_in_first, hopeless_in_last = _counted(competition.hopeless, max_train_steps)
    verdict, suggestion = _verdict(best_steps, in_first, in_last, max_train_steps)
    schedule = None
    if suggestion is not None:
        with contextlib.suppress(NoTransferRuleError):
            schedule = at_length(competition.competing[0][0].schedule, suggestion)
    count = len(best_steps)
    return BestStepDiagnosis(
        verdict=verdict,
        share_in_first_10_percent=in_first / count if count else None,
        share_in_last_25_percent=in_last / count if count else None,
        suggested_max_train_steps=suggestion,
        suggested_schedule=schedule,
        trials=count,
        in_first_10_percent=in_first,
        in_last_25_percent=in_last,
        competing_trials=competing,
        hopeless_trials=hopeless,
        hopeless_in_first_10_percent=hopeless_in_first,
        hopeless_in_last_25_percent=hopeless_in_last,
        competes_at=competition.threshold,
    )


def at_length(schedule: Schedule, max_train_steps: int) -> Schedule:
    """A schedule carried over to another length of the run, longer or not.

    Raises:
        NoTransferRuleError: there is no rule.
    """
    if max_train_steps == schedule.total_steps:
        return schedule
    if max_train_steps < schedule.total_steps:
        return shortened(schedule, max_train_steps)
    return transfer(schedule, max_train_steps).after


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


def _counted(
    trials: Sequence[tuple[TrialRecord, Row]], max_train_steps: int
) -> tuple[tuple[int, ...], int, int]:
    """The trials' numbers, and the counts of best steps in the first 10 % and the last 25 %."""
    best_steps = [row["step"] for _, row in trials]
    in_first = sum(step <= FIRST * max_train_steps for step in best_steps)
    in_last = sum(step > (1 - LAST) * max_train_steps for step in best_steps)
    return tuple(sorted(trial.trial for trial, _ in trials)), in_first, in_last


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
