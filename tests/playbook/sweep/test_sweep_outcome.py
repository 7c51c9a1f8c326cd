import dataclasses
import math

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.sweep.policy import conclusion
from budgetflow.playbook.sweep.race import AfterFit, Race, SweepSettings, after_fit
from budgetflow.playbook.sweep.words import next_best

SETTINGS = SweepSettings((0.01, 0.1, 1.0), 1000, 8, 500, 20)
AFTER_THE_FIT = (0.0, 0.0, 0.0)


def trial(number, rate, errors, fitted_at_step=None, loss=1.0, **fields):
    """A trial with these error rates at steps 10, 20, …"""
    rows = [
        {"step": 10 * n, "train_error_rate": error, "train_loss": loss}
        for n, error in enumerate(errors, start=1)
    ]
    bracket = fitted_at_step and (fitted_at_step - 1, fitted_at_step)
    schedule = Schedule(rate, 0, 1000)
    return trial_record(number, schedule, rows, fitted_at_step_bracket=bracket, **fields)


def race_of(*others, after=AFTER_THE_FIT, at_boundary=False):
    """A race whose trial 0 fitted at step 25 and was trained on to step 50."""
    best = trial(0, 0.1, [0.5, 0.4, *after], 25)
    return Race((best, *others), best, at_boundary, 0)


def test_the_next_best_is_the_one_with_the_fewest_errors_then_the_lowest_loss():
    others = [
        trial(1, 0.01, [0.9, 0.6], loss=0.1),
        trial(2, 0.2, [0.9, 0.3], loss=2.0),
        trial(3, 1.0, [0.9, 0.3], loss=1.0),
        trial(4, 3.0, [0.9, 0.0], status="diverged"),
    ]
    assert next_best(SETTINGS, race_of(*others)) == (
        "The next best learning rate, 1, had 30.00% of the training examples wrong at step 20."
    )
    by_loss = dataclasses.replace(SETTINGS, fitted_train_loss=0.5)
    assert next_best(by_loss, race_of(*others)) == (
        "The next best learning rate, 0.01, had a training loss of 0.1 at step 20."
    )
    as_fast = trial(5, 0.5, [0.9, 0.9], 25)
    assert next_best(SETTINGS, race_of(*others, as_fast)) == (
        "Learning rate 0.5 fitted at the same step."
    )
    alone = race_of(trial(1, 0.01, [0.9]))
    assert next_best(SETTINGS, alone) == "No other trial came as far."


@pytest.mark.parametrize(
    ("after", "held", "worst"),
    [
        ((0.0, 0.0, 0.0), True, 0.0),
        ((0.0, 0.01, 0.0), False, 0.01),
        ((0.0, math.nan, 0.0), False, math.inf),
    ],
)
def test_whether_the_fit_held(after, held, worst):
    race = race_of(after=after)
    assert after_fit(SETTINGS, race.best) == AfterFit(held, 50, "train_error_rate", worst)
    assert conclusion(SETTINGS, {0: race}, race).fit_held is held


def test_nothing_is_known_of_a_fit_after_which_nothing_was_measured():
    race = race_of(after=())
    assert after_fit(SETTINGS, race.best) is None
    assert conclusion(SETTINGS, {0: race}, race).fit_held is None


@pytest.mark.parametrize(
    ("at_boundary", "threshold", "is_bad"),
    [(True, None, True), (False, None, False), (True, 0.1, False)],
)
def test_the_grid_is_bad_at_the_boundary_unless_a_fit_is_impossible(at_boundary, threshold, is_bad):
    settings = dataclasses.replace(SETTINGS, fitted_train_loss=threshold, lowest_train_loss=0.2)
    best = trial(0, 0.1, [0.5] * 100)
    race = Race((best,), best, at_boundary, 0)
    because = conclusion(settings, {0: race}, race).not_fitted_because
    assert because is not None
    assert (because == "bad_grid") is is_bad


def test_the_grid_is_bad_where_every_trial_diverged():
    race = Race((trial(0, 0.1, [math.nan], status="diverged"),), None, True, 0)
    assert conclusion(SETTINGS, {0: race}, race).not_fitted_because == "bad_grid"
    fitted = race_of(at_boundary=True)
    assert conclusion(SETTINGS, {0: fitted}, fitted).not_fitted_because is None
