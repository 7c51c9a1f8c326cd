"""Whole sentences about rounds and cooldowns, from facts made by hand."""

import math

import pytest
from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import Competition
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.outcomes import (
    CooldownsOutcome,
    LengthResult,
    RoundOutcome,
)
from budgetflow.playbook.rounds.best_step import BestStepDiagnosis
from budgetflow.playbook.rounds.decay_spread import DecaySpread
from budgetflow.playbook.rounds.words import (
    cooldowns_reasons,
    explained,
    spread_explained,
)

SELECTION = Selection("validation_error_rate")
CONSTANT = Schedule(0.1, 50, 950)
LINEAR = Schedule(0.1, 50, 600, 350, "linear")

SHARED = {
    "max_train_steps": 1000,
    "trials": 4,
    "diverged": 1,
    "steps_trained": 3000,
    "steps_reused": 0,
    "best_trial": 2,
    "best_step": 900,
    "best_validation": {"error_rate": 0.0123456, "top_5_error": math.nan},
}
NOTHING = {"best_trial": None, "best_step": None, "best_validation": None}
ROUND = RoundOutcome(
    **SHARED,
    best_step_diagnosis=BestStepDiagnosis(
        verdict="about_right",
        share_in_first_10_percent=0.0,
        share_in_last_25_percent=0.0,
        suggested_max_train_steps=1000,
        trials=3,
        in_first_10_percent=0,
        in_last_25_percent=0,
        caveats=("A caveat.", "Another."),
        means="What it means.",
    ),
)
SPREAD = DecaySpread(
    schedules=2,
    best=0.1,
    worst=0.2,
    relative=1.0,
    best_trial=0,
    worst_trial=1,
    hinges_on_decay=True,
    means="What decays mean.",
)


BEST = (
    "Trial 2 is the best, by its checkpoint of step 900: validation error rate 0.01235, validation "
    "top 5 error undefined."
)
EVERY_TRIAL = "Every trial diverged: look for a lower learning rate or a longer warmup."


def cooldowns(*values, **fields):
    """Cooldowns of 100, 200, … steps with these error rates, None where all diverged."""
    lengths = tuple(
        LengthResult(
            length_steps=100 * (n + 1),
            best_trial=n,
            best_step=100 * (n + 1),
            best_validation=None if value is None else {"error_rate": value},
        )
        for n, value in enumerate(values)
    )
    shared = {**SHARED, "selection_metric": "error_rate", **fields}
    return CooldownsOutcome(**shared, lengths=lengths)


def test_what_each_length_gives():
    assert list(cooldowns_reasons(cooldowns(0.2, None, 0.1, 0.1, 0.15, 0.0, 0.1), SELECTION)) == [
        "A run of 100 steps gives validation error rate 0.2.",
        "A run of 300 steps gives 0.1 (50.0% better) for 3 times the steps.",
        "A run of 400 steps gives 0.1 for 1.33 times the steps.",
        "A run of 500 steps gives 0.15 (50.0% worse) for 1.25 times the steps.",
        "A run of 600 steps gives 0 (100.0% better) for 1.2 times the steps.",
        # Nothing is a fraction of 0.
        "A run of 700 steps gives 0.1 for 1.17 times the steps.",
        BEST,
    ]
    nothing = cooldowns(None, None, steps_reused=1000, **NOTHING)
    assert list(cooldowns_reasons(nothing, SELECTION)) == [
        EVERY_TRIAL,
        "1000 of 4000 steps (25%) were taken over from other trials, bit for bit, instead of being "
        "trained again.",
    ]


def diagnosis(verdict, *best_steps, hopeless=(), schedule=CONSTANT, **fields):
    """A diagnosis of trials with these best steps, of 1,000 each."""
    trials = [
        (trial_record(number, schedule, [{"step": 1000}]), {"step": step})
        for number, step in enumerate((*best_steps, *hopeless))
    ]
    count = len(best_steps)
    diverged = fields.pop("diverged", 0)
    competition = Competition(trials[:count], trials[count:], 0.25 if count else None, diverged)
    known = {
        "share_in_first_10_percent": None,
        "share_in_last_25_percent": None,
        "trials": count,
        "in_first_10_percent": 0,
        "in_last_25_percent": 0,
        "hopeless_trials": tuple(range(count, len(trials))),
        "suggested_max_train_steps": None,
    }
    found = BestStepDiagnosis(verdict=verdict, **{**known, **fields})
    return explained(found, competition, SELECTION, 1000)


