"""Laws of the loss: what a step count and the learning rates so far say about the loss.

All are ``floor + size * progress ** -exponent - annealing``, and differ in what counts as progress
and in what a decay of the learning rate gives:

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

import numpy as np

# Into how many drops a schedule is gathered: the annealing term costs drops times evaluations.
MAX_DROPS = 100
# Relative to the highest: what the learning rate of a drop counts as at least, a decay to zero's
# last ones too.
LEAST_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Features:
    """What the laws read at each of some evaluations, of one run or of several.

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
        fields = dataclasses.fields(self)
        return Features(**{field.name: getattr(self, field.name)[kept] for field in fields})


def features(
    steps: np.ndarray, learning_rates: np.ndarray, longest: float, highest: float
) -> Features:
    """What the laws read at ``steps`` of a run with these learning rates, one for each update.

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
    """The features of several runs, one after the other; to shorter schedules go drops of 0."""
    width = max(part.drops.shape[1] for part in parts)

    def column(name: str) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0].ndim == 1:
            return np.concatenate(arrays)
        fill = 1.0 if name == "rates" else 0.0
        padded = [
            np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays
        ]
        return np.concatenate(padded)

    return Features(**{field.name: column(field.name) for field in dataclasses.fields(Features)})


def _gathered(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the learning rate fell after its peak, how far, and the learning rate after it."""
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
    return _power(floor, size, exponent, run.rate_sums) - np.exp(gain) * np.sum(
        effect * run.drops, axis=1
    )


def _multi_power(theta: np.ndarray, run: Features) -> np.ndarray:
    floor, size, exponent, gain, speed, power, rate_power = theta
    progress = run.rate_sums_since * np.exp(speed - rate_power * np.log(run.rates))
    effect = 1 - np.exp(-np.exp(power) * np.log1p(progress))
    return _power(floor, size, exponent, run.rate_sums) - np.exp(gain) * np.sum(
        effect * run.drops, axis=1
    )


@dataclasses.dataclass(frozen=True)
class Law:
    """A law of the loss, with what is known of its parameters before any curve is seen.

    Positive parameters are given as logarithms.

    Attributes:
        loss: the relative losses of a run by parameters and features.
        expected, spread: mean and standard deviation of each parameter beforehand; wide, so that
            they decide only what the curves leave open.
        anneals: whether it knows of learning rates.
        handicap: how many times its error on what was held out counts. Two laws often win narrowly
            there and are worse at three times the steps: the one that knows no learning rates, and
            the one with the most parameters.
        widening: how many times as wide an interval is as resampling, residuals and held-out error
            say. experiments/forecasts/README.md has the coverage that it was chosen by.
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
