"""What a round's trials say of the round before, and of ideas."""

import math

from conftest import trial_record

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.earlier_choice import choice_verdict
from budgetflow.playbook.derived.ideas import ideas_ledger

SELECTION = Selection("validation_loss")
SCHEDULE = Schedule(0.1, constant_steps=100)


def trial(number, loss, momentum, seed=0, **fields):
    """A trial with a momentum and a loss; None for one that diverged."""
    values = {"optimizer.momentum": momentum} | ({"seed": seed} if seed else {})
    rows = [] if loss is None else [{"step": 100, "validation_loss": loss}]
    if loss is None:
        fields["status"] = "diverged"
    record = trial_record(number, SCHEDULE, rows, hyperparameters=values, **fields)
    return record if not seed else type(record)(**{**vars(record), "seed": seed})


EARLIER = [trial(0, 0.5, 0.9), trial(1, 0.6, 0.8), trial(2, 0.9, 0.0)]


def later(*losses, start=0):
    """The best setting and a re-run of another, each with as many seeds as it has losses."""
    trials, number = [], start
    for (role, momentum), of_seeds in zip([("best", 0.9), ("rerun", 0.8)], losses, strict=True):
        for seed, loss in enumerate(of_seeds):
            trials.append(trial(number, loss, momentum, seed, role=role))
            number += 1
    return trials


def test_settings_are_matched_whatever_their_seeds_and_order():
    clear = [(0.30, 0.31, 0.29), (0.50, 0.51, 0.49)]
    for trials in (later(*clear), later(*clear)[::-1]):
        found = choice_verdict(EARLIER, 0, trials, SELECTION)
        assert (found.verdict, found.settings, found.fewest_seeds) == ("held", 2, 3)
    flipped = choice_verdict(EARLIER, 0, later(*clear[::-1]), SELECTION)
    assert flipped.verdict == "did_not_hold"
    (moved,) = flipped.moved
    assert (moved.before, moved.after, moved.evidence) == (0.9, 0.8, "shown")


def test_points_and_ideas_are_no_settings_that_ran_again():
    trials = later((0.3, 0.31), (0.5, 0.52))
    more = [
        *trials,
        trial(10, 0.01, 0.7, role="point"),
        trial(11, 0.01, 0.9, role="idea", idea="wider"),
    ]
    assert choice_verdict(EARLIER, 0, more, SELECTION) == choice_verdict(
        EARLIER, 0, trials, SELECTION
    )


def test_one_setting_alone_says_nothing():
    alone = [trial(0, 0.3, 0.9, role="best"), trial(1, 0.31, 0.9, seed=1, role="best")]
    assert choice_verdict(EARLIER, 0, alone, SELECTION) is None


def test_with_one_seed_the_noise_may_be_known_from_the_earlier_round():
    single = later((0.3,), (0.5,))
    assert choice_verdict(EARLIER, 0, single, SELECTION).verdict == "cannot_tell"
    seeds = [trial(n, 0.5 + n / 1000, 0.9, seed=n - 3) for n in range(4, 8)]
    found = choice_verdict([*EARLIER, *seeds], 0, single, SELECTION)
    assert found.noise_sd is not None and found.verdict == "held"


def test_of_a_metric_that_should_be_high_the_highest_wins():
    accuracy = Selection("validation_accuracy", higher_is_better=True)

    def renamed(trials):
        return [
            type(t)(
                **{
                    **vars(t),
                    "rows": tuple(
                        {"step": r["step"], "validation_accuracy": -r["validation_loss"]}
                        for r in t.rows
                    ),
                }
            )
            for t in trials
        ]

    for losses in ([(0.30, 0.31, 0.29), (0.50, 0.51, 0.49)], [(0.5, 0.51), (0.3, 0.31)]):
        before = choice_verdict(EARLIER, 0, later(*losses), SELECTION)
        after = choice_verdict(renamed(EARLIER), 0, renamed(later(*losses)), accuracy)
        assert before.verdict == after.verdict


def test_ideas_are_compared_with_the_same_setting_seed_by_seed():
    baseline = [trial(n, loss, 0.9, n, role="baseline") for n, loss in enumerate([0.5, 0.6, 0.7])]
    better = [
        trial(3 + n, loss, 0.9, n, role="idea", idea="wider")
        for n, loss in enumerate([0.401, 0.5, 0.599])
    ]
    worse = [trial(6, None, 0.9, 0, role="idea", idea="wild")]
    point = [trial(7, 0.0, 0.1)]
    ledger = ideas_ledger([*baseline, *better, *worse, *point], SELECTION)
    assert [(row.name, row.status) for row in ledger] == [
        ("wider", "promoted"),
        ("wild", "diverged"),
    ]
    assert math.isclose(ledger[0].difference, -0.1, abs_tol=1e-3) and ledger[0].seeds == 3
    assert ideas_ledger([*baseline, *point], SELECTION) == ()
