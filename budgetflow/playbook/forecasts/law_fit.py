"""Fitting a law of the loss to curves, and what it misses on evaluations that it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from budgetflow.playbook.forecasts.loss_laws import Features, Law, joined

# What a law is taken to miss, whatever the noise between evaluations: 0.2 % of the loss.
LAW_ERROR = 0.002
# Residuals beyond this many noises count by their size, not by its square.
ROBUST_FROM = 3.0
# Starts besides the expected parameters.
STARTS = 2
MAX_TRIES = 100
# How much deeper a decay can be told from shallower ones, in shares of the highest learning rate.
DEEPER = 0.15
# Runs are left out in this many groups at most.
GROUPS = 5
# Held out forwards: the laws see the first part of the steps and are asked for the last one.
SEEN, ASKED = 0.5, 0.75
MIN_SEEN = 6


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


def noise(runs: Sequence[Run]) -> float:
    """The noise between neighbouring evaluations, as a standard deviation; never below a law's."""
    bends = np.abs(np.concatenate([np.diff(run.logs, 2) for run in runs]))
    # A second difference has six times the variance; a normal's median is at 0.6745.
    measured = np.median(bends) / 0.6745 / np.sqrt(6) if len(bends) else 0.0
    return float(max(measured, LAW_ERROR))


def predicted(law: Law, theta: np.ndarray, features: Features) -> np.ndarray:
    """The logarithms of the relative losses by a law; a loss below a thousandth counts as that."""
    return np.log(np.maximum(law.loss(theta, features), 1e-3))


def fitted(
    law: Law,
    runs: Sequence[Run],
    weights: Sequence[float] | np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """The parameters that fit runs best, by robust least squares of the losses' logarithms.

    Args:
        law: which one.
        runs: at least one, with evaluations.
        weights: of the runs' evaluations; 1 each by default.
        start: near where the parameters are known to be; otherwise several are tried.
    """
    from scipy.optimize import least_squares  # takes a moment, which not every launch needs

    expected, spread = np.array(law.expected), np.array(law.spread)
    lengths = [len(run.logs) for run in runs]
    scale = np.sqrt(np.repeat(np.ones(len(runs)) if weights is None else weights, lengths))
    features = joined([run.features for run in runs])
    logs = np.concatenate([run.logs for run in runs])
    unit = noise(runs)

    def residuals(theta: np.ndarray) -> np.ndarray:
        off = scale * _softened((predicted(law, theta, features) - logs) / unit)
        return np.concatenate([off, (theta - expected) / spread])

    starts = [start] if start is not None else _starts(expected, spread)
    found = [least_squares(residuals, s, x_scale=spread, max_nfev=MAX_TRIES) for s in starts]
    return min(found, key=lambda result: result.cost).x


def _starts(expected: np.ndarray, spread: np.ndarray) -> list[np.ndarray]:
    draws = np.random.default_rng(0).standard_normal((STARTS, len(expected)))
    return [expected, *(expected + 0.7 * spread * draw for draw in draws)]


def _softened(residuals: np.ndarray) -> np.ndarray:
    """Residuals whose squares are soft-L1 costs."""
    scaled = residuals / ROBUST_FROM
    # (1 + x²)^½ - 1, written so that small residuals keep their digits.
    cost = scaled**2 / (np.sqrt(1 + scaled**2) + 1)
    return ROBUST_FROM * np.sqrt(2 * cost) * np.sign(residuals)


def held_out_error(law: Law, runs: Sequence[Run]) -> float | None:
    """What a law misses where it was not fitted, as a root mean square of relative errors.

    The runs are left out one after the other, or in groups where they are many, and the last third
    of each asked for; then all are cut at half of the steps, and the last quarter asked for.
    Learning rates lower than all that a fit has seen are not asked for.

    Returns:
        None if nothing can be held out.
    """
    errors = []
    for group in range(min(GROUPS, len(runs))):
        left_out = [run.part(_last_third(run)) for run in runs[group::GROUPS]]
        others = [run for i, run in enumerate(runs) if i % GROUPS != group]
        errors += _misses(law, others, left_out)
    seen = [run.part(run.features.steps <= SEEN) for run in runs]
    asked = [run.part(run.features.steps >= ASKED) for run in runs]
    errors += _misses(law, [run for run in seen if len(run.logs) >= MIN_SEEN], asked)
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None


def _last_third(run: Run) -> np.ndarray:
    return np.arange(len(run.logs)) >= 2 * len(run.logs) // 3


def _misses(law: Law, seen: Sequence[Run], asked: Sequence[Run]) -> list[float]:
    """The mean error on each of the runs that are asked for, as far as they can be."""
    if not seen:
        return []
    lowest = min(run.rates.min() for run in seen) - DEEPER
    asked = [run.part(run.rates >= lowest) for run in asked]
    asked = [run for run in asked if len(run.logs)]
    if not asked:
        return []
    theta = fitted(law, seen)
    return [float(np.mean(predicted(law, theta, run.features) - run.logs)) for run in asked]
