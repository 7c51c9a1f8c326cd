"""A metric as a function of the loss, from a study's own evaluations.

The loss is forecast by a law. Error rates, perplexities and the like have none, but often follow
the loss closely enough that a line gives them a little further on: a line in one of four scales,
the one that holds best beyond the losses that it is fitted to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from budgetflow.playbook.forecasts.expected import SPREADS, CannotTell, Expected
from budgetflow.playbook.forecasts.loss_forecast import MIN_EVALUATIONS, POOR_FIT

# The share of the evaluations, those with the lowest losses, that a line is fitted to.
NEAREST = 0.5
# Of these, held out to choose the scale by and to measure the error further on.
HELD_OUT = 0.3
# A scale whose held-out error is within this factor of the best stays an alternative.
AS_LIKELY = 2.0


class Scale(NamedTuple):
    """Whether a line is through the logarithms of losses and of metrics."""

    log_loss: bool
    log_metric: bool

    def fitted(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Slope and intercept of the line through losses and metrics, by least squares."""
        x, y = np.log(x) if self.log_loss else x, np.log(y) if self.log_metric else y
        away = x - x.mean()
        slope = float(away @ y / (away @ away))
        return slope, float(y.mean() - slope * x.mean())

    def root_mean_square_error(
        self, x: np.ndarray, y: np.ndarray, slope: float, intercept: float
    ) -> float:
        """The error of a line in units of the metric."""
        line = intercept + slope * (np.log(x) if self.log_loss else x)
        off = y - (np.exp(line) if self.log_metric else line)
        return float(np.sqrt(np.mean(off**2)))

    def held_out_error(self, x: np.ndarray, y: np.ndarray) -> float:
        """The error at the lowest losses of a line fitted to the others; losses ascend."""
        count = round(HELD_OUT * len(x))
        if np.ptp(x[count:]) == 0:
            return math.inf
        return self.root_mean_square_error(x[:count], y[:count], *self.fitted(x[count:], y[count:]))


@dataclasses.dataclass(frozen=True)
class Relation:
    """A metric as a line of the loss.

    Attributes:
        scale: of the line.
        slope, intercept: of the line.
        spread: its error as a standard deviation of the metric (or of its logarithm).
        losses: the lowest and the highest that it is fitted to.
        points: how many it is fitted to.
        mean, deviation: mean and standard deviation of these losses on the line's scale.
        bounds: the lowest and the highest value that the metric can have.
        measured: the range of all measured values.
        others: lines in the alternative scales.
    """

    scale: Scale
    slope: float
    intercept: float
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
            wider: the factor on the relation's own part of the interval.
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
        value, low, high = (self._metric(m) for m in (middle, middle - below, middle + above))
        least, most = self.bounds
        if not least <= value <= most:
            return CannotTell(f"a line of the loss leads to {value:.2g}, which it cannot be")
        low, high = max(low, least), min(high, most)
        if high - low > self.measured:
            return CannotTell(
                f"the interval, {low:.2g} to {high:.2g}, is wider than all that was measured"
            )
        return Expected(value, low, high)

    def _line(self, loss: float) -> float:
        return self.intercept + self.slope * self._scaled(loss)

    def _apart(self, middle: float, other: Relation, loss: float) -> float:
        """How far another line is from this one's value, on this one's scale of the metric."""
        value = other._metric(other._line(loss))
        if not self.scale.log_metric:
            return value - middle
        return math.log(value) - middle if value > 0 else math.inf

    def _scaled(self, loss: float) -> float:
        return math.log(loss) if self.scale.log_loss else loss

    def _metric(self, value: float) -> float:
        return math.exp(value) if self.scale.log_metric else value


def relation(
    losses: Sequence[float],
    metrics: Sequence[float],
    higher_is_better: bool,
    is_share: bool = False,
) -> Relation | CannotTell:
    """The line by which a metric follows the loss.

    Args:
        losses: of evaluations, above 0.
        metrics: of the same evaluations.
        higher_is_better: whether higher values of the metric are better.
        is_share: whether the metric is a share where no value is above 1.
    """
    x, y = np.asarray(losses, dtype=float), np.asarray(metrics, dtype=float)
    usable = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[usable], y[usable]
    measured = float(np.ptp(y)) if len(y) else 0.0
    kept = np.argsort(x, kind="stable")[: max(MIN_EVALUATIONS, round(NEAREST * len(x)))]
    x, y = x[kept], y[kept]
    if len(x) < MIN_EVALUATIONS:
        return CannotTell(f"it takes {MIN_EVALUATIONS} evaluations to see how it follows the loss")
    falls = float(np.quantile(y, 0.95) - np.quantile(y, 0.05))
    if np.ptp(x) < 1e-6 * x[-1] or falls <= 0:
        return CannotTell("the loss or the metric hardly changes, so their relation is not seen")
    scales = [Scale(a, b) for b in (False, True) if not b or y.min() > 0 for a in (False, True)]
    errors = {scale: scale.held_out_error(x, y) for scale in scales}
    best = min(scales, key=lambda scale: errors[scale])
    likely = [s for s in scales if s != best and errors[s] <= AS_LIKELY * errors[best]]
    in_share = is_share and y.min() >= 0 and y.max() <= 1
    bounds = (0.0, 1.0) if in_share else (0.0 if y.min() >= 0 else -math.inf, math.inf)
    line, *others = (_line(x, y, scale, errors[scale], bounds) for scale in (best, *likely))
    error = line.spread * float(np.median(y)) if best.log_metric else line.spread
    if (line.slope > 0) == higher_is_better or error > POOR_FIT * falls:
        return CannotTell(
            f"it follows the loss too loosely: what a line misses, {error:.2g}, is too much of the "
            f"{falls:.2g} that it changes by where the loss is lowest"
        )
    return dataclasses.replace(line, measured=measured, others=tuple(others))


def _line(
    x: np.ndarray, y: np.ndarray, scale: Scale, held_out_error: float, bounds: tuple[float, float]
) -> Relation:
    """The line through points in a scale."""
    slope, intercept = scale.fitted(x, y)
    error = math.hypot(scale.root_mean_square_error(x, y, slope, intercept), held_out_error)
    scaled = np.log(x) if scale.log_loss else x
    return Relation(
        scale=scale,
        slope=slope,
        intercept=intercept,
        spread=error / float(np.median(y)) if scale.log_metric else error,
        losses=(float(x.min()), float(x.max())),
        points=len(x),
        mean=float(scaled.mean()),
        deviation=float(scaled.std()),
        bounds=bounds,
    )
