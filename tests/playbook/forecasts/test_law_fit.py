import numpy as np
import pytest
from test_laws import CONSTANT, DECAYING, THETA

from budgetflow.playbook.forecasts.laws import (
    LAW_ERROR,
    LAWS,
    Run,
    features,
    fitted,
    held_out_error,
    noise,
    predicted,
)

STEPS = np.arange(100, 1001, 20)


def run(name, schedule, sd=0.0, seed=0):
    rates = schedule.learning_rates().astype(float)
    seen = features(STEPS, rates, 1000, 0.3)
    logs = np.log(LAWS[name].loss(np.array(THETA[name]), seen))
    logs = logs + sd * np.random.default_rng(seed).standard_normal(len(STEPS))
    return Run(seen, logs, rates[STEPS - 1] / 0.3)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_fits_what_follows_it(name):
    runs = [run(name, CONSTANT), run(name, DECAYING)]
    theta = fitted(LAWS[name], runs)
    for one in runs:
        assert predicted(LAWS[name], theta, one.features) == pytest.approx(one.logs, abs=1e-3)


def test_parameters_are_recovered():
    runs = [run("momentum", CONSTANT, 1e-4), run("momentum", DECAYING, 1e-4)]
    theta = fitted(LAWS["momentum"], runs)
    assert theta == pytest.approx(np.array(THETA["momentum"]), abs=0.15)


def test_one_wild_evaluation_moves_little():
    runs = [run("momentum", CONSTANT), run("momentum", DECAYING)]
    runs[0].logs[10] += 0.5
    theta = fitted(LAWS["momentum"], runs)
    right = run("momentum", DECAYING)
    assert predicted(LAWS["momentum"], theta, right.features)[-1] == pytest.approx(
        right.logs[-1], abs=5e-3
    )


def test_a_run_without_weight_does_not_count():
    wrong = run("momentum", CONSTANT)
    wrong = Run(wrong.features, wrong.logs + 1.0, wrong.rates)
    theta = fitted(LAWS["momentum"], [run("momentum", DECAYING), wrong], weights=[2.0, 0.0])
    right = run("momentum", DECAYING)
    assert predicted(LAWS["momentum"], theta, right.features) == pytest.approx(right.logs, abs=2e-3)


def test_noise_is_measured_and_never_below_a_laws_own():
    assert noise([run("momentum", CONSTANT).logs]) == LAW_ERROR
    assert noise([run("momentum", CONSTANT, 0.02).logs]) == pytest.approx(0.02, rel=0.5)


def test_the_right_law_misses_least_of_what_is_held_out():
    runs = [run("momentum", CONSTANT, 1e-3, 1), run("momentum", DECAYING, 1e-3, 2)]
    errors = {name: held_out_error(law, runs) for name, law in LAWS.items()}
    assert errors["momentum"] < errors["steps"]
    assert errors["momentum"] < 0.01


def test_nothing_can_be_held_out_of_one_short_run():
    one = run("steps", CONSTANT)
    few = one.part(np.arange(len(one.logs)) < 5)
    assert held_out_error(LAWS["steps"], [few]) is None
