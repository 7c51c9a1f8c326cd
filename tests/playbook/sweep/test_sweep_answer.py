"""What a sweep says of its answer: whether the fit holds, contradictions, further seeds."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lr_sweep import EPOCH, NEVER, Fate, Simulation, modest, random_sweeps, sweep

from budgetflow.playbook.common.outcomes import from_json
from budgetflow.results.kind_views import headline as headline_of


def headline(outcome):
    return headline_of(from_json(outcome))


@pytest.mark.parametrize("holds", [True, False])
def test_the_winner_is_trained_an_epoch_further_to_see_whether_the_fit_holds(holds):
    fates = {0.01: Fate(500), 0.1: Fate(37, holds=holds), 1.0: Fate(80)}
    simulation = Simulation(sweep(*fates), fates.__getitem__)
    assert simulation.trials[1].step >= 37 + EPOCH
    assert simulation.outcome["max_train_steps"] == 37
    assert simulation.outcome["fit_held"] == holds
    assert ("held" if holds else "did not hold") in simulation.outcome["reasons"][-1]


# Six of the thousand examples must be wrong; of those that are evaluated, up to 0.8 %.
CONTRADICTING = {
    "contradicting_examples": 12, "lowest_train_errors": 6, "lowest_train_loss": 0.008,
    "lowest_evaluated_error_rate": 0.008,
}  # fmt: skip


@pytest.mark.parametrize("holds", [True, False])
def test_where_examples_contradict_each_other_the_race_is_to_the_lowest_possible_error(holds):
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), **CONTRADICTING)
    fates = {0.01: Fate(500), 0.1: Fate(37, holds=holds), 1.0: Fate(80)}
    outcome = Simulation(settings, fates.__getitem__).outcome
    json.dumps(outcome, allow_nan=False)
    assert (outcome["status"], outcome["max_train_steps"]) == ("found", 37)
    assert outcome["regime"] == "not_compute_bound"
    assert (outcome["contradicting_examples"], outcome["lowest_train_errors"]) == (12, 6)
    # The rate of the examples evaluated is not 0, and yet the fit holds.
    assert outcome["fit_held"] is holds
    reasons = " ".join(outcome["reasons"])
    assert "12 of 1000 training examples contradict each other" in reasons
    assert "at least 6 (0.60%) must be wrong" in reasons
    assert "went to that lowest possible error" in reasons
    assert "first had the lowest possible error (6 examples wrong)" in reasons
    assert "the whole training set" not in reasons
    told = headline(outcome)
    assert "as well as possible, with 6 wrong (since 12 examples contradict each other)" in told
    assert "perfectly" not in told


def test_where_not_even_the_lowest_possible_error_is_reached_that_is_said():
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), **CONTRADICTING)
    outcome = Simulation(settings, lambda rate: Fate(loss=1 + abs(math.log10(rate / 0.1)))).outcome
    assert outcome["not_fitted_because"] == "model_cannot_fit"
    reasons = " ".join(outcome["reasons"])
    assert "No trial had the lowest possible error (6 examples wrong) within 1000" in reasons
    assert "12 examples that contradict each other do not explain it" in reasons
    assert "as well as possible, with 6 wrong" in headline(outcome)


def test_a_loss_that_contradictions_make_impossible_is_blamed_before_the_grid():
    settings = dataclasses.replace(
        sweep(0.01, 0.1, max_extensions=2), **CONTRADICTING, fitted_train_loss=0.005
    )
    outcome = Simulation(settings, lambda rate: Fate(loss=1 / rate)).outcome
    assert outcome["not_fitted_because"] == "threshold_too_low"
    assert any("under 0.005 is impossible" in reason for reason in outcome["reasons"])
    assert any("lowest possible training loss is 0.008" in reason for reason in outcome["reasons"])


@pytest.mark.parametrize(("counted", "errors"), [(None, None), (0, 0)])
def test_what_nobody_counted_is_not_called_zero(counted, errors):
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), contradicting_examples=counted)
    fates = {0.01: Fate(500), 0.1: Fate(37), 1.0: Fate(80)}
    outcome = Simulation(settings, fates.__getitem__).outcome
    assert outcome["contradicting_examples"] is counted
    assert outcome["lowest_train_errors"] is errors
    assert "contradict" not in " ".join(outcome["reasons"]) + headline(outcome)
    assert "perfectly" in headline(outcome)


def test_a_race_of_few_epochs_is_undecided():
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0, steps=100), steps_per_epoch=50)
    outcome = Simulation(settings, lambda rate: Fate(loss=1 + abs(math.log10(rate / 0.1)))).outcome
    assert outcome["regime"] == "undecided"
    assert outcome["not_fitted_because"] == "n_too_small"
    assert outcome["suggested_max_train_steps"] == 2000
    assert any("(2 epochs)" in reason for reason in outcome["reasons"])


def test_a_fit_at_the_very_last_step_cannot_be_seen_to_hold():
    fates = {0.01: Fate(), 0.1: Fate(1000), 1.0: Fate()}
    outcome = Simulation(sweep(*fates), fates.__getitem__).outcome
    assert outcome["status"] == "found" and outcome["fit_held"] is None


def test_it_is_said_how_far_behind_the_next_best_learning_rate_was():
    fates = {0.01: Fate(500, loss=3.0), 0.1: Fate(37), 1.0: Fate(80, loss=2.0)}
    reasons = Simulation(sweep(*fates), fates.__getitem__).outcome["reasons"]
    assert any("next best learning rate, 1, had 50.00% of the training" in r for r in reasons)
    fates = {0.01: Fate(500), 0.1: Fate(37), 0.5: Fate(37), 1.0: Fate(80)}
    reasons = Simulation(sweep(*fates), fates.__getitem__).outcome["reasons"]
    assert any("0.5 fitted at the same step" in reason for reason in reasons)


# Several seeds.

NOISE = {0: 1.0, 1: 0.7, 2: 1.3, 3: 0.9, 4: 1.1}


def noisy_valley(rate, seed=0):
    return Fate(round(NOISE[seed] * 100 * math.exp(abs(math.log10(rate / 0.1)))), loss=1 / rate)


@pytest.mark.parametrize(("count", "median"), [(1, 100), (2, 100), (3, 100), (4, 100), (5, 100)])
def test_the_answer_is_the_median_over_seeds(count, median):
    settings = sweep(0.001, 0.01, 0.1, 1.0, 10.0, seeds=tuple(range(count)))
    simulation = Simulation(settings, noisy_valley)
    outcome = simulation.outcome
    answers = [round(100 * NOISE[seed]) for seed in range(count)]
    assert [o["max_train_steps"] for o in outcome["seeds"]] == answers
    assert outcome["max_train_steps"] == sorted(answers)[count // 2] == median
    assert outcome["fitted_at_step_bracket"] == [median - 1, median]
    # The other seeds race around the first one's best only.
    assert len(simulation.trials) == 5 + 3 * (count - 1)
    assert simulation.trials[outcome["best_trial"]].fitted_at_step == median
    assert any("median" in reason for reason in outcome["reasons"]) == (count > 1)


def test_a_seed_whose_best_lies_elsewhere_is_followed_there():
    def fate_of(rate, seed=0):
        return Fate(round(100 * math.exp(abs(math.log10(rate / (0.1 if seed == 0 else 10))))))

    simulation = Simulation(sweep(0.01, 0.1, 1.0, seeds=(0, 1)), fate_of)
    assert [o["best_learning_rate"] for o in simulation.outcome["seeds"]] == [0.1, 10]
    assert simulation.outcome["max_train_steps"] == 100


def test_a_seed_without_an_answer_counts_as_slow_and_is_told():
    def fate_of(rate, seed=0):
        return Fate(NEVER) if seed == 2 else noisy_valley(rate, seed)

    settings = sweep(0.01, 0.1, 1.0, max_extensions=1, seeds=(0, 1, 2))
    outcome = Simulation(settings, fate_of).outcome
    assert outcome["max_train_steps"] == 100
    assert outcome["seeds"][2]["max_train_steps"] is None
    assert any("1 found no answer" in reason for reason in outcome["reasons"])
    outcome = Simulation(dataclasses.replace(settings, seeds=(0, 2)), fate_of).outcome
    assert outcome["status"] == "not_fitted" and outcome["max_train_steps"] is None


@modest
@given(random_sweeps(), st.integers(2, 4), st.data())
def test_every_seed_gets_an_answer_of_its_own_that_is_its_fastest(random_sweep, count, data):
    settings, fate_of = random_sweep
    settings = dataclasses.replace(settings, seeds=tuple(range(count)), refine=None)
    later = [data.draw(st.floats(0.3, 3)) for _ in range(count)]

    def fate_of_seed(rate, seed=0):
        fate = fate_of(rate)
        steps = fate.fits_at and max(1, round(fate.fits_at * (later[seed] if seed else 1)))
        return dataclasses.replace(fate, fits_at=steps)

    simulation = Simulation(settings, fate_of_seed)
    outcome, trials = simulation.outcome, simulation.trials.values()
    json.dumps(outcome, allow_nan=False)
    for answer in outcome["seeds"]:
        if answer["status"] != "found":
            assert answer["max_train_steps"] is None
            continue
        mine = [t.hyperparameters for t in trials]
        own = [h for h in mine if h.get("seed", 0) == answer["seed"]]
        fates = [simulation.fate(h) for h in own]
        assert answer["max_train_steps"] == min(
            f.fits_at for f in fates if f.fits_within(settings.max_train_steps)
        )
    if len(outcome["seeds"]) == count:
        answers = sorted(o["max_train_steps"] or math.inf for o in outcome["seeds"])
        assert (outcome["max_train_steps"] or math.inf) == answers[count // 2]
    else:
        assert outcome["status"] != "found"
