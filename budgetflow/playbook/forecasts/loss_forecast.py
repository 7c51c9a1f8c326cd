"""The loss of a longer run, with an interval, by the law that holds best on measured curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.forecasts.expected import SPREADS, CannotTell, Expected
from budgetflow.playbook.forecasts.laws import (
    DEEPER,
    LAW_ERROR,
    LAWS,
    Run,
    features,
    fitted,
    held_out_error,
    noise,
    predicted,
)

# Evaluations before this share of the longest curve are left out: no law holds there yet.
TOO_EARLY = 0.05
# More evaluations of a curve add nothing.
MAX_EVALUATIONS = 60
MIN_EVALUATIONS = 12
# A law whose held-out error is within this factor of the best stays an alternative; where it
# forecasts another loss, the interval is wider.
AS_LIKELY = 4.0
# Fits to resampled curves and residuals, and the neighbours that residuals are drawn with.
RESAMPLES = 40
BLOCK = 6
# The reach of the evidence, as factors of the longest curve's steps and of the learning rates.
MAX_TIMES_LONGER = 5.0
MAX_TIMES_RATE = 1.5
# The largest accepted residual, as a fraction of the total fall of the losses.
POOR_FIT = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A run's measured losses, and the learning rates that led there.

    Attributes:
        learning_rates: of update 0, 1 and so on, at least to the last evaluation.
        steps: of the evaluations, ascending, from 1.
        losses: at these steps. Where two runs share their first steps, both may hold those losses:
            they count once.
    """

    learning_rates: np.ndarray
    steps: np.ndarray
    losses: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in (("learning_rates", float), ("steps", int), ("losses", float)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        if len(self.steps) != len(self.losses):
            raise ValueError(f"{len(self.steps)} steps do not go with {len(self.losses)} losses")
        if len(self.steps) and (self.steps[0] < 1 or np.any(np.diff(self.steps) <= 0)):
            raise ValueError(f"a curve's steps ascend from 1 or more, unlike {self.steps.tolist()}")
        if len(self.steps) and self.steps[-1] > len(self.learning_rates):
            raise ValueError(
                f"step {self.steps[-1]} is beyond the {len(self.learning_rates)} learning rates"
            )
        _check_rates(self.learning_rates)

    @classmethod
    def of(cls, schedule: Schedule, steps: Sequence[int], losses: Sequence[float]) -> Curve:
        """The curve of a run with a schedule."""
        last = max([schedule.total_steps, *steps])
        return cls(schedule.learning_rates(last), np.asarray(steps), np.asarray(losses))


@dataclasses.dataclass(frozen=True, eq=False)
class FittedLaw:
    """A law fitted to measured curves, which gives forecasts.

    Attributes:
        law: a name in :data:`budgetflow.playbook.forecasts.laws.LAWS`.
        theta: its parameters.
        resampled: those by resampled curves, [resamples, parameters].
        others: parameters of the alternative laws, by name.
        residual: the root mean square of its relative errors on the curves.
        held_out_error: the same on evaluations held out; None where none could be.
        longest: the steps of the longest curve.
        peaks: the lowest and the highest peak learning rate of the curves.
        lowest: the lowest learning rate of an evaluation, relative to its curve's peak.
        loss_unit: the loss that counts as 1.
    """

    law: str
    theta: np.ndarray
    resampled: np.ndarray
    others: Mapping[str, np.ndarray]
    residual: float
    held_out_error: float | None
    longest: int
    peaks: tuple[float, float]
    lowest: float
    loss_unit: float

    def forecast(
        self,
        learning_rates: Schedule | np.ndarray,
        steps: Sequence[int] | None = None,
        wider: float = 1.0,
    ) -> list[Expected] | CannotTell:
        """The losses of a run with these learning rates.

        Args:
            learning_rates: a schedule, or the learning rate of update 0, 1 and so on.
            steps: at which the loss is asked for; the end by default.
            wider: the factor on the intervals; see
                :func:`budgetflow.playbook.forecasts.expected.wider_after`.
        """
        if isinstance(learning_rates, Schedule):
            learning_rates = learning_rates.learning_rates()
        rates = np.asarray(learning_rates, dtype=float)
        _check_rates(rates)
        at = np.asarray([len(rates)] if steps is None else steps, dtype=int)
        if len(at) == 0 or at.min() < 1 or at.max() > len(rates):
            raise ValueError(f"steps {at.tolist()} are not in a run of {len(rates)} steps")
        if reason := self._beyond(rates[: at.max()], at):
            return CannotTell(reason)
        law = LAWS[self.law]
        run = features(at, rates, self.longest, self.peaks[1])
        middle = predicted(law, self.theta, run)
        moved = np.stack([predicted(law, theta, run) for theta in self.resampled]) - middle
        variance = np.mean(moved**2, axis=0) + self.residual**2 + (self.held_out_error or 0.0) ** 2
        for name, theta in self.others.items():
            variance = variance + (predicted(LAWS[name], theta, run) - middle) ** 2
        spread = np.sqrt(np.maximum(variance, LAW_ERROR**2))
        half = wider * law.widening * SPREADS * spread
        unit = self.loss_unit
        return [
            Expected(unit * math.exp(m), unit * math.exp(m - h), unit * math.exp(m + h))
            for m, h in zip(middle, half, strict=True)
        ]

    def _beyond(self, rates: np.ndarray, at: np.ndarray) -> str | None:
        """The reason why the curves are no evidence for this run, or None."""
        if len(rates) > MAX_TIMES_LONGER * self.longest:
            return (
                f"{len(rates)} steps are more than {MAX_TIMES_LONGER:g} times the longest "
                f"curve's {self.longest}"
            )
        low, high = self.peaks
        if not low / MAX_TIMES_RATE <= rates.max() <= high * MAX_TIMES_RATE:
            return (
                f"its learning rate of {rates.max():g} is far from the curves' {low:g} to {high:g}"
            )
        if at.min() < _warm(rates):
            return f"no law holds in warmup, of which step {at.min()} is"
        last = (rates[at - 1] / rates.max()).min()
        if last < self.lowest - DEEPER:
            return (
                f"not yet annealed: its learning rate decays to {last:.0%} of its highest, the "
                f"curves' to {self.lowest:.0%}"
            )
        return None


def fit(curves: Sequence[Curve], laws: Sequence[str] = tuple(LAWS)) -> FittedLaw | CannotTell:
    """The law with the lowest error on what is held out of the curves, fitted to all of them.

    Args:
        curves: of constant and decayed runs, of one or several learning rates. A run that shares
            its first steps with another one is a curve of its own.
        laws: the names of those to choose from.
    """
    usable = [curve for curve in curves if len(curve.steps) and np.all(np.isfinite(curve.losses))]
    if not usable:
        return CannotTell(f"none of {len(curves)} curves has finite losses alone")
    if min(curve.losses.min() for curve in usable) <= 0:
        return CannotTell("the laws are of losses above 0, and some are not")
    longest = max(int(curve.steps[-1]) for curve in usable)
    highs = [float(curve.learning_rates.max()) for curve in usable]
    runs, unit = _runs(usable, longest, max(highs))
    evaluations = sum(len(run.logs) for run in runs)
    if evaluations < MIN_EVALUATIONS:
        return CannotTell(
            f"too few evaluations: {evaluations} after warmup and the first {TOO_EARLY:.0%} of the "
            f"steps, where {MIN_EVALUATIONS} are needed"
        )
    logs = np.concatenate([run.logs for run in runs])
    fall = float(np.quantile(logs, 0.95) - np.quantile(logs, 0.05))
    if fall <= 3 * noise([run.logs for run in runs]):
        return CannotTell(f"the losses fall no more than their noise: by {fall:.2%}")
    likely = _likely_laws(runs, laws, min(highs) < (1 - DEEPER) * max(highs))
    name, error = next(iter(likely.items()))
    theta = fitted(LAWS[name], runs)
    residuals = [run.residuals(LAWS[name], theta) for run in runs]
    residual = float(np.sqrt(np.mean(np.concatenate(residuals) ** 2)))
    for missed, where in ((residual, "the curves"), (error or 0.0, "what was held out of them")):
        if missed > POOR_FIT * fall:
            return CannotTell(
                f"no law fits: the best misses {where} by {missed:.1%}, and all that the losses "
                f"fall by is {fall:.1%}"
            )
    return FittedLaw(
        law=name,
        theta=theta,
        resampled=_resampled(name, theta, runs, residuals),
        others={other: fitted(LAWS[other], runs) for other in likely if other != name},
        residual=residual,
        held_out_error=error,
        longest=longest,
        peaks=(min(highs), max(highs)),
        lowest=min(float(run.rates.min()) for run in runs),
        loss_unit=unit,
    )


def _runs(curves: Sequence[Curve], longest: int, highest: float) -> tuple[list[Run], float]:
    """The runs that the laws are fitted to, and the loss that counts as 1."""
    counted: set[tuple[float, ...]] = set()
    kept = []
    for curve in curves:
        start = max(TOO_EARLY * longest, _warm(curve.learning_rates))
        sums = np.cumsum(curve.learning_rates)[curve.steps - 1]
        evaluations = list(zip(curve.steps, curve.losses, sums, strict=True))
        new = [i for i, each in enumerate(evaluations) if each[0] > start and each not in counted]
        counted.update(evaluations)
        if new:
            spaced = np.linspace(0, len(new) - 1, min(MAX_EVALUATIONS, len(new)))
            kept.append((curve, np.asarray(new)[np.unique(spaced.astype(int))]))
    if not kept:
        return [], 1.0
    unit = float(np.median(np.concatenate([curve.losses[i] for curve, i in kept])))
    runs = [
        Run(
            features(curve.steps[i], curve.learning_rates, longest, highest),
            np.log(curve.losses[i] / unit),
            curve.learning_rates[curve.steps[i] - 1] / curve.learning_rates.max(),
        )
        for curve, i in kept
    ]
    return runs, unit


def _likely_laws(
    runs: Sequence[Run], laws: Sequence[str], rates_differ: bool
) -> dict[str, float | None]:
    """The laws that may hold, with their held-out errors, the best one first.

    The best has the lowest held-out error times its handicap.
    """
    vary = rates_differ or min(run.rates.min() for run in runs) < 1 - DEEPER
    names = [name for name in laws if vary or not LAWS[name].anneals] or laws
    held_out = ((name, held_out_error(LAWS[name], runs)) for name in names)
    errors = {name: error for name, error in held_out if error is not None}
    if not errors:
        return {names[0]: None}
    best = min(errors, key=lambda name: errors[name] * LAWS[name].handicap)
    likely = {
        name: error
        for name, error in errors.items()
        if error <= AS_LIKELY * errors[best] and LAWS[name].anneals == LAWS[best].anneals
    }
    return {best: errors[best], **likely}


def _resampled(
    name: str, theta: np.ndarray, runs: Sequence[Run], residuals: Sequence[np.ndarray]
) -> np.ndarray:
    """The parameters of a law by resampled curves and residuals, [resamples, parameters].

    Curves are resampled by weights (a Bayesian bootstrap), so that no resample is without the one
    curve that decays; residuals in blocks, since neighbouring ones are alike.
    """
    rng = np.random.default_rng(0)
    thetas = []
    for _ in range(RESAMPLES):
        weights = rng.dirichlet(np.ones(len(runs))) * len(runs)
        drawn = [
            dataclasses.replace(run, logs=run.logs + off - _blocks(off, rng))
            for run, off in zip(runs, residuals, strict=True)
        ]
        thetas.append(fitted(LAWS[name], drawn, weights, start=theta))
    return np.array(thetas)


def _blocks(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many values, drawn in blocks of neighbours, each block with a random sign."""
    count = -(-len(values) // BLOCK)
    starts = rng.integers(0, len(values), count)
    signs = np.repeat(rng.choice([-1.0, 1.0], count), BLOCK)
    index = (starts[:, None] + np.arange(BLOCK)[None, :]).ravel() % len(values)
    return (values[index] * signs)[: len(values)]


def _warm(rates: np.ndarray) -> int:
    """The step at which warmup is over: the learning rate is nearly at its highest."""
    return int(np.argmax(rates >= 0.99 * rates.max()))


def _check_rates(rates: np.ndarray) -> None:
    if len(rates) == 0 or not np.all(np.isfinite(rates)) or rates.min() < 0 or rates.max() <= 0:
        raise ValueError("learning rates are finite, 0 or more, and not all 0")
