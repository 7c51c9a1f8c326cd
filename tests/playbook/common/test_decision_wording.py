import dataclasses

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.decision_words import joining_in_words, trials_in_words
from budgetflow.playbook.common.measurement import LEARNING_RATE as RATE

KNOWN = {
    number: dataclasses.replace(trial_record(number, Schedule(rate, 0, 9)))
    for number, rate in enumerate((0.01, 0.1, 1.0))
}


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3], "trial 3"),
        ([7, 2], "trials 2 and 7"),
        ([1, 2], "trials 1 and 2"),
        ([2, 0, 1], "trials 0 to 2"),
        ([1, 5, 9], "trials 1, 5 and 9"),
        ([1, 5, 9, 11, 30], "5 trials"),
    ],
)
def test_trials(numbers, text):
    assert trials_in_words(numbers) == text


@pytest.mark.parametrize(
    ("joining", "text"),
    [
        ({3: {RATE: 3.0}}, "trial 3 joins: learning rate 3, above all tried before"),
        (
            {3: {RATE: 0.001}, 4: {RATE: 0.003}},
            "trials 3 and 4 join: learning rates 0.001 and 0.003, below all tried before",
        ),
        (
            {3: {RATE: 0.05}, 4: {RATE: 0.05, "seed": 1}},
            "trials 3 and 4 join: learning rate 0.05, between those tried before",
        ),
        ({3: {"seed": 1}}, "trial 3 joins"),
        ({3: {RATE: 3.0, "optimizer.momentum": 0.5}}, "trial 3 joins"),
        ({number: {RATE: number} for number in range(3, 9)}, "trials 3 to 8 join"),
    ],
)
def test_trials_that_join(joining, text):
    assert joining_in_words(joining, KNOWN) == text
