import dataclasses

import pytest
from conftest import mirrored, trial_record
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from budgetflow.config.search_space import choices, log_uniform, uniform
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.rounds.best_setting import binomial_interval, edges
from budgetflow.playbook.rounds.words import edge_sentences, winner_sentences

KEY = "validation_error_rate"
SELECTION = Selection(KEY, examples=270)


def trial(number, *errors):
    rows = [{"step": 10 * n, KEY: count / 270} for n, count in enumerate(errors, start=1)]
    return trial_record(number, Schedule(0.1, constant_steps=10 * len(errors)), rows)


@given(st.integers(1, 300), st.data())
def test_the_interval_is_exact(examples, data):
    count = data.draw(st.integers(0, examples))
    low, high = binomial_interval(count, examples)
    assert low <= count / examples <= high
    # At either end, what was seen or more of it has a probability of 2.5 %.
    assert count == 0 or binom.sf(count - 1, examples, low) == pytest.approx(0.025)
    assert count == examples or binom.cdf(count, examples, high) == pytest.approx(0.025)


def test_the_best_trials_figure_is_a_count_with_its_ties():
    trials = [trial(0, 9, 5), trial(1, 3, 1, 1), trial(2, 8, 1)]
    told = list(winner_sentences(trials, SELECTION))
    assert told == [
        "That is 1 of 270 validation examples wrong (95% interval of the rate: 0.01% to 2.05%); "
        "the best of many trials and steps is likely to be flattered.",
        "Trial 2 does as well; of equals, the one with the lowest number is taken.",
        "Trial 1 is as good at 2 of its evaluations: the first is taken.",
    ]
    accuracy = dataclasses.replace(SELECTION, higher_is_better=True)
    right = [dataclasses.replace(t, rows=[{**r, KEY: 1 - r[KEY]} for r in t.rows]) for t in trials]
    assert next(winner_sentences(right, accuracy)).startswith("That is 269 of 270 validation exa")


def test_a_metric_that_counts_no_examples_is_no_count():
    trials = [trial(0, 9, 5), trial(1, 3, 1)]
    assert list(winner_sentences(trials, Selection(KEY))) == []
    assert list(winner_sentences(mirrored(trials, KEY), SELECTION)) == []
    # As of a mean over tokens.
    between = [dataclasses.replace(trials[0], rows=[{"step": 10, KEY: 0.5 / 270}])]
    assert list(winner_sentences(between, SELECTION)) == []
    diverged = dataclasses.replace(trials[0], status="diverged")
    assert list(winner_sentences([diverged], SELECTION)) == []


def test_an_optimum_at_an_edge_is_told_for_every_hyperparameter():
    space = (
        log_uniform("schedule.base_learning_rate", 0.01, 1.0),
        uniform("optimizer.momentum", 0.8, 0.98),
        uniform("regularization.dropout_rate", 0.0, 0.4),
        choices("optimizer.b2", 0.9, 0.99, 0.999),
        choices("model.name", "a", "b", "c"),
    )
    inside = [0.1, 0.9, 0.2, 0.99, "a"]
    names = [dimension.name for dimension in space]
    assert edges(space, dict(zip(names, inside, strict=True))) == {}
    values = dict(zip(names, [0.011, 0.979, 0.2, 0.9, "a"], strict=True))
    at = edges(space, values)
    assert at == {
        "schedule.base_learning_rate": "low",
        "optimizer.momentum": "high",
        "optimizer.b2": "low",
    }
    rate, momentum, b2 = map(str, edge_sentences(space, values, at))
    assert momentum == (
        "THE BEST TRIAL'S optimizer.momentum, 0.979, IS AT THE HIGH END of what was searched "
        "(0.8 to 0.98; within 5% of it): better values may lie beyond it."
    )
    assert "(0.9 to 0.999): better" in b2 and "0.011, IS AT THE LOW END" in rate
