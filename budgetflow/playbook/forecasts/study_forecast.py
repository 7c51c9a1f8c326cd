"""Forecasts of longer runs of a study's best setting, from the study's own curves.

The curves are those of trials that differ from that setting in nothing but learning rate and
schedule: other weight decays, batch sizes, models and seeds follow another law.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import OF_IDEAS, Selection, TrialRecord, by_setting
from budgetflow.playbook.common.seed_noise import pooled_noise
from budgetflow.playbook.common.shared_steps import shared_steps
from budgetflow.playbook.common.transfer import NoTransferRuleError, transfer
from budgetflow.playbook.forecasts.expected import LEVEL, CannotTell, Expected
from budgetflow.playbook.forecasts.laws import noise
from budgetflow.playbook.forecasts.loss_forecast import (
    MAX_TIMES_LONGER,
    MIN_EVALUATIONS,
    Curve,
    FittedLaw,
    fit,
)
from budgetflow.playbook.forecasts.metric_by_loss import Relation, relation

LOSS = "validation_loss"
# Curves follow one law within this factor of the learning rate.
NEAR = 2.0
MOST_CURVES = 8
# The learning rates of longer runs, one for each update, would take gigabytes.
MOST_STEPS = 5_000_000
_TOO_LONG = CannotTell(f"runs of more than {MOST_STEPS:,} steps are not forecast")
# The number of lengths, in proportion, from the study's own to the farthest.
LENGTHS = 13
# A curve that ends above its lowest window by more than so many noises turns up.
TURNS_UP = 3.0
# A training loss that has fallen by this much more (in logarithms) than the validation loss is an
# overfit's.
OVERFITS = 0.15
# The share of a curve's evaluations that makes a window.
WINDOW = 0.1
# An interval with a larger ratio of its ends says nothing.
MOST_UNSURE = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongerRun:
    """The forecast of a longer run.

    Attributes:
        length_steps: its steps.
        schedule: carried over by the rule of its family; None where there is none.
        steps_to_train: those that it does not share with the trial whose setting it has.
        loss: the validation loss at its end.
        gain: how much lower that is than at the end of the trial.
        metric: the selection metric at its end, if that is not the loss.
        cannot_tell: why there is no loss.
        metric_cannot_tell: why there is no metric.
    """

    length_steps: int
    schedule: Schedule | None = None
    steps_to_train: int | None = None
    loss: Expected | None = None
    gain: Expected | None = None
    metric: Expected | None = None
    cannot_tell: str | None = None
    metric_cannot_tell: str | None = None


@dataclasses.dataclass(frozen=True)
class End:
    """The expected loss at the end of a run of some length."""

    length_steps: int
    loss: Expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyForecast:
    """Forecasts of longer runs of a study's best setting, and the length that is worth it.

    Attributes:
        trial: the one whose setting, seed and schedule the longer runs have.
        curves: the trials whose curves the law is fitted to.
        law: its name; None if none can be told.
        level: how often intervals are to hold what comes.
        wider: the factor on the intervals, after what earlier ones in the same workdir needed.
        receipts: the scored forecasts that it comes from, by :attr:`Receipt.name`.
        loss: of the trial at its end.
        metric: the selection metric of the trial at its end, if that is not the loss.
        longer: the lengths asked for, ascending.
        ends: the expected loss of runs of other lengths, from the study's own on.
        seed_noise: the standard deviation of the loss between seeds; None where no setting had two.
        worth_until_steps: the length from which on twice the steps are expected to gain less than
            that; None if that cannot be told.
        not_told_because: why it cannot be told.
    """

    trial: int
    curves: tuple[int, ...]
    law: str | None = None
    level: float = LEVEL
    wider: float = 1.0
    receipts: tuple[str, ...] = ()
    loss: float | None = None
    metric: float | None = None
    longer: tuple[LongerRun, ...]
    ends: tuple[End, ...] = ()
    seed_noise: float | None = None
    worth_until_steps: int | None = None
    not_told_because: str | None = None

    def at(self, length_steps: int) -> LongerRun | None:
        """The forecast of a length, if it was asked for."""
        return next((run for run in self.longer if run.length_steps == length_steps), None)


@dataclasses.dataclass(frozen=True)
class Outlook:
    """A study's best setting with its law, from which runs of any length are forecast.

    Attributes:
        of: the trial that has the setting.
        curves: the trials whose curves the law is fitted to.
        law: of the validation loss.
        metric: how the selection metric follows the loss; None if it is the loss.
        wider: see :class:`StudyForecast`.
    """

    of: TrialRecord
    curves: tuple[TrialRecord, ...]
    law: FittedLaw | CannotTell
    metric: Relation | CannotTell | None
    wider: float = 1.0

    def run(self, schedule: Schedule) -> LongerRun:
        """The forecast of a run with a schedule."""
        run = LongerRun(
            length_steps=schedule.total_steps,
            schedule=schedule,
            steps_to_train=schedule.total_steps - shared_steps(self.of.schedule, schedule),
        )
        loss = self._loss(schedule)
        if isinstance(loss, CannotTell):
            return dataclasses.replace(run, cannot_tell=loss.reason)
        now = self.of.rows[-1][LOSS]
        gain = Expected(now - loss.value, now - loss.high, now - loss.low)
        metric = self._metric(loss)
        if isinstance(metric, CannotTell):
            return dataclasses.replace(run, loss=loss, gain=gain, metric_cannot_tell=metric.reason)
        return dataclasses.replace(run, loss=loss, gain=gain, metric=metric)

    def _loss(self, schedule: Schedule) -> Expected | CannotTell:
        """The expected loss at the end of a run."""
        if schedule.total_steps > MOST_STEPS:
            return _TOO_LONG
        if isinstance(self.law, CannotTell):
            return self.law
        losses = self.law.forecast(schedule, wider=self.wider)
        if isinstance(losses, CannotTell):
            return losses
        (loss,) = losses
        if loss.high > MOST_UNSURE * loss.low:
            interval = f"{loss.low:.2g} to {loss.high:.2g}"
            return CannotTell(f"the interval of the loss, {interval}, says nothing")
        return loss

    def _metric(self, loss: Expected) -> Expected | CannotTell | None:
        """The expected selection metric where the loss is as expected; None if it is the loss."""
        return (
            self.metric.at(loss, self.wider) if isinstance(self.metric, Relation) else self.metric
        )

    def carried(self, length_steps: int) -> LongerRun:
        """The forecast of a run of another length, the schedule carried over by its rule.

        Raises:
            ValueError: it is shorter than the trial.
        """
        try:
            return self.run(transfer(self.of.schedule, length_steps).after)
        except NoTransferRuleError as error:
            return LongerRun(length_steps=length_steps, cannot_tell=str(error))


def carried_trial(trials: Sequence[TrialRecord], selection: Selection) -> TrialRecord | None:
    """The trial whose setting a longer round goes on with; None if every trial diverged.

    That is the best one; trials that compare ideas count only where there are no others.
    """
    ranked = [trial for trial, _ in selection.ranked(trials)]
    return next((t for t in ranked if t.role not in OF_IDEAS), next(iter(ranked), None))


def outlook(
    trials: Sequence[TrialRecord], of: TrialRecord, selection: Selection, wider: float = 1.0
) -> Outlook:
    """The law of one trial's setting, from its curve and those of the same law.

    Args:
        trials: of the study.
        of: the trial.
        selection: what selects trials.
        wider: the factor on intervals.
    """
    curves = tuple(_of_the_same_law(trials, of))
    metric = _relation(curves, selection) if selection.key != LOSS else None
    return Outlook(of, curves, _law(curves, of), metric, wider)


def study_forecast(
    trials: Sequence[TrialRecord],
    selection: Selection,
    lengths: Sequence[int],
    wider: float = 1.0,
    receipts: Sequence[str] = (),
) -> StudyForecast | None:
    """Forecasts of runs of other lengths, and the length that is worth it.

    Args:
        trials: of the study, all at their ends.
        selection: what selects trials.
        lengths: those asked for, longer than the study's.
        wider, receipts: see :class:`StudyForecast`.

    Returns:
        None if every trial diverged.
    """
    longest = max((trial.schedule.total_steps for trial in trials), default=0)
    # The shorter trials of cooldowns serve the law alone.
    of = carried_trial([t for t in trials if t.schedule.total_steps == longest], selection)
    if of is None:
        return None
    setting = outlook(trials, of, selection, wider)
    seed_noise, worth_until, why = _worth(setting, trials, selection)
    last = of.rows[-1] if of.rows else {}
    return StudyForecast(
        trial=of.trial,
        curves=tuple(trial.trial for trial in setting.curves),
        law=None if isinstance(setting.law, CannotTell) else setting.law.law,
        wider=wider,
        receipts=tuple(receipts),
        loss=_finite(last.get(LOSS)),
        metric=_finite(last.get(selection.key)) if selection.key != LOSS else None,
        longer=tuple(setting.carried(length) for length in sorted({*lengths})),
        ends=tuple(
            End(run.length_steps, run.loss)
            for run in map(setting.carried, _lengths(of, MAX_TIMES_LONGER))
            if run.loss is not None
        ),
        seed_noise=seed_noise,
        worth_until_steps=worth_until,
        not_told_because=why,
    )


def _of_the_same_law(trials: Sequence[TrialRecord], of: TrialRecord) -> Iterator[TrialRecord]:
    """The trials that differ from one in nothing but learning rate and schedule, it first."""

    def apart(trial: TrialRecord) -> float:
        return abs(math.log(trial.base_learning_rate / of.base_learning_rate))

    alike = [
        trial
        for trial in trials
        if trial.trial != of.trial
        and of.reuse_key  # of older studies, nobody knows
        and trial.reuse_key == of.reuse_key
        and trial.measurement_key == of.measurement_key
        and not trial.diverged
        and apart(trial) <= math.log(NEAR)
    ]
    yield of
    yield from sorted(alike, key=lambda trial: (apart(trial), trial.trial))[: MOST_CURVES - 1]


def _law(curves: Sequence[TrialRecord], of: TrialRecord) -> FittedLaw | CannotTell:
    """The law of the validation loss that curves follow."""
    if not any(LOSS in row for row in of.rows):
        return CannotTell("the task measures no loss on the validation set")
    if not all(math.isfinite(row.get(LOSS, math.nan)) for row in of.rows):
        return CannotTell(f"the validation loss of trial {of.trial} is not always finite")
    if of.schedule.total_steps > MOST_STEPS:
        return _TOO_LONG
    if min(row[LOSS] for row in of.rows) <= 0:
        return CannotTell("the laws are of losses above 0, and some are not")
    if sum(len(trial.rows) for trial in curves) < MIN_EVALUATIONS:
        return CannotTell(f"fewer than {MIN_EVALUATIONS} evaluations show how the loss falls")
    if reason := _turns_up(of) or _overfits(of):
        return CannotTell(reason)
    return fit([_curve(trial) for trial in curves])


def _curve(trial: TrialRecord) -> Curve:
    rows = [row for row in trial.rows if math.isfinite(row.get(LOSS, math.nan))]
    return Curve.of(trial.schedule, [r["step"] for r in rows], [r[LOSS] for r in rows])


def _turns_up(of: TrialRecord) -> str | None:
    """Why no law of falling losses holds where the loss rises again, as an overfit's does."""
    logs = np.log([row[LOSS] for row in of.rows])
    width = max(3, round(WINDOW * len(logs)))
    if len(logs) < 2 * width:
        return None
    means = np.lib.stride_tricks.sliding_window_view(logs, width).mean(axis=1)
    lowest = int(np.argmin(means))
    rises = float(means[-1] - means[lowest])
    if rises <= TURNS_UP * noise([logs]):
        return None
    step = of.rows[lowest + width // 2]["step"]
    return (
        f"the validation loss rises again, by {math.expm1(rises):.1%} since step {step}: an "
        "overfit, which the laws of falling losses know nothing of"
    )


def _overfits(of: TrialRecord) -> str | None:
    """Why no law holds where the training loss has left the validation loss behind.

    The validation loss may still fall then, but not by its law for long.
    """
    pairs = [(row.get("train_loss", math.nan), row[LOSS]) for row in of.rows]
    apart = [math.log(loss / train) for train, loss in pairs if math.isfinite(train) and train > 0]
    if len(apart) < len(pairs) or len(apart) < MIN_EVALUATIONS:
        return None  # it is not measured, or is no loss above 0
    width = max(3, round(WINDOW * len(apart)))
    grown = statistics.median(apart[-width:]) - statistics.median(apart[: len(apart) // 4])
    if grown <= OVERFITS:
        return None
    return (
        f"an overfit has begun: the training loss has fallen by {-math.expm1(-grown):.0%} more "
        "than the validation loss, whose law will not hold for long"
    )


def _relation(curves: Sequence[TrialRecord], selection: Selection) -> Relation | CannotTell:
    rows = (row for trial in curves for row in trial.rows if {LOSS, selection.key} <= row.keys())
    pairs = sorted({(row[LOSS], row[selection.key]) for row in rows})
    losses, metrics = ([pair[i] for pair in pairs] for i in (0, 1))
    is_share = selection.key.endswith(("error_rate", "accuracy"))
    return relation(losses, metrics, selection.higher_is_better, is_share)


def _lengths(of: TrialRecord, times: float) -> list[int]:
    """The lengths from a trial's own to so many times as many steps."""
    return [math.floor(f * of.schedule.total_steps) for f in np.geomspace(1.0, times, LENGTHS)]


def _worth(
    setting: Outlook, trials: Sequence[TrialRecord], selection: Selection
) -> tuple[float | None, int | None, str | None]:
    """The noise between seeds; the length from which doubling gains less; why there is none."""
    competing = {t.trial for t, _ in compete(trials, selection).competing}
    groups = [g for g in by_setting(trials).values() if competing & {t.trial for t in g}]
    pooled = pooled_noise([[_last_loss(trial) for trial in group] for group in groups])
    if isinstance(setting.law, CannotTell):
        return pooled.sd if pooled else None, None, setting.law.reason
    if pooled is None:
        return None, None, "no setting that competes ran with two seeds, so their noise is unknown"
    lengths = _lengths(setting.of, MAX_TIMES_LONGER / 2)
    for steps in lengths:
        once, twice = setting.carried(steps).loss, setting.carried(2 * steps).loss
        if once is None or twice is None:
            return pooled.sd, None, "runs of twice the steps cannot be told"
        if once.value - twice.value < pooled.sd:
            return pooled.sd, steps, None
    why = f"it goes on beyond {lengths[-1]} steps, the farthest that is told"
    return pooled.sd, None, why


def _last_loss(trial: TrialRecord) -> float:
    return trial.rows[-1].get(LOSS, math.nan) if trial.rows else math.nan


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
