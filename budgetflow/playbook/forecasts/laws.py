"""Laws of the loss, and how they are fitted to measured curves.

A law gives the loss by the step and the learning rates so far. All are
``floor + size * progress ** -exponent - annealing`` and differ in what counts as progress and in
what a decay of the learning rate gives:

- "steps": a power law of the steps alone, without annealing. The baseline.
- "momentum": Tissue et al. 2024 (arXiv:2408.11029). Progress is the sum of the learning rates; a
  drop of the learning rate takes effect with the steps after it, at a time scale of its own.
- "multi_power": Luo et al. 2025 (arXiv:2503.12811). As above, but a drop takes effect with the
  learning rates summed after it, as a power law, and the faster the lower the learning rate is.

Steps, learning rates and losses are relative ones (to the longest curve, the highest learning rate
and the median loss), so that no parameter has a unit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

# The annealing term costs drops times evaluations, so a schedule's are gathered into so many.
MAX_DROPS = 100
# The least learning rate after a drop, relative to the highest: a decay ends at 0.
LEAST_RATE = 1e-3
# What a law is taken to miss, whatever the noise between evaluations: 0.2 % of the loss.
LAW_ERROR = 0.002
# Residuals beyond this many noises count by their size, not by its square.
ROBUST_FROM = 3.0
# Starts of a fit besides the expected parameters.
STARTS = 2
MAX_TRIES = 100
# How much deeper a decay can be told from shallower ones, in shares of the highest learning rate.
DEEPER = 0.15
# Runs are left out in this many groups at most.
GROUPS = 5
# Held out forwards: the laws see the first part of the steps and are asked for the last one.
SEEN, ASKED = 0.5, 0.75
MIN_SEEN = 6


class Features(NamedTuple):
    """The inputs of the laws at the evaluations of one run or of several.

    Attributes:
        steps: relative to the longest curve, [evaluations].
        rate_sums: the learning rates summed up to each evaluation, as relative, [evaluations].
        drops: how far the learning rate falls at each of its run's gathered drops, [evaluations,
            drops]; negative where it rises. Warmup is none.
        rates: the learning rate after each drop, [evaluations, drops].
        steps_since, rate_sums_since: since each drop, [evaluations, drops]; 0 before it.
    """

    steps: np.ndarray
    rate_sums: np.ndarray
    drops: np.ndarray
    rates: np.ndarray
    steps_since: np.ndarray
    rate_sums_since: np.ndarray

    def at(self, kept: np.ndarray) -> Features:
        """The features at some of the evaluations."""
        return Features(*(array[kept] for array in self))


def features(
    steps: np.ndarray, learning_rates: np.ndarray, longest: float, highest: float
) -> Features:
    """The inputs of the laws at ``steps`` of a run.

    Args:
        steps: of the evaluations, at most the number of learning rates.
        learning_rates: of update 0, 1 and so on.
        longest: the step count that counts as 1.
        highest: the learning rate that counts as 1.
    """
    rates = np.asarray(learning_rates, dtype=float) / highest
    sums = np.concatenate([[0.0], np.cumsum(rates)]) / longest
    at, drops, after = _gathered(rates)
    since = np.maximum(steps[:, None] - at[None, :], 0.0)
    sum_at = np.interp(at, np.arange(len(sums)), sums)
    return Features(
        steps=steps / longest,
        rate_sums=sums[steps],
        drops=np.broadcast_to(drops, since.shape),
        rates=np.broadcast_to(np.maximum(after, LEAST_RATE), since.shape),
        steps_since=since / longest,
        rate_sums_since=np.where(since > 0, sums[steps][:, None] - sum_at[None, :], 0.0),
    )


def joined(parts: Sequence[Features]) -> Features:
    """The features of several runs, one after the other, padded to equally many drops (of 0)."""
    width = max(part.drops.shape[1] for part in parts)

    def padded(array: np.ndarray, fill: float) -> np.ndarray:
        missing = [(0, 0), (0, width - array.shape[1])] if array.ndim == 2 else 0
        return np.pad(array, missing, constant_values=fill)

    columns = {
        name: np.concatenate([padded(array, 1.0 if name == "rates" else 0.0) for array in arrays])
        for name, arrays in zip(Features._fields, zip(*parts, strict=True), strict=True)
    }
    return Features(**columns)


def _gathered(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The updates at which the learning rate fell after its peak, how far, and the rate after."""
    peak = int(np.argmax(rates))
    falls = -np.diff(rates[peak:])
    edges = np.unique(np.linspace(0, len(falls), min(MAX_DROPS, len(falls)) + 1).astype(int))
    if len(edges) < 2:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    drops = np.add.reduceat(falls, edges[:-1])
    weights = np.add.reduceat(np.abs(falls), edges[:-1])
    # Update peak + 1 + i is the first at the rate after fall i.
    moments = np.add.reduceat(np.abs(falls) * (peak + 1 + np.arange(len(falls))), edges[:-1])
    kept = weights > 0
    after = rates[peak + edges[1:]]
    return moments[kept] / weights[kept], drops[kept], after[kept]


