import jax
import numpy as np
import pytest
from conftest import small_config, start_trial

from budgetflow.schedules import Schedule


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
        run = start_trial(digits, config, Schedule(rate, constant_steps=steps), varied)
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


def brute_force_fit(digits, rate, steps):
    """The first step at which no training example is misclassified, by looking at all of them."""
    config = small_config(model__hidden_sizes=(64,))
    run = start_trial(digits, config, Schedule(rate, constant_steps=steps))
    for step in range(1, steps + 1):
        if run.advance(step).row["train_error_rate"] == 0:
            return step
    return None


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_the_fit_is_noticed_at_the_first_step_of_a_perfect_fit(digits, rate):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = start_trial(digits, config, Schedule(rate, constant_steps=600), checks_fit=True)
    bracket = run.advance(600).fitted_at_step_bracket
    assert bracket is not None
    assert brute_force_fit(digits, rate, 600) == bracket[1] == bracket[0] + 1


def test_no_fit_is_noticed_where_there_is_none(digits):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = start_trial(digits, config, Schedule(1e-4, constant_steps=40), checks_fit=True)
    measurement = run.advance(40)
    assert measurement.fitted_at_step_bracket is None
    assert measurement.row["train_error_rate"] > 0
    assert np.isfinite(measurement.row["train_loss"])
