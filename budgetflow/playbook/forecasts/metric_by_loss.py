"""What a metric is where the loss is another: their relation in a study's own evaluations.

A loss is forecast by a law. Error rates, perplexities and the like have none, but follow the loss
closely enough, often, that a line says what they would be a little further on: in one of four
scales, the one that holds best beyond the losses that it is fitted to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from budgetflow.playbook.forecasts.loss_forecast import (
    MIN_EVALUATIONS,
    POOR_FIT,
    SPREADS,
    CannotTell,
)

# The relation is read from the evaluations with the lowest losses: this share of them, which are
# the nearest to what is asked for.
NEAREST = 0.5
# Of these, held out to choose the scale by, and to see what a line misses further on.
HELD_OUT = 0.3
# Another scale that misses at most this many times as much is as likely.
AS_LIKELY = 2.0


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is expected of a figure.

    Attributes:
        value: the middle.
        low, high: the ends of the interval.
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Relation:
    """A metric as a line of the loss.

    Attributes:
        slope, intercept: of the line.
        log_loss, log_metric: whether it is one of their logarithms.
        spread: what it misses, as a standard deviation of the metric (or of its logarithm).
        losses: the lowest and the highest that it is fitted to.
        points: how many it is fitted to; their mean and their standard deviation on the line's
            scale of the loss tell how unsure its slope is.
        bounds: what values the metric can have.
        measured: how far apart the values are that were measured, all of them.
        others: lines in other scales that are about as likely.
    """

    slope: float
    intercept: float
    log_loss: bool
    log_metric: bool
    spread: float
    losses: tuple[float, float]
    points: int
    mean: float
    deviation: float
    bounds: tuple[float, float]
    measured: float = math.inf
    others: tuple[Relation, ...] = ()

    def at(self, loss: Expected, wider: float = 1.0) -> Expected | CannotTell:
        """The metric where the loss is as expected.

        Args:
            loss: with its interval, which the metric's follows.
            wider: how many times as wide as otherwise the relation's own part is to be.
        """
        lowest, highest = self.losses
        if loss.value < lowest - (highest - lowest):
            return CannotTell(
                f"a loss of {loss.value:.4g} is too far below the {lowest:.4g} that the relation "
                "to the loss is measured to"
            )
        middle, *ends = (self._line(each) for each in (loss.value, loss.low, loss.high))
        # A line is the less sure, the farther it is from the middle of what it is fitted to.
        away = (self._scaled(loss.value) - self.mean) / self.deviation
        own = wider * SPREADS * self.spread * math.sqrt(1 + (1 + away**2) / self.points)
        apart = [self._apart(middle, other, loss.value) for other in self.others]
        below = math.hypot(middle - min(middle, *ends), own, *apart)
        above = math.hypot(max(middle, *ends) - middle, own, *apart)
        found = [self._metric(each) for each in (middle, middle - below, middle + above)]
        low, high = self.bounds
        if not low <= found[0] <= high:
            return CannotTell(f"a line of the loss leads to {found[0]:.2g}, which it cannot be")
        said = Expected(found[0], max(found[1], low), min(found[2], high))
        if said.high - said.low > self.measured:
            return CannotTell(
                f"the interval, {said.low:.2g} to {said.high:.2g}, is wider than all that was "
                "measured"
            )
        return said

    def _line(self, loss: float) -> float:
        return self.intercept + self.slope * self._scaled(loss)

    def _apart(self, middle: float, other: Relation, loss: float) -> float:
        """How far another line is from this one's value, on this one's scale of the metric."""
        value = other._metric(other._line(loss))
        if not self.log_metric:
            return value - middle
        return math.log(value) - middle if value > 0 else math.inf

    def _scaled(self, loss: float) -> float:
        return math.log(loss) if self.log_loss else loss

    def _metric(self, value: float) -> float:
        return math.exp(value) if self.log_metric else value


def relation(
    losses: Sequence[float],
    metrics: Sequence[float],
    higher_is_better: bool,
    is_share: bool = False,
) -> Relation | CannotTell:
    """How a metric follows the loss.

    Args:
        losses: of evaluations, above 0.
        metrics: of the same evaluations.
        higher_is_better: whether higher values of the metric are better.
        is_share: whether it is a share where no value is above 1.
    """
    x, y = np.asarray(losses, dtype=float), np.asarray(metrics, dtype=float)
    known = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[known], y[known]
    measured = float(np.ptp(y)) if len(y) else 0.0
    kept = np.argsort(x, kind="stable")[: max(MIN_EVALUATIONS, round(NEAREST * len(x)))]
    x, y = x[kept], y[kept]
    if len(x) < MIN_EVALUATIONS:
        return CannotTell(f"it takes {MIN_EVALUATIONS} evaluations to see how it follows the loss")
    falls = float(np.quantile(y, 0.95) - np.quantile(y, 0.05))
    if np.ptp(x) < 1e-6 * x[-1] or falls <= 0:
        return CannotTell("the loss or the metric hardly changes, so their relation is not seen")
    scales = [(a, b) for b in (False, True) if not b or y.min() > 0 for a in (False, True)]
    missed = {scale: _held_out(x, y, *scale) for scale in scales}
    best = min(scales, key=lambda scale: missed[scale])
    likely = [s for s in scales if s != best and missed[s] <= AS_LIKELY * missed[best]]
    in_share = is_share and y.min() >= 0 and y.max() <= 1
    bounds = (0.0, 1.0) if in_share else (0.0 if y.min() >= 0 else -math.inf, math.inf)
    found, *others = (_line(x, y, scale, missed[scale], bounds) for scale in (best, *likely))
    error = found.spread * float(np.median(y)) if found.log_metric else found.spread
    if (found.slope > 0) == higher_is_better or error > POOR_FIT * falls:
        return CannotTell(
            f"it follows the loss too loosely: what a line misses, {error:.2g}, is too much of the "
            f"{falls:.2g} that it changes by where the loss is lowest"
        )
    return dataclasses.replace(found, measured=measured, others=tuple(others))


def _line(
    x: np.ndarray,
    y: np.ndarray,
    scale: tuple[bool, bool],
    missed: float,
    bounds: tuple[float, float],
) -> Relation:
    """The line through points in a scale; ``missed`` is what it misses of what is held out."""
    log_loss, log_metric = scale
    slope, intercept = _fitted(x, y, log_loss, log_metric)
    off = y - _values(x, slope, intercept, log_loss, log_metric)
    error = math.hypot(float(np.sqrt(np.mean(off**2))), missed)
    scaled = np.log(x) if log_loss else x
    return Relation(
        slope=slope,
        intercept=intercept,
        log_loss=log_loss,
        log_metric=log_metric,
        spread=error / float(np.median(y)) if log_metric else error,
        losses=(float(x.min()), float(x.max())),
        points=len(x),
        mean=float(scaled.mean()),
        deviation=float(scaled.std()),
        bounds=bounds,
    )


def _fitted(x: np.ndarray, y: np.ndarray, log_loss: bool, log_metric: bool) -> tuple[float, float]:
    """Slope and intercept of the line through points, by least squares."""
    x, y = np.log(x) if log_loss else x, np.log(y) if log_metric else y
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    return slope, float(y.mean() - slope * x.mean())


def _values(
    x: np.ndarray, slope: float, intercept: float, log_loss: bool, log_metric: bool
) -> np.ndarray:
    line = intercept + slope * (np.log(x) if log_loss else x)
    return np.exp(line) if log_metric else line


def _held_out(x: np.ndarray, y: np.ndarray, log_loss: bool, log_metric: bool) -> float:
    """What a line misses at the lowest losses if it is fitted to the others; root mean square."""
    count = round(HELD_OUT * len(x))  # the losses ascend
    if np.ptp(x[count:]) == 0:
        return math.inf
    slope, intercept = _fitted(x[count:], y[count:], log_loss, log_metric)
    off = y[:count] - _values(x[:count], slope, intercept, log_loss, log_metric)
    return float(np.sqrt(np.mean(off**2)))
