"""The status of a study, from records made by hand."""

import dataclasses
import math

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import PARTIAL, Selection
from budgetflow.results.study_status import (
    counts_in_words,
    leader_in_words,
    status_in_words,
    steps_in_words,
    study_status,
)

ERROR = Selection("validation_error_rate", examples=200)
ACCURACY = Selection("validation_accuracy", higher_is_better=True)


def trial(number, *values, length=100, key=ERROR.key, rate=0.1, **fields):
    """A trial that was evaluated every ten steps; by the selection metric, or by its loss."""
    rows = [{"step": 10 * (i + 1), key: value} for i, value in enumerate(values)]
    selection = Selection(key, key == ACCURACY.key)
    best = selection.best(rows) if key != "train_loss" else None
    fields = {"status": "running", "best_step": best["step"] if best else None, **fields}
    return trial_record(number, Schedule(rate, 0, length), rows, **fields)


def test_what_is_done_and_to_come_is_counted():
    """Steps that were taken over are not trained; one that diverged trains no more."""
    records = [
        trial(0, 0.5, 0.4, status="complete", length=20),
        trial(1, 0.5, 0.3, steps_reused=10),
        trial(2, math.inf, status="diverged"),
    ]
    status = study_status(records, ERROR, later_steps=[40])
    assert (status.trials, status.over) == (4, 2)
    assert (status.diverged, status.training) == ((2,), (1,))
    assert (status.steps_done, status.steps_total) == (20 + 10 + 10, 20 + 90 + 10 + 40)
    assert steps_in_words(status) == "40 of 160 steps"
    assert counts_in_words(status) == "2 of 4 trials over, 1 begun, trial 2 diverged"


def test_the_best_leads_by_its_best_step():
    records = [trial(0, 0.5, 0.4), trial(1, 0.03, 0.2), trial(2, 0.03), trial(3)]
    status = study_status(records, ERROR)
    assert [t.trial for t, _ in status.ranked] == [1, 2, 0]
    assert leader_in_words(status, ERROR) == (
        "trial 1 leads: validation error rate 0.03 (6 of 200) at step 10"
    )


def test_of_an_accuracy_the_highest_leads():
    records = [trial(n, value, key=ACCURACY.key) for n, value in enumerate((0.5, 0.9, 0.7))]
    status = study_status(records, ACCURACY)
    assert leader_in_words(status, ACCURACY) == (
        "trial 1 leads: validation accuracy 0.9 at step 10"
    )


def test_nobody_leads_before_anything_is_measured():
    status = study_status([trial(0), trial(1)], ERROR)
    assert leader_in_words(status, ERROR) is None
    assert counts_in_words(status) == "0 of 2 trials over, 2 begun"


def race(**fields):
    return [
        trial(0, 0.9, 0.8, key="train_loss", rate=0.01),
        trial(1, 0.9, 0.1, key="train_loss", rate=0.2, **fields),
        trial(2, 0.05, key="train_loss", rate=3.0),
    ]


def test_a_race_has_no_end_that_is_known():
    status = study_status(race(), ERROR)
    assert status.races and status.steps_total is None
    assert steps_in_words(status).startswith("50 steps trained; the race ends when")


def test_a_race_that_is_evaluated_in_full_is_a_race():
    records = [trial(n, 0.5 - n / 10, reuse_key={"checks_fit": True}) for n in range(2)]
    assert study_status(records, ERROR).races
    assert not study_status([trial(0, 0.5, reuse_key={"checks_fit": False})], ERROR).races


def test_in_a_race_the_lowest_loss_leads_of_those_that_came_as_far():
    records = race()
    assert leader_in_words(study_status(records, ERROR), ERROR) == (
        "trial 1 (learning rate 0.2) leads: training loss 0.1 at step 20"
    )
    rows = tuple({**row, PARTIAL: 256} for row in records[1].rows)
    records[1] = dataclasses.replace(records[1], rows=rows)
    text = leader_in_words(study_status(records, ERROR), ERROR)
    assert text.endswith("training loss 0.1 on 256 training examples at step 20")


def test_in_a_race_the_first_to_fit_leads():
    status = study_status(race(fitted_at_step_bracket=(14, 15)), ERROR)
    text = leader_in_words(status, ERROR)
    assert text.startswith("trial 1 (learning rate 0.2) fitted the training set at step 15; ")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "racing"),
        ({"status": "complete", "fitted_at_step_bracket": (4, 5)}, "fitted at step 5"),
        ({"status": "complete"}, "did not fit"),
        ({"status": "stopped"}, "stopped, the race being decided"),
        ({"status": "diverged"}, "diverged"),
    ],
)
def test_what_became_of_a_trial(fields, text):
    assert status_in_words(trial(0, 0.5, **fields)) == text
