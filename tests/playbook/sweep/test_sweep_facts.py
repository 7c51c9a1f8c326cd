import dataclasses
import math

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.sweep.facts import AfterFit, NextBest, sweep_facts
from budgetflow.playbook.sweep.race import Race, SweepSettings

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


def found(*others, after=AFTER_THE_FIT, settings=SETTINGS, at_boundary=False):
    """The facts of a race whose trial 0 fitted at step 25 and was trained on to step 50."""
    best = trial(0, 0.1, [0.5, 0.4, *after], 25)
    race = Race((best, *others), best, at_boundary, 0)
    return sweep_facts(settings, {0: race}, race)


def test_the_next_best_is_the_one_with_the_fewest_errors_then_the_lowest_loss():
    others = [
        trial(1, 0.01, [0.9, 0.6], loss=0.1),
        trial(2, 0.2, [0.9, 0.3], loss=2.0),
        trial(3, 1.0, [0.9, 0.3], loss=1.0),
        trial(4, 3.0, [0.9, 0.0], status="diverged"),
    ]
    assert found(*others).next_best == NextBest(1.0, "train_error_rate", 0.3, 20)
    by_loss = dataclasses.replace(SETTINGS, fitted_train_loss=0.5)
    assert found(*others, settings=by_loss).next_best == NextBest(0.01, "train_loss", 0.1, 20)
    as_fast = trial(5, 0.5, [0.9, 0.9], 25)
    assert found(*others, as_fast).next_best == NextBest(0.5)
    assert found(trial(1, 0.01, [0.9])).next_best is None


@pytest.mark.parametrize(
    ("after", "held", "worst"),
    [
        ((0.0, 0.0, 0.0), True, 0.0),
        ((0.0, 0.01, 0.0), False, 0.01),
        ((0.0, math.nan, 0.0), False, math.inf),
    ],
)
def test_whether_the_fit_held(after, held, worst):
    assert found(after=after).after_fit == AfterFit(held, 50, "train_error_rate", worst)


def test_nothing_is_known_of_a_fit_after_which_nothing_was_measured():
    assert found(after=()).after_fit is None


@pytest.mark.parametrize(
    ("at_boundary", "threshold", "is_bad"),
    [(True, None, True), (False, None, False), (True, 0.1, False)],
)
def test_the_grid_is_bad_at_the_boundary_unless_a_fit_is_impossible(at_boundary, threshold, is_bad):
    settings = dataclasses.replace(SETTINGS, fitted_train_loss=threshold, lowest_train_loss=0.2)
    best = trial(0, 0.1, [0.5] * 100)
    race = Race((best,), best, at_boundary, 0)
    facts = sweep_facts(settings, {0: race}, race)
    assert facts.grid_is_bad is is_bad
    assert facts.reading is not None


def test_the_grid_is_bad_where_every_trial_diverged():
    race = Race((trial(0, 0.1, [math.nan], status="diverged"),), None, True, 0)
    assert sweep_facts(SETTINGS, {0: race}, race).grid_is_bad
    assert not found(at_boundary=True).grid_is_bad
