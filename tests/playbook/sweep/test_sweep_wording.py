"""Whole sentences about sweeps, from facts made by hand."""

import dataclasses

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.sweep.facts import AfterFit, NextBest, SweepFacts
from budgetflow.playbook.sweep.race import Race, SweepSettings
from budgetflow.playbook.sweep.regime import CurveReading
from budgetflow.playbook.sweep.words import curve_reading, sweep_reasons, switched_off

SETTINGS = SweepSettings(
    learning_rates=(0.01, 0.1, 1.0),
    max_train_steps=1000,
    max_extensions=8,
    num_train_examples=500,
    steps_per_epoch=20,
)
CONTRADICTING = dataclasses.replace(
    SETTINGS,
    contradicting_examples=12,
    lowest_train_errors=6,
    lowest_train_loss=0.0123456,
    lowest_evaluated_error_rate=0.012,
)


def trial(number, rate, fitted=None, status="stopped"):
    return trial_record(
        number, Schedule(rate, 0, 1000), status=status, step=50, fitted_at_step_bracket=fitted
    )


def race(*others, fitted=(36, 37), at_boundary=False, extensions=0):
    best = trial(1, 0.1, fitted)
    return Race((trial(0, 0.01), best, *others), best, at_boundary, extensions)


INTERIOR = race(trial(2, 1.0))


def facts_of(*races, settings=SETTINGS, **fields):
    return SweepFacts(settings, dict(enumerate(races)), races[0], **fields)


TRIED = "3 constant learning rates from 0.01 to 1 (2.0 decades) were tried."
FASTEST = (
    "The fastest trial (trial 1, learning rate 0.1) first fitted the whole training set at step "
    "37, so training is not compute-bound. N = 1000 did not bind: no trial needed so many."
)
INTERIOR_SENTENCE = "The best learning rate is interior: none on either side of it fitted earlier."
ONE_SEED = (
    "The fastest trial is a minimum over noise, and this is one seed: config.sweep.seeds = 5 would "
    "show how far the number moves with the seed."
)


def test_a_sweep_that_found_its_answer():
    facts = facts_of(
        INTERIOR,
        next_best=NextBest(1.0, "train_error_rate", 0.25, 36),
        after_fit=AfterFit(True, 57, "train_error_rate", 0.0),
    )
    assert list(map(str, sweep_reasons(facts))) == [
        TRIED,
        FASTEST,
        "The next best learning rate, 1, had 25.00% of the training examples wrong at step 36.",
        INTERIOR_SENTENCE,
        ONE_SEED,
        "The fit held: the fastest trial was trained on to step 57, and kept it.",
    ]


def test_what_was_added_and_what_diverged():
    found = race(trial(2, 1.0), trial(3, 3.0, status="diverged"), trial(4, 0.2), extensions=1)
    assert str(next(sweep_reasons(facts_of(found)))) == (
        "5 constant learning rates from 0.01 to 3 (2.5 decades) were tried, 1 of them added "
        "outside the first grid, 1 added around the best; 1 diverged and are infeasible."
    )


@pytest.mark.parametrize(
    ("next_best", "sentence"),
    [
        (None, "No other trial came as far."),
        (NextBest(0.5), "Learning rate 0.5 fitted at the same step."),
        (
            NextBest(0.5, "train_loss", 0.01234, 36),
            "The next best learning rate, 0.5, had a training loss of 0.0123 at step 36.",
        ),
    ],
)
def test_the_next_best(next_best, sentence):
    assert list(map(str, sweep_reasons(facts_of(INTERIOR, next_best=next_best))))[2] == sentence


def test_a_fit_between_evaluations_at_the_boundary():
    found = race(fitted=(30, 37), at_boundary=True)
    assert list(map(str, sweep_reasons(facts_of(found))))[1:] == [
        FASTEST.replace("at step 37", "between steps 30 and 37"),
        "No other trial came as far.",
        "THE BEST LEARNING RATE LIES AT THE BOUNDARY of those tried, extensions included, so 37 "
        "steps may be far too many and are not given as the answer. Move "
        "config.sweep.learning_rates or raise config.sweep.max_extensions.",
    ]


