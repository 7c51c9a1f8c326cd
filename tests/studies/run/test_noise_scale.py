"""Gradient noise of linear regression, where Σ and G are known in closed form."""

import dataclasses

import numpy as np
import pytest
from conftest import assert_identical, small_config, start_trial
from test_own_parts import config_of_own_parts, open_split

from budgetflow.config import parse_config
from budgetflow.config.keys import replace_fields
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.comparison.gradient_noise import NoiseSample, noise_scale
from budgetflow.studies.run.noise_scale import BATCHES, MOST_EXAMPLES, gradient_products
from budgetflow.studies.study import study_dataset

SCHEDULE = Schedule(0.02, constant_steps=100)


def measured(run, repetitions, batch_size):
    """The estimates of tr(Σ) and |G|² at a trial's state, one for each seed."""
    points = []
    for seed in range(repetitions):
        found = gradient_products(run, seed, batch_size)
        sample = NoiseSample(run.step, **dataclasses.asdict(found))
        points += noise_scale([sample]).points
    return np.array([[p.covariance_trace, p.squared_gradient_norm] for p in points])


def plane(batch_size=20, **fields):
    config = config_of_own_parts()
    config.data.batch_size = batch_size
    config.update_from_flattened_dict(fields)
    parsed = parse_config(config)
    return start_trial(study_dataset(parsed), parsed, SCHEDULE)


def closed_form(run, noise=0.0):
    """tr(Σ) and |G|² of the loss (w · (x + noise · e) + b - y)², e standard normal."""
    examples = open_split("train")
    x, y = (np.stack([e[name] for e in examples]).astype(float) for name in ("x", "y"))
    linear = run.state.params["linear"]
    w, b = np.asarray(linear["kernel"])[:, 0].astype(float), float(linear["bias"][0])
    x = np.hstack([x, np.ones((len(x), 1))])
    w = np.append(w, b)
    residual = x @ w - y
    mean = (residual[:, None] * x).mean(axis=0)
    second = (residual**2 * (x**2).sum(axis=1)).mean()
    if noise:
        # z = x + s e on the inputs, r' = r + s w·e: E[r' z] and E[r'² |z|²] over e.
        v, s2, d = w[:-1], noise**2, len(w) - 1
        mean[:-1] += s2 * v
        second = (
            (residual**2 + s2 * v @ v) * ((x**2).sum(axis=1) + s2 * d)
            + 4 * s2 * residual * (x[:, :-1] @ v)
            + 2 * s2**2 * v @ v
        ).mean()
    # The loss is optax's squared error, without the half: its gradient is twice r z.
    return 4 * (second - mean @ mean), 4 * (mean @ mean)


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("step", [0, 10])
def test_linear_regression(noise, step):
    run = plane(**{"regularization.input_noise": noise})
    run.train(step)
    found = measured(run, 20, 20)
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    truth = closed_form(run, noise)
    assert (np.abs(found.mean(axis=0) - truth) < 4 * errors).all()
    # So close that another formula would be seen.
    assert (errors < 0.2 * np.array(truth)).all()


@pytest.mark.slow
def test_larger_batches_are_measured_by_smaller_ones_and_parts_do_not_matter():
    run = plane(batch_size=100, gradient_accumulation=5)
    found = gradient_products(run, 0, 100)
    assert found.batch_size == MOST_EXAMPLES
    assert len(found.squared_norms) == len(found.projections) == BATCHES
    assert found == gradient_products(plane(batch_size=100), 0, 100)


def noisy(dataset, dropout_rate, noise_std):
    """A trial of a program with dropout and augmentation, however strong."""
    strengths = {"regularization.dropout_rate": dropout_rate, "augmentation.noise_std": noise_std}
    config = replace_fields(small_config(), strengths)
    return start_trial(dataset, config, SCHEDULE, frozenset(strengths))


@pytest.mark.slow
def test_measuring_leaves_the_trial_as_it_was(digits):
    run, other = noisy(digits, 0.3, 0.1), noisy(digits, 0.3, 0.1)
    run.train(5)
    first = gradient_products(run, 0, 64)
    assert first == gradient_products(run, 0, 64) != gradient_products(run, 1, 64)
    run.train(12)
    other.train(12)
    assert_identical(run.state, other.state)


def test_dropout_and_augmentation_are_noise(digits):
    traces = [
        measured(noisy(digits, *strengths), 3, 64)[:, 0].mean()
        for strengths in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5))
    ]
    assert min(traces[1:]) > 1.05 * traces[0]


def test_streamed_data_give_the_same(digits, streamed_digits):
    found = [
        gradient_products(start_trial(data, small_config(), SCHEDULE), 0, 32)
        for data in (digits, streamed_digits)
    ]
    np.testing.assert_allclose(*(f.squared_norms for f in found), rtol=1e-5)
