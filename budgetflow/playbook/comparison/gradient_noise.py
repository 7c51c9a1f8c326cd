"""The simple gradient-noise scale, and the factor in steps that it predicts for a change.

McCandlish, Kaplan, Amodei and the OpenAI Dota team, "An Empirical Model of Large-Batch Training"
(arXiv:1812.06162): B_simple = tr(Σ) / |G|², with G the gradient over all data and Σ the covariance
of a single example's. Appendix A.1 has unbiased estimates of |G|² and tr(Σ) from gradients at two
batch sizes; their ratio is biased, so each is averaged first. Equation 2.11: training with batches
of B examples takes S_min · (1 + B_noise / B) steps, where S_min is the number without any noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Of all intervals here.
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class NoiseSample:
    """Gradients of independent batches at one state, each with its own random numbers.

    Attributes:
        step: the state's.
        batch_size: the examples of each batch.
        squared_norms: |g_i|² of each batch's gradient.
        projections: g_i · m, with m the mean of these gradients.
    """

    step: int
    batch_size: int
    squared_norms: tuple[float, ...]
    projections: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePoint:
    """The estimates at one state; that of |G|² may be negative, since it is unbiased.

    Attributes:
        step: the state's.
        covariance_trace: of tr(Σ).
        squared_gradient_norm: of |G|².
    """

    step: int
    covariance_trace: float
    squared_gradient_norm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """The noise scale of a configuration, over some points of its training.

    Attributes:
        examples: the scale, in examples: mean tr(Σ) over mean |G|². None where |G|² cannot be told
            from 0, so that the noise scale may be anything above ``low``.
        low, high: 95 % interval, of the measurement at these points.
        points: the estimates at each.
    """

    examples: float | None
    low: float
    high: float | None
    points: tuple[NoisePoint, ...]


def noise_scale(samples: Sequence[NoiseSample]) -> NoiseScale:
    """The noise scale over some states: the ratio of the means, not the mean of ratios.

    The interval is by the jackknife over batches (the i-th left out at all states at once) on the
    logarithm of the ratio, with Student's t. It says how well the scale is measured at these
    states; other states of the training have other ones.

    Args:
        samples: as many batches at each state, two or more.
    """
    count = len(samples[0].squared_norms)
    estimates = [_estimates(sample) for sample in samples]
    trace, norm = np.mean(estimates, axis=0)
    # [2, batches]: both means without each batch.
    without = np.mean([_leaving_one_out(sample) for sample in samples], axis=0)
    quantile = student_t(count - 1)
    norm_error = _jackknife_error(without[1])
    points = tuple(
        NoisePoint(step=sample.step, covariance_trace=t, squared_gradient_norm=g)
        for sample, (t, g) in zip(samples, estimates, strict=True)
    )
    if norm <= quantile * norm_error or without[1].min() <= 0 or without[0].min() <= 0:
        most = max(norm, 0.0) + quantile * norm_error
        low = float(max(trace, 0.0) / most) if most > 0 else 0.0
        return NoiseScale(examples=None, low=low, high=None, points=points)
    error = _jackknife_error(np.log(without[0] / without[1]))
    scale = float(trace / norm)
    return NoiseScale(
        examples=scale,
        low=scale * math.exp(-quantile * error),
        high=scale * math.exp(quantile * error),
        points=points,
    )


def student_t(degrees_of_freedom: int) -> float:
    """How many standard errors an interval of :data:`CONFIDENCE` reaches to each side."""
    from scipy.special import stdtrit  # takes a moment, which not every launch needs

    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))


def _estimates(sample: NoiseSample) -> tuple[float, float]:
    """Unbiased estimates of tr(Σ) and |G|²."""
    # The mean of projections is |m|².
    small, big = np.mean(sample.squared_norms), np.mean(sample.projections)
    trace, norm = _unbiased(len(sample.squared_norms), sample.batch_size, small, big)
    return float(trace), float(norm)


def _leaving_one_out(sample: NoiseSample) -> np.ndarray:
    """:func:`_estimates` without each batch, [2, batches]."""
    norms, projections = np.array(sample.squared_norms), np.array(sample.projections)
    count = len(norms)
    small = (norms.sum() - norms) / (count - 1)
    # |m|² of the others: their sum is K·m - g_i.
    big = (count**2 * projections.mean() - 2 * count * projections + norms) / (count - 1) ** 2
    return np.stack(_unbiased(count - 1, sample.batch_size, small, big))


def _unbiased(count: int, size: int, small: Any, big: Any) -> tuple[Any, Any]:
    """Estimates of tr(Σ) and |G|²: appendix A.1, with batches of B and of all B·K examples.

    Args:
        count: K, the number of batches.
        size: B, the examples of each.
        small, big: the mean of |g_i|² over the batches, and |m|² of their mean.
    """
    return size * (small - big) * count / (count - 1), (count * big - small) / (count - 1)


def _jackknife_error(without: np.ndarray) -> float:
    """The standard error of an estimate, from its values without each of its data."""
    count = len(without)
    return float(np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2)))
