import jax
import numpy as np
import pytest
from conftest import small_config

from budgetflow.errors import ConfigError
from budgetflow.schedules import Schedule
from budgetflow.training.program import program_spec
from budgetflow.training.trial_run import TrialRun


def spec_of(digits, **fields):
    return program_spec(small_config(**fields), digits, frozenset(), False)


def test_trials_that_differ_in_numbers_share_a_program(digits):
    varied = frozenset({"regularization.dropout_rate", "augmentation.noise_std"})
    specs = {
        program_spec(small_config(**fields), digits, varied, False)
        for fields in (
            {},
            {"seed": 3, "schedule__base_learning_rate": 0.7, "optimizer__momentum": 0.5},
            {"regularization__dropout_rate": 0.2, "augmentation__noise_std": 0.1},
            {"regularization__weight_decay": 0.1, "max_train_steps": 99},
        )
    }
    assert len(specs) == 1
    assert spec_of(digits, model__hidden_sizes=(8,)) not in specs
    assert spec_of(digits, optimizer__nesterov=True) not in specs


def test_a_study_compiles_its_train_step_once(digits):
    compiled = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    varied = frozenset({"regularization.dropout_rate"})

    def train(rate, dropout, seed, steps):
        config = small_config(
            regularization__dropout_rate=dropout,
            seed=seed,
            # A width that no other test uses, so that nothing is compiled already.
            model__hidden_sizes=(13,),
        )
        run = TrialRun(config, Schedule(rate, constant_steps=steps), digits, varied, False)
        return run.advance(steps)

    train(0.1, 0.1, 0, 3)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in range(3):
            train(0.05 * (seed + 1), 0.2 * seed, seed, 5 + seed)
        assert compiled == []
        # The listener hears of a compilation when there is one.
        jax.jit(lambda x: x * 17.25)(1.0)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__hidden_size": (8,)}, "did you mean 'hidden_sizes'"),
        ({"model__hidden_sizes": (8, "x")}, "does not work on inputs"),
        ({"model__name": "budgetflow.models.MPL"}, "did you mean 'MLP'"),
        ({"model__rngs": 1}, "config.model.rngs is not an option"),
        ({"task__classes": 3}, "did you mean 'num_classes'"),
        ({"task__num_classes": 0.5}, "config.model"),
        ({"augmentation__shift": 1.0}, "did you mean 'shift_pixels'"),
        ({"augmentation__name": "optax.sgd"}, "not an option of optax"),
        ({"regularization__stochastic_depth": 0.1}, "stochastic_depth is on, but neither"),
        ({"evaluation__selection_metric": "losss"}, "did you mean 'loss'"),
    ],
)
def test_a_name_or_argument_that_does_not_fit_is_refused(digits, fields, message):
    with pytest.raises(ConfigError, match=message):
        spec_of(digits, **fields)


def brute_force_fit(digits, rate, steps):
    """The first step at which no training example is misclassified, by looking at all of them."""
    run = TrialRun(
        small_config(model__hidden_sizes=(64,)),
        Schedule(rate, constant_steps=steps),
        digits,
        frozenset(),
        False,
    )
    for step in range(1, steps + 1):
        if run.advance(step).row["train_error_rate"] == 0:
            return step
    return None


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_the_fit_is_noticed_at_the_first_step_of_a_perfect_fit(digits, rate):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = TrialRun(config, Schedule(rate, constant_steps=600), digits, frozenset(), True)
    bracket = run.advance(600).fitted_at_step_bracket
    assert bracket is not None
    assert brute_force_fit(digits, rate, 600) == bracket[1] == bracket[0] + 1


def test_no_fit_is_noticed_where_there_is_none(digits):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = TrialRun(config, Schedule(1e-4, constant_steps=40), digits, frozenset(), True)
    measurement = run.advance(40)
    assert measurement.fitted_at_step_bracket is None
    assert measurement.row["train_error_rate"] > 0
    assert np.isfinite(measurement.row["train_loss"])
