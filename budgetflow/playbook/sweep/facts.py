"""The facts that a sweep's outcome and its sentences are made from, once its races are over."""

from __future__ import annotations

import dataclasses
import math

from budgetflow.playbook.common.measurement import PARTIAL, TrialRecord
from budgetflow.playbook.sweep.race import Race, SweepSettings
from budgetflow.playbook.sweep.regime import CurveReading, read_training_curve


@dataclasses.dataclass(frozen=True)
class NextBest:
    """The trial behind the fastest one, as of the last evaluation before the fit.

    Attributes:
        learning_rate: its learning rate.
        metric: "train_error_rate" or "train_loss", by which it is the next best.
        value: the metric.
        step: of the evaluation; None if it fitted at the same step as the fastest.
        examples: how many training examples (the first ones) the metric is of; None for as many as
            config.evaluation.train_examples says.
    """

    learning_rate: float
    metric: str = "train_loss"
    value: float = 0.0
    step: int | None = None
    examples: int | None = None


@dataclasses.dataclass(frozen=True)
class AfterFit:
    """The fastest trial, up to an epoch after its fit.

    Attributes:
        held: whether it still fitted.
        step: the last evaluation.
        metric: "train_error_rate" or "train_loss".
        worst: the worst value of the metric after the fit.
    """

    held: bool
    step: int
    metric: str
    worst: float


@dataclasses.dataclass(frozen=True)
class SweepFacts:
    """What the races of a sweep show.

    Attributes:
        settings: the sweep's.
        races: of every seed, the first one's first.
        answer: the one among them whose answer is the sweep's.
        next_best: the trial behind the fastest; None if no other came as far.
        after_fit: None where nothing was measured after the fit.
        reading: the best trial's curve, where none fitted.
    """

    settings: SweepSettings
    races: dict[int, Race]
    answer: Race
    next_best: NextBest | None = None
    after_fit: AfterFit | None = None
    reading: CurveReading | None = None

    @property
    def first(self) -> Race:
        """The race of the first seed, over the whole grid."""
        return next(iter(self.races.values()))

    @property
    def refinements(self) -> int:
        """How many learning rates were added between those of the first grid."""
        added = len(self.first.trials) - len(self.settings.learning_rates)
        return added - self.first.extensions

    @property
    def grid_is_bad(self) -> bool:
        """Whether nothing fitted and the learning rates themselves may be at fault."""
        if self.reading is None:
            return self.answer.best is None
        return self.answer.at_boundary and self.reading.looks_like != "threshold_too_low"


def sweep_facts(settings: SweepSettings, races: dict[int, Race], answer: Race) -> SweepFacts:
    """What races show that are all over."""
    facts, best = SweepFacts(settings, races, answer), answer.best
    if best is None:
        return facts
    if best.fitted_at_step is None:
        return dataclasses.replace(facts, reading=read_training_curve(best.rows, settings))
    return dataclasses.replace(
        facts,
        next_best=_next_best(settings, answer, best),
        after_fit=_after_fit(settings, best),
    )


def _next_best(settings: SweepSettings, race: Race, best: TrialRecord) -> NextBest | None:
    at = best.fitted_at_step or 0
    others = [trial for trial in race.trials if trial is not best and not trial.diverged]
    if also := [trial for trial in others if trial.fitted_at_step == at]:
        return NextBest(also[0].base_learning_rate)
    # Steps of the lockstep grid, which all trials pass.
    step = max((row["step"] for row in best.rows if row["step"] <= at), default=0)
    rows = {t.base_learning_rate: row for t in others for row in t.rows if row["step"] == step}
    if not rows:
        return None
    by_error = settings.fitted_train_loss is None and "train_error_rate" in best.rows[-1]
    metric = "train_error_rate" if by_error else "train_loss"
    rate = min(rows, key=lambda rate: (rows[rate][metric], rows[rate]["train_loss"]))
    return NextBest(rate, metric, rows[rate][metric], step, rows[rate].get(PARTIAL))


def _after_fit(settings: SweepSettings, best: TrialRecord) -> AfterFit | None:
    after = [row for row in best.rows if row["step"] > (best.fitted_at_step or 0)]
    threshold = settings.fitted_train_loss
    metric = "train_error_rate" if threshold is None else "train_loss"
    if not after or metric not in after[-1]:
        return None
    worst = max(row[metric] if math.isfinite(row[metric]) else math.inf for row in after)
    # A mean of float32 may be off by its last bits.
    lowest = settings.lowest_evaluated_error_rate * (1 + 1e-6)
    fits = worst <= lowest if threshold is None else worst < threshold
    return AfterFit(fits, after[-1]["step"], metric, worst)
