import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.best_step import diagnose
from budgetflow.playbook.measurement import TrialView

METRIC = "validation_error_rate"
VERDICTS = {"too_long", "too_short", "about_right", "undecided"}

modest = settings(max_examples=100, deadline=None)


def trial(number, best_step, max_train_steps, status="complete", decays_to_zero=False, tie=None):
    evaluated = {best_step, max_train_steps} | {
        round(max_train_steps * i / 40) for i in range(1, 41)
    }
    rows = [
        {"step": step, METRIC: 0.1 if step in (best_step, tie) else 0.2, "train_loss": 1 / step}
        for step in sorted(evaluated - {0})
    ]
    return TrialView(number, {}, 0.1, status, max_train_steps, rows, decays_to_zero=decays_to_zero)


def diagnose_steps(best_steps, max_train_steps=1000, **fields):
    trials = [trial(i, step, max_train_steps, **fields) for i, step in enumerate(best_steps)]
    return diagnose(trials, max_train_steps, METRIC)


@modest
@given(
    st.integers(10, 10**6).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=12))
    )
)
def test_verdict_follows_from_the_counts(length_and_steps):
    length, steps = length_and_steps
    diagnosis = diagnose_steps(steps, length)
    early = sum(10 * step <= length for step in steps)
    late = sum(4 * step > 3 * length for step in steps)
    assert diagnosis["trials"] == len(steps)
    assert diagnosis["in_first_10_percent"] == early
    assert diagnosis["in_last_25_percent"] == late
    if len(steps) < 3:
        assert diagnosis["verdict"] == "undecided"
        assert diagnosis["suggested_max_train_steps"] is None
    elif early == len(steps):
        assert diagnosis["verdict"] == "too_long"
        assert max(steps) < diagnosis["suggested_max_train_steps"] < length
    elif 4 * late >= 3 * len(steps):
        assert diagnosis["verdict"] == "too_short"
        assert diagnosis["suggested_max_train_steps"] > length
    else:
        assert diagnosis["verdict"] == "about_right"
        assert diagnosis["suggested_max_train_steps"] == length
    if steps:
        assert diagnosis["share_in_first_10_percent"] == early / len(steps)
        assert diagnosis["share_in_last_25_percent"] == late / len(steps)
    else:
        assert diagnosis["share_in_first_10_percent"] is None
        assert diagnosis["share_in_last_25_percent"] is None
    json.dumps(diagnosis, allow_nan=False)


@pytest.mark.parametrize(
    ("best_steps", "verdict"),
    [
        ([100, 100, 100], "too_long"),
        ([100, 100, 101], "about_right"),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 900], "about_right"),
        ([751, 751, 751], "too_short"),
        ([750, 750, 750], "about_right"),
        ([1000, 1000, 1000, 500], "too_short"),
        ([1000, 1000, 500], "about_right"),
        ([1000, 1000, 1000, 500, 500], "about_right"),
        ([1000, 1000], "undecided"),
        ([10, 10], "undecided"),
        ([], "undecided"),
    ],
)
def test_thresholds(best_steps, verdict):
    assert diagnose_steps(best_steps)["verdict"] == verdict


def test_always_and_consistently_are_spelled_out_with_their_counts():
    assert "all 4 trials" in diagnose_steps([10, 20, 30, 40])["means"]
    too_short = diagnose_steps([1000, 900, 900, 10])["means"]
    assert "3 of 4" in too_short
    assert "75%" in too_short.replace(" ", "")
    about_right = diagnose_steps([10, 500, 500, 900, 950])["means"]
    assert "1 of 5" in about_right
    assert "in 2 in" in about_right


@modest
@given(st.lists(st.integers(1, 100), min_size=3, max_size=8))
def test_suggestion_is_in_the_sentence(steps):
    diagnosis = diagnose_steps([10 * step for step in steps])
    if diagnosis["verdict"] in ("too_long", "too_short"):
        assert str(diagnosis["suggested_max_train_steps"]) in diagnosis["means"]


def test_of_equally_good_steps_the_earlier_one_counts():
    tied = [trial(i, 50, 1000, tie=1000) for i in range(3)]
    assert diagnose(tied, 1000, METRIC)["verdict"] == "too_long"


@modest
@given(
    st.lists(st.integers(1, 1000), max_size=8),
    st.lists(st.integers(1, 1000), min_size=1, max_size=4),
)
def test_diverged_trials_are_left_out_and_counted(steps, diverged_steps):
    good = [trial(i, step, 1000) for i, step in enumerate(steps)]
    diverged = [
        trial(len(good) + i, step, 1000, status="diverged") for i, step in enumerate(diverged_steps)
    ]
    without = diagnose(good, 1000, METRIC)
    with_diverged = diagnose([*diverged, *good], 1000, METRIC)
    caveats = with_diverged.pop("caveats")
    assert without.pop("caveats") == []
    assert with_diverged == without
    assert len(caveats) == 1
    assert str(len(diverged)) in caveats[0]
    assert "diverged" in caveats[0]


@modest
@given(st.lists(st.integers(1, 1000), max_size=8), st.integers(1, 4))
def test_decay_to_zero_is_a_caveat_and_changes_no_verdict(steps, decaying):
    plain = diagnose_steps([*steps, *[1000] * decaying])
    trials = [trial(i, step, 1000) for i, step in enumerate(steps)] + [
        trial(len(steps) + i, 1000, 1000, decays_to_zero=True) for i in range(decaying)
    ]
    diagnosis = diagnose(trials, 1000, METRIC)
    assert diagnosis["verdict"] == plain["verdict"]
    assert plain["caveats"] == []
    assert len(diagnosis["caveats"]) == 1
    assert f"{decaying} of {len(trials)}" in diagnosis["caveats"][0]
    assert "zero" in diagnosis["caveats"][0]


def test_a_diverged_trial_that_would_have_decayed_to_zero_is_no_caveat_about_decay():
    trials = [trial(i, 500, 1000) for i in range(3)]
    trials.append(trial(3, 1000, 1000, status="diverged", decays_to_zero=True))
    assert not any("zero" in caveat for caveat in diagnose(trials, 1000, METRIC)["caveats"])


@modest
@given(st.permutations([10, 90, 400, 760, 900, 1000]))
def test_order_of_trials_does_not_matter(steps):
    assert diagnose_steps(steps) == diagnose_steps(sorted(steps))
