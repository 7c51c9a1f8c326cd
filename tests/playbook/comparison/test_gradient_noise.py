import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.comparison.gradient_noise import (
    NoisePoint,
    NoiseSample,
    NoiseScale,
    _estimates,
    noise_scale,
    student_t,
)
from budgetflow.playbook.comparison.policy import predicted_factor


def sampled(generator, gradient, deviation, batch_size, batches=16, step=0):
    """Batches of normal gradients: G = ``gradient``, Σ = ``deviation``² on every coordinate."""
    noise = generator.normal(size=(batches, len(gradient))) * deviation / math.sqrt(batch_size)
    found = gradient + noise
    mean = found.mean(axis=0)
    norms = tuple((found**2).sum(axis=1).tolist())
    return NoiseSample(step, batch_size, norms, tuple((found @ mean).tolist()))


def test_the_estimates_are_those_of_two_batch_sizes():
    sample = sampled(np.random.default_rng(0), np.full(5, 0.1), 1.0, batch_size=8, batches=4)
    small, big = 8, 32
    of_small, of_big = np.mean(sample.squared_norms), np.mean(sample.projections)
    # McCandlish et al., appendix A.1, as printed.
    norm = (big * of_big - small * of_small) / (big - small)
    trace = (of_small - of_big) / (1 / small - 1 / big)
    assert _estimates(sample) == pytest.approx((trace, norm))


def test_the_estimates_are_unbiased():
    generator, gradient = np.random.default_rng(1), np.full(20, 0.05)
    found = [_estimates(sampled(generator, gradient, 1.0, 4)) for _ in range(4000)]
    means, errors = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(len(found))
    # tr(Σ) = 20, |G|² = 0.05.
    assert (np.abs(means - [20.0, 0.05]) < 4 * errors).all()
    # |m|² of 64 examples is seven times |G|²; without the correction this test would fail.
    assert 0.05 + 4 * errors[1] < 0.05 + 20 / 64


def test_the_scale_is_the_ratio_of_means():
    generator = np.random.default_rng(2)
    # Scales of 1 and of 100, where the gradient is large and small.
    samples = [
        sampled(generator, np.full(100, size), 1.0, 400, batches=32, step=step)
        for step, size in ((10, 1.0), (20, 0.1))
    ]
    found = noise_scale(samples)
    # (100 + 100) / (100 + 1), not (1 + 100) / 2.
    assert found.examples == pytest.approx(200 / 101, rel=0.05)
    assert [point.step for point in found.points] == [10, 20]


def test_the_interval_holds_the_scale_as_often_as_it_says():
    generator, held, trials = np.random.default_rng(3), 0, 400
    for _ in range(trials):
        samples = [
            sampled(generator, np.full(30, g), 1.0, 8, batches=32, step=step)
            for step, g in enumerate((0.3, 0.2))
        ]
        found = noise_scale(samples)
        truth = 60 / (30 * (0.09 + 0.04))
        held += found.high is not None and found.low <= truth <= found.high
    # 95 %, and what 400 trials can differ from it.
    assert 0.91 <= held / trials <= 0.99


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_where_there_is_no_gradient_the_scale_cannot_be_told(seed):
    generator = np.random.default_rng(seed)
    found = noise_scale([sampled(generator, np.zeros(50), 1.0, 8, batches=32)])
    # By chance, in one of 40 cases, the gradient seems to differ from 0.
    if found.examples is None:
        assert found.high is None and found.low > 0
    else:
        assert found.examples > 50


def scale(examples, low, high):
    point = NoisePoint(step=1, covariance_trace=1.0, squared_gradient_norm=1.0)
    return NoiseScale(examples=examples, low=low, high=high, points=(point,))


def test_the_predicted_factor_is_equation_2_11():
    known = scale(64.0, 32.0, 128.0)
    found = predicted_factor(known, 128, known, 32)
    assert found.factor == pytest.approx((1 + 64 / 32) / (1 + 64 / 128))
    assert found.low < found.factor < found.high
    # d log(1 + x) = x / (1 + x) d log x, of both sides.
    half = math.log(2) * math.hypot(2 / 3, 0.5 / 1.5)
    assert found.high / found.factor == pytest.approx(math.exp(half))
    assert predicted_factor(known, 32, known, 32).factor == 1
    assert predicted_factor(known, 32, scale(None, 10.0, None), 32) is None


def test_student_t():
    # As in any table.
    assert student_t(2) == pytest.approx(4.303, abs=1e-3)
    assert student_t(30) == pytest.approx(2.042, abs=1e-3)
