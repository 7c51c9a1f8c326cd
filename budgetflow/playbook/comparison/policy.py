"""What a change of the configuration does to the number of steps: both sides, trained and compared.

The configuration with and without the change races, seed by seed, to the same training loss (or a
perfect fit), each at the best of its own constant learning rates, since what changes the gradient
noise changes the best learning rate, too. The first seed's race is over the whole grid, the others'
around its best, as in a sweep (:mod:`budgetflow.playbook.sweep.policy`).

The factor is the geometric mean over seeds of steps with the change over steps without it. A seed
is the same initialisation on both sides where the model is the same one, so the ratios are paired.
Its 95 % interval is Student's t on the logarithms of the ratios: if these are normal, an interval
that lies on one side of 1 lies on the wrong side in at most 2.5 % of comparisons whose factor is 1
or on the other side. It knows of seeds alone, not of other data or a finer grid.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from budgetflow.playbook.common.measurement import SEED, Conclude, Decision, TrialRecord
from budgetflow.playbook.comparison.direction import directions
from budgetflow.playbook.comparison.gradient_noise import NoiseScale, student_t
from budgetflow.playbook.comparison.outcome import MIN_SEEDS, ComparisonOutcome, SeedSteps, Side
from budgetflow.playbook.comparison.words import comparison_reasons
from budgetflow.playbook.sweep.race import CHANGED, Race, SweepSettings, run_races


class Factor(NamedTuple):
    """A factor in steps, and its 95 % interval."""

    factor: float
    low: float
    high: float

    @property
    def direction(self) -> Literal["more", "fewer"] | None:
        """Whether it is more or fewer steps, where the interval says so."""
        if self.low > 1:
            return "more"
        return "fewer" if self.high < 1 else None

    def fields(self, name: str) -> dict[str, Any]:
        """The fields of an outcome that hold it: ``name``, with "_low" and "_high"."""
        return {name: self.factor, f"{name}_low": self.low, f"{name}_high": self.high}


def decide(
    settings: SweepSettings, sides: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]
) -> Decision:
    """What to do next, given what the study's trials have shown.

    Args:
        settings: of the races of each side; ``fitted_train_loss`` is the training loss to reach.
        sides: the hyperparameters of the first seed's trials but for the learning rate, without and
            with the change: :data:`budgetflow.playbook.sweep.race.CHANGED`, the seed, and the
            values of all that differs.
        trials: the study's.
    """
    races = run_races(settings, sides, trials)
    if isinstance(races, list):
        return Conclude(_outcome(settings, sides, races, trials))
    return races


def _crossing(loss: float | None, trial: TrialRecord) -> float:
    """The step at which a trial got there.

    For a perfect fit, the first step that is known to have it; for a training loss, where the line
    between the evaluations before and after crosses it. 0 for a trial that got there before its
    first evaluation: nobody knows when.
    """
    assert trial.fitted_at_step_bracket is not None
    before, at = trial.fitted_at_step_bracket
    if before == 0 and at > 1:
        return 0.0
    if loss is None:
        return float(at)
    losses = {row["step"]: row["train_loss"] for row in trial.rows}
    share = (losses[before] - loss) / (losses[before] - losses[at])
    return before + share * (at - before)


def steps_factor(ratios: Sequence[float]) -> Factor:
    """The geometric mean of the seeds' ratios, and its interval by Student's t on the logarithms.

    Args:
        ratios: steps with the change over steps without, of each seed; two or more.
    """
    logs = [math.log(ratio) for ratio in ratios]
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    return _from_log(statistics.fmean(logs), student_t(len(logs) - 1) * error)


def predicted_factor(
    before: NoiseScale, batch_before: int, after: NoiseScale, batch_after: int
) -> Factor | None:
    """The factor by which steps grow, by equation 2.11: (1 + B'_noise / B') / (1 + B_noise / B).

    See :mod:`budgetflow.playbook.comparison.gradient_noise`. It takes S_min, the steps without any
    noise, to be the same on both sides, each at the best learning rate for its batch. The interval
    is of the measured noise scales alone, their errors taken for independent: it says nothing of
    how well the equation holds.

    Returns:
        None where one of the noise scales cannot be told.
    """
    logs, variance = [], 0.0
    for scale, batch in ((before, batch_before), (after, batch_after)):
        if scale.examples is None or scale.high is None:
            return None
        noise = scale.examples / batch
        logs.append(math.log1p(noise))
        half = math.log(scale.high / scale.examples)
        variance += (noise / (1 + noise) * half) ** 2
    return _from_log(logs[1] - logs[0], math.sqrt(variance))


def _from_log(log: float, half: float) -> Factor:
    """A factor from its logarithm and half the width of that one's interval."""
    return Factor(math.exp(log), math.exp(log - half), math.exp(log + half))


def _outcome(
    settings: SweepSettings,
    sides: Sequence[dict[str, Any]],
    races: Sequence[dict[int, Race]],
    trials: Sequence[TrialRecord],
) -> ComparisonOutcome:
    before, after = sides
    differing = {f: (before[f], after[f]) for f in after if f not in (CHANGED, SEED)}
    unchanged, changed = (_side(settings.fitted_train_loss, side) for side in races)
    ratios = [
        with_it.steps / without.steps
        for without, with_it in zip(unchanged.seeds, changed.seeds, strict=True)
        if without.steps and with_it.steps
    ]
    factor = steps_factor(ratios) if len(ratios) == len(races[0]) >= MIN_SEEDS else None
    fastest = min(
        (one for side in (changed, unchanged) for one in side.seeds if one.trial is not None),
        key=lambda one: one.steps or math.inf,
        default=None,
    )
    outcome = ComparisonOutcome(
        max_train_steps=settings.max_train_steps,
        best_trial=fastest.trial if fastest else None,
        steps_trained=sum(trial.step for trial in trials),
        diverged=sum(trial.diverged for trial in trials),
        status="measured" if factor else "cannot_be_told",
        changes=tuple(departure.change for departure in directions(differing)),
        train_loss=settings.fitted_train_loss,
        unchanged=unchanged,
        changed=changed,
        direction=factor.direction if factor else None,
        **(factor.fields("steps_factor") if factor else {}),
    )
    return outcome.with_reasons(comparison_reasons(outcome))


def _side(train_loss: float | None, races: dict[int, Race]) -> Side:
    """The fastest trial of each seed's race; of one without an answer, its best trial."""
    seeds = []
    for seed, race in races.items():
        steps, trial = None, race.best
        if race.status == "found":
            fitted = [t for t in race.trials if t.fitted_at_step_bracket]
            steps, _, trial = min((_crossing(train_loss, t), t.trial, t) for t in fitted)
            if steps == 0:
                steps, trial = None, race.best
        seeds.append(
            SeedSteps(
                seed=seed,
                status="too_early" if race.status == "found" and not steps else race.status,
                steps=steps,
                learning_rate=trial.base_learning_rate if trial else None,
                trial=trial.trial if trial else None,
            )
        )
    steps_of_seeds = [one.steps for one in seeds if one.steps is not None]
    median_steps = statistics.median(steps_of_seeds) if steps_of_seeds else None
    return Side(seeds=tuple(seeds), median_steps=median_steps)