def _power(floor: float, size: float, exponent: float, progress: np.ndarray) -> np.ndarray:
    return np.exp(floor) + np.exp(size - np.exp(exponent) * np.log(progress))


def _steps(theta: np.ndarray, run: Features) -> np.ndarray:
    floor, size, exponent = theta
    return _power(floor, size, exponent, run.steps)


def _momentum(theta: np.ndarray, run: Features) -> np.ndarray:
    floor, size, exponent, gain, scale = theta
    effect = 1 - np.exp(-run.steps_since * np.exp(-scale))
    annealing = np.exp(gain) * np.sum(effect * run.drops, axis=1)
    return _power(floor, size, exponent, run.rate_sums) - annealing


def _multi_power(theta: np.ndarray, run: Features) -> np.ndarray:
    floor, size, exponent, gain, speed, power, rate_power = theta
    progress = run.rate_sums_since * np.exp(speed - rate_power * np.log(run.rates))
    effect = 1 - np.exp(-np.exp(power) * np.log1p(progress))
    annealing = np.exp(gain) * np.sum(effect * run.drops, axis=1)
    return _power(floor, size, exponent, run.rate_sums) - annealing


@dataclasses.dataclass(frozen=True)
class Law:
    """A law of the loss and a prior of its parameters.

    Positive parameters are given as logarithms.

    Attributes:
        loss: the relative losses of a run by parameters and features.
        expected, spread: mean and standard deviation of the prior; wide, so that it decides only
            what the curves leave open.
        anneals: whether it depends on learning rates.
        handicap: the factor on its held-out error when laws are compared. Two laws often win
            narrowly there and are worse at three times the steps: the one without learning rates,
            and the one with the most parameters.
        widening: the factor on the interval that resampling, residuals and held-out error give.
            experiments/forecasts/README.md has the coverage that it was chosen by.
    """

    loss: Callable[[np.ndarray, Features], np.ndarray]
    expected: tuple[float, ...]
    spread: tuple[float, ...]
    anneals: bool
    handicap: float
    widening: float