@pytest.mark.parametrize(
    ("metric", "worst", "shown"),
    [
        ("train_loss", 0.5, "a training loss of 0.5"),
        ("train_error_rate", 0.002, "0.20% of the training examples wrong"),
    ],
)
def test_a_fit_that_did_not_hold(metric, worst, shown):
    facts = facts_of(INTERIOR, after_fit=AfterFit(False, 57, metric, worst))
    assert list(map(str, sweep_reasons(facts)))[-1] == (
        f"The fit did not hold: trained on to step 57, the fastest trial had {shown} again, so the "
        "number may be a little too small."
    )


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            [race(trial(2, 1.0), fitted=(39, 40))],
            "Over 2 seeds the fastest trials fitted at steps 37, 40: the answer is their median, "
            "37; a single seed's is off by up to 8%.",
        ),
        (
            [race(trial(2, 1.0), fitted=(29, 30)), race(trial(2, 1.0), fitted=None)],
            "Over 3 seeds the fastest trials fitted at steps 30, 37 (1 found no answer): the "
            "answer is their median, 37; a single seed's is off by up to 19%.",
        ),
    ],
)
def test_several_seeds(others, sentence):
    assert list(map(str, sweep_reasons(facts_of(INTERIOR, *others))))[-1] == sentence


def test_examples_that_contradict_each_other():
    assert list(map(str, sweep_reasons(facts_of(INTERIOR, settings=CONTRADICTING))))[1:3] == [
        "12 of 500 training examples contradict each other (equal inputs, different labels), so "
        "that at least 6 (1.20%) must be wrong: the race went to that lowest possible error "
        "instead of a perfect fit.",
        FASTEST.replace(
            "fitted the whole training set", "had the lowest possible error (6 examples wrong)"
        ),
    ]
    by_loss = dataclasses.replace(CONTRADICTING, fitted_train_loss=0.05)
    assert list(map(str, sweep_reasons(facts_of(INTERIOR, settings=by_loss))))[1:3] == [
        "12 of 500 training examples contradict each other (equal inputs, different labels), so "
        "that at least 6 (1.20%) must be wrong: the lowest possible training loss is 0.01235.",
        FASTEST.replace("fitted the whole training set", "had a training loss under 0.05"),
    ]


def test_where_every_trial_diverged():
    rates = SETTINGS.learning_rates
    diverged = tuple(trial(n, rate, status="diverged") for n, rate in enumerate(rates))
    assert list(map(str, sweep_reasons(facts_of(Race(diverged, None, True, 0))))) == [
        f"{TRIED[:-1]}; 3 diverged and are infeasible.",
        "Every trial diverged: the grid is bad. Try much smaller learning rates, or look for an "
        "error in the model or the data.",
    ]


def test_where_none_fitted_the_grid_or_the_curve_is_blamed():
    nobody = (
        "No trial fitted the whole training set within 1000 steps. The lowest training loss was "
        "reached at learning rate 0.1 (trial 1)."
    )
    reading = CurveReading("stalled", None, *POINTS, 0.01)
    within = facts_of(race(trial(2, 1.0), fitted=None), reading=reading)
    shown = curve_reading(reading, SETTINGS)
    assert list(map(str, sweep_reasons(within))) == [TRIED, nobody, shown]
    outside = facts_of(race(trial(2, 0.05), fitted=None, at_boundary=True), reading=reading)
    assert list(map(str, sweep_reasons(outside)))[1:] == [
        nobody,
        "THE BEST LEARNING RATE LIES AT THE BOUNDARY of those tried, extensions included, so the "
        "grid itself may be at fault. Move config.sweep.learning_rates or raise "
        "config.sweep.max_extensions.",
    ]