COMPETES = (
    "A trial competes if its validation error rate gets to 0.25 or better, which the best trial "
    "(0) had reached by a quarter of the steps to its best or has in a tenth of its evaluations."
)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(0.25, 0, 2000), "0.25 with constant 2000 steps"),
        (Schedule(0.1, 50, 1950), "0.1 with warmup 50 and constant 1950 steps"),
        (Schedule(0.1, 0, 0, 2000, "inverse_sqrt"), "0.1 with inverse sqrt decay over 2000 steps"),
        (
            Schedule(0.1, 0, 1900, 60, "cosine", 0.001, final_steps=40),
            "0.1 with constant 1900, cosine decay over 60 and final 40 steps",
        ),
    ],
)
def test_the_suggested_schedule_in_words(schedule, words):
    fields = {"in_last_25_percent": 3, "suggested_schedule": schedule}
    longer = diagnosis("too_short", 999, 999, 999, suggested_max_train_steps=2000, **fields)
    assert longer.means.endswith(
        f"{COMPETES} The schedule of the best trial (0) at that length: base learning rate {words}."
    )
    # Nothing is said of it where the length stays.
    same = diagnosis("about_right", 500, 500, 500, suggested_max_train_steps=1000, **fields)
    assert same.means.endswith(COMPETES)


def test_caveats_of_a_diagnosis():
    to_zero = diagnosis("about_right", 500, 500, schedule=LINEAR, diverged=2)
    assert list(to_zero.caveats) == [
        "2 trials that diverged are left out.",
        "The learning rate of 2 of 2 trials decays to zero, which by itself pushes best steps to "
        "the end; late best steps alone do not show that training was too short.",
    ]
    without_a_rule = Schedule(0.1, 50, 0, 950, "inverse_sqrt", timescale_steps=50)
    longer = {"schedule": without_a_rule, "suggested_max_train_steps": 2000}
    (caveat,) = diagnosis("too_short", 999, 999, **longer).caveats
    assert caveat.startswith("There is no suggested schedule: ") and caveat.endswith(".")


def spread(best, worst, relative, hinges_on_decay, selection=SELECTION):
    """How far trial 1, without a decay, and trial 0, with one, end apart, with its sentence."""
    trials = [trial_record(0, LINEAR), trial_record(1, CONSTANT)]
    found = DecaySpread(
        schedules=2,
        best=best,
        worst=worst,
        relative=relative,
        best_trial=1,
        worst_trial=0,
        hinges_on_decay=hinges_on_decay,
    )
    return spread_explained(found, trials, selection)


@pytest.mark.parametrize(
    ("best", "worse_by", "ends", "conclusion"),
    [
        (
            0.4,
            0.25,
            "from 0.4 (trial 1, no decay) to 0.5 (trial 0, linear decay over 350 steps), 25.0% "
            "apart",
            "Ending more than 10% apart is a sign that max_train_steps is too short: a stingy "
            "length takes a perfectly tuned decay.",
        ),
        (
            0.49,
            0.02,
            "from 0.49 (trial 1, no decay) to 0.5 (trial 0, linear decay over 350 steps), 2.0% "
            "apart",
            "Ending within 10% is no sign that max_train_steps is too short.",
        ),
        (
            0.0,
            math.inf,
            "from 0 (trial 1, no decay) to 0.5 (trial 0, linear decay over 350 steps)",
            "Ending more than 10% apart is a sign that max_train_steps is too short: a stingy "
            "length takes a perfectly tuned decay.",
        ),
    ],
)
def test_how_far_apart_decays_end(best, worse_by, ends, conclusion):
    relative = worse_by if best else None
    assert spread(best, 0.5, relative, worse_by > 0.1).means == (
        f"2 schedules that differ only in their decay end at a validation error rate {ends}. "
        f"{conclusion}"
    )


def test_differences_of_few_examples_are_counted():
    counting = Selection("validation_error_rate", examples=270)
    shorter = cooldowns(2 / 270, 1 / 270)
    assert list(cooldowns_reasons(shorter, counting))[1] == (
        "A run of 200 steps gives 0.003704 (1 of 270 examples, 2 before) for 2 times the steps."
    )
    means = spread(1 / 270, 2 / 270, 1.0, True, counting).means
    assert "steps), 1 of 270 examples, 100.0% apart. " in means