# floor, size, exponent: at the longest curve's end the loss is about 1, most of it floor.
_BASE, _BASE_SPREAD = (-0.2, -2.0, -0.7), (1.0, 2.0, 0.7)
LAWS: Mapping[str, Law] = {
    "steps": Law(_steps, _BASE, _BASE_SPREAD, anneals=False, handicap=2.0, widening=1.5),
    "momentum": Law(
        _momentum,
        (*_BASE, -3.0, -3.5),
        (*_BASE_SPREAD, 2.0, 1.5),
        anneals=True,
        handicap=1.0,
        widening=0.8,
    ),
    "multi_power": Law(
        _multi_power,
        (*_BASE, -3.0, 3.0, -0.7, 0.5),
        (*_BASE_SPREAD, 2.0, 2.0, 0.7, 0.4),
        anneals=True,
        handicap=3.0,
        widening=0.8,
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A curve as the laws see it.

    Attributes:
        features: at each evaluation.
        logs: the logarithms of the relative losses, [evaluations].
        rates: of the update before each evaluation, relative to the run's highest, [evaluations].
    """

    features: Features
    logs: np.ndarray
    rates: np.ndarray

    def part(self, kept: np.ndarray) -> Run:
        """The run at some of its evaluations."""
        return Run(self.features.at(kept), self.logs[kept], self.rates[kept])

    def residuals(self, law: Law, theta: np.ndarray) -> np.ndarray:
        """The relative errors of a law at each evaluation."""
        return predicted(law, theta, self.features) - self.logs


def noise(logs: Sequence[np.ndarray]) -> float:
    """The noise between neighbouring evaluations of some runs, at least :data:`LAW_ERROR`.

    Args:
        logs: of each run, the logarithms of its losses.

    Returns:
        The standard deviation of the logarithms.
    """
    bends = np.abs(np.concatenate([np.diff(run, 2) for run in logs]))
    # A second difference has six times the variance; a normal's median is at 0.6745.
    measured = np.median(bends) / 0.6745 / np.sqrt(6) if len(bends) else 0.0
    return float(max(measured, LAW_ERROR))


def predicted(law: Law, theta: np.ndarray, features: Features) -> np.ndarray:
    """The logarithms of the relative losses by a law, of at least a thousandth each."""
    return np.log(np.maximum(law.loss(theta, features), 1e-3))


def fitted(
    law: Law,
    runs: Sequence[Run],
    weights: Sequence[float] | np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """The parameters of a law by robust least squares on the losses' logarithms.

    Args:
        law: the law.
        runs: at least one, with evaluations.
        weights: of the runs' evaluations; 1 each by default.
        start: parameters near the optimum; several starts are tried without.
    """
    from scipy.optimize import least_squares  # imported where needed: it takes a fifth of a second

    expected, spread = np.array(law.expected), np.array(law.spread)
    lengths = [len(run.logs) for run in runs]
    scale = np.sqrt(np.repeat(np.ones(len(runs)) if weights is None else weights, lengths))
    features = joined([run.features for run in runs])
    logs = np.concatenate([run.logs for run in runs])
    unit = noise([run.logs for run in runs])

    def residuals(theta: np.ndarray) -> np.ndarray:
        off = scale * _softened((predicted(law, theta, features) - logs) / unit)
        return np.concatenate([off, (theta - expected) / spread])

    draws = np.random.default_rng(0).standard_normal((STARTS, len(expected)))
    starts = [expected, *(expected + 0.7 * spread * draws)] if start is None else [start]
    fits = [least_squares(residuals, s, x_scale=spread, max_nfev=MAX_TRIES) for s in starts]
    return min(fits, key=lambda fit: fit.cost).x


def _softened(residuals: np.ndarray) -> np.ndarray:
    """Residuals whose squares are soft-L1 costs."""
    scaled = residuals / ROBUST_FROM
    # (1 + x²)^½ - 1, written so that small residuals keep their digits.
    cost = scaled**2 / (np.sqrt(1 + scaled**2) + 1)
    return ROBUST_FROM * np.sqrt(2 * cost) * np.sign(residuals)


def held_out_error(law: Law, runs: Sequence[Run]) -> float | None:
    """The root mean square of a law's relative errors on evaluations that it was not fitted to.

    The runs are left out one after the other, or in groups where they are many, and the last third
    of each is predicted; then all are cut at half of the steps, and the last quarter is predicted.
    Learning rates lower than all that a fit has seen are left out.

    Returns:
        None if nothing can be held out.
    """
    errors: list[float] = []
    for group in range(min(GROUPS, len(runs))):
        left_out = [
            run.part(np.arange(len(run.logs)) >= 2 * len(run.logs) // 3)
            for run in runs[group::GROUPS]
        ]
        others = [run for i, run in enumerate(runs) if i % GROUPS != group]
        errors += _mean_errors(law, others, left_out)
    seen = [run.part(run.features.steps <= SEEN) for run in runs]
    asked = [run.part(run.features.steps >= ASKED) for run in runs]
    errors += _mean_errors(law, [run for run in seen if len(run.logs) >= MIN_SEEN], asked)
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None


def _mean_errors(law: Law, seen: Sequence[Run], asked: Sequence[Run]) -> list[float]:
    """The mean error on each run of ``asked`` by a fit to ``seen``."""
    if not seen:
        return []
    lowest = min(run.rates.min() for run in seen) - DEEPER
    asked = [part for run in asked if len((part := run.part(run.rates >= lowest)).logs)]
    if not asked:
        return []
    theta = fitted(law, seen)
    return [float(np.mean(run.residuals(law, theta))) for run in asked]