POINTS = {"step": 500.4, "train_loss": 1.23456}, {"step": 950.6, "train_loss": 1.0}
WENT = "from 1.23 around step 500 to 1 around step 951"
PATIENCE = "choose the length by patience, and tune in rounds."


@pytest.mark.parametrize(
    ("reading", "settings", "sentence"),
    [
        (
            CurveReading("threshold_impossible"),
            dataclasses.replace(CONTRADICTING, fitted_train_loss=0.005),
            "A training loss under 0.005 is impossible: since examples contradict each other, the "
            "lowest is 0.01235. Raise config.sweep.fitted_train_loss above it.",
        ),
        (
            CurveReading("too_few_epochs", 2000),
            dataclasses.replace(SETTINGS, steps_per_epoch=500),
            "N = 1000 (2 epochs) is too small to read a curve: in fewer than 40 epochs a "
            "training set that will be fitted can look like one that never will. Try "
            "--config.max_train_steps=2000: the race ends as soon as a trial fits. If nobody can "
            f"wait for so many, it is compute-bound by choice: {PATIENCE}",
        ),
        (
            CurveReading("too_few_epochs", 2000, *POINTS, 0.19),
            dataclasses.replace(SETTINGS, steps_per_epoch=500),
            "N = 1000 (2 epochs) is too small to read a curve: in fewer than 40 epochs a "
            "training set that will be fitted can look like one that never will. The best "
            f"training loss went {WENT}, a fall of 19.0%. Try --config.max_train_steps=2000: the "
            "race ends as soon as a trial fits. If nobody can wait for so many, it is "
            f"compute-bound by choice: {PATIENCE}",
        ),
        (
            CurveReading("all_but_fitted", 4000, *POINTS, 0.19),
            CONTRADICTING,
            f"N is too small (50 epochs): the best training loss went {WENT}, and the examples "
            "evaluated are all but as well fitted as they can be, some of them contradicting each "
            "other (the lowest possible loss is 0.0123). Try --config.max_train_steps=4000.",
        ),
        (
            CurveReading("falling_fast", 4000, *POINTS, 0.3),
            SETTINGS,
            f"N is too small (50 epochs): the best training loss went {WENT}, and so is still "
            "falling fast (30% since the middle of the run). Try --config.max_train_steps=4000.",
        ),
        (
            CurveReading("falling_slowly", None, *POINTS, 0.19),
            CONTRADICTING,
            f"The best training loss is still falling at N, but slowly: {WENT}, a fall of 19.0% of "
            "what is above the lowest possible (0.0123) since the middle of the run, after 50 "
            f"epochs. It looks compute-bound: {PATIENCE}",
        ),
    ],
)
def test_a_curve_without_a_fit(reading, settings, sentence):
    assert curve_reading(reading, settings) == sentence


@pytest.mark.parametrize(
    ("counted", "explanation"),
    [
        (
            None,
            " Contradictory labels would look like this, too: whether equal inputs have different "
            "labels is not known for this training set.",
        ),
        (0, ""),
        (12, " The 12 examples that contradict each other do not explain it."),
    ],
)
def test_a_stalled_curve_and_what_else_may_explain_it(counted, explanation):
    settings = dataclasses.replace(SETTINGS, contradicting_examples=counted)
    assert curve_reading(CurveReading("stalled", None, *POINTS, 0.01), settings) == (
        f"The best training loss has stalled: it went {WENT}, a fall of 1.0%. It looks like a "
        "model that cannot fit this training set at a constant learning rate: try a larger model, "
        f"or look for wrong labels.{explanation}"
    )


def test_what_was_switched_off():
    assert switched_off(["regularization.dropout_rate = 0.5", "augmentation.shift_pixels = 1"]) == (
        "Switched off for the sweep: regularization.dropout_rate = 0.5, augmentation.shift_pixels "
        "= 1. They add gradient noise, so with them on more steps may be needed."
    )
