import numpy as np
import pytest
from conftest import assert_identical, edited_config, run, small_config, start_trial

from budgetflow.schedules import Schedule
from budgetflow.training.mesh import make_mesh
from budgetflow.training.population import Population

NOISY = {"regularization__dropout_rate": 0.2, "augmentation__shift_pixels": 1.0}
RATES = (0.02, 0.05, 0.1)


def trials(digits, **fields):
    """Three trials that differ in learning rate and seed."""
    return {
        number: start_trial(
            digits,
            small_config(seed=number, **NOISY, **fields),
            Schedule(rate, constant_steps=80),
            checks_fit=True,
        )
        for number, rate in enumerate(RATES)
    }


def test_vectorized_trials_are_near_the_ones_alone(digits):
    together, alone = trials(digits), trials(digits)
    population = Population(make_mesh(small_config().mesh))
    measured = population.advance(together, 1)
    assert measured.keys() == together.keys()
    measured = population.advance(together, 40)
    for number, trial in alone.items():
        expected = trial.advance(40)
        assert together[number].step == 40 and int(together[number].state.step) == 40
        assert measured[number].row == pytest.approx(expected.row, rel=0.02, abs=0.01)
        kernel = ("hidden", 0, "kernel")
        ours, theirs = together[number].state.params, trial.state.params
        for key in kernel:
            ours, theirs = ours[key], theirs[key]
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_trials_that_cannot_share_a_call_are_the_ones_alone(digits):
    population = Population(make_mesh(small_config().mesh))
    ahead, alone = trials(digits), trials(digits)
    other = start_trial(digits, small_config(model__hidden_sizes=(17,)), Schedule(0.1, 0, 80))
    runs = {0: ahead[0], 1: ahead[1], 2: other}
    ahead[1].train(3)
    measured = population.advance(runs, 20)
    for number in (0, 1):
        assert measured[number] == alone[number].advance(20)
        assert_identical(ahead[number].state, alone[number].state)
    assert measured[2].row["step"] == 20


def test_a_vectorized_sweep_finds_a_near_answer_and_says_so(tmp_path):
    rates = (0.03162, 0.1, 0.1778, 0.3162)
    config = edited_config("lr_sweep", sweep__learning_rates=rates, mesh__vmap_trials=4)
    outcome, _ = run(config, tmp_path)
    assert outcome["status"] == "found"
    # On one seed the number moves by a tenth with the rounding.
    assert outcome["max_train_steps"] == pytest.approx(257, rel=0.2)
    assert outcome["vmap_trials"] == 4
    assert any("vectorized" in reason for reason in outcome["reasons"])
