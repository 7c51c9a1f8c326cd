"""What the best steps of a round say of its length: on made-up trials, and on real studies."""

import dataclasses
import json

import pytest
from conftest import diagnose, run, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.config import choices, default_config
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.studies.store.trial import read_trials

METRIC = "validation_error_rate"
SELECTION = Selection(METRIC)
VERDICTS = {"too_long", "too_short", "about_right", "undecided"}

modest = settings(max_examples=100, deadline=None)


def trial(
    number, best_step, max_train_steps, status="complete", decays_to_zero=False, tie=None,
    best=0.1, schedule=None,
):  # fmt: skip
    evaluated = {best_step, max_train_steps} | {
        round(max_train_steps * i / 40) for i in range(1, 41)
    }
    rows = [
        {"step": step, METRIC: best if step in (best_step, tie) else 0.2, "train_loss": 1 / step}
        for step in sorted(evaluated - {0})
    ]
    if schedule is None:
        schedule = Schedule(0.1, 0, max_train_steps)
        if decays_to_zero:
            schedule = Schedule(0.1, 0, 0, max_train_steps, "linear")
    return trial_record(number, schedule, rows, status=status)


def diagnose_steps(best_steps, max_train_steps=1000, **fields):
    trials = [trial(i, step, max_train_steps, **fields) for i, step in enumerate(best_steps)]
    return diagnose(trials, max_train_steps, SELECTION)


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
    assert diagnose(tied, 1000, SELECTION)["verdict"] == "too_long"


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
    without = diagnose(good, 1000, SELECTION)
    with_diverged = diagnose([*diverged, *good], 1000, SELECTION)
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
    diagnosis = diagnose(trials, 1000, SELECTION)
    assert diagnosis["verdict"] == plain["verdict"]
    assert plain["caveats"] == []
    assert len(diagnosis["caveats"]) == 1
    assert f"{decaying} of {len(trials)}" in diagnosis["caveats"][0]
    assert "zero" in diagnosis["caveats"][0]


def test_a_diverged_trial_that_would_have_decayed_to_zero_is_no_caveat_about_decay():
    trials = [trial(i, 500, 1000) for i in range(3)]
    trials.append(trial(3, 1000, 1000, status="diverged", decays_to_zero=True))
    assert not any("zero" in caveat for caveat in diagnose(trials, 1000, SELECTION)["caveats"])


@modest
@given(st.permutations([10, 90, 400, 760, 900, 1000]))
def test_order_of_trials_does_not_matter(steps):
    assert diagnose_steps(steps) == diagnose_steps(sorted(steps))


def suggested(diagnosis):
    return Schedule(**json.loads(json.dumps(diagnosis["suggested_schedule"], allow_nan=False)))


# Real studies. 200 digits are fitted in a hundred steps or two, and the validation loss turns up
# some hundred steps later; so 4,000 steps are far too many and 40 too few.
RATES = (0.08, 0.1, 0.12)
REAL = {
    "too_long": Schedule(0.1, 20, 3930, 50, "linear"),
    "about_right": Schedule(0.1, 20, 330, 50, "linear"),
    "too_short": Schedule(0.1, 5, 25, 10, "linear"),
}
# How much worse than the best validation loss of a run far too long that of the suggested length
# may be, for the shorter one's finer grid of evaluations and its earlier decay.
TOLERANCE = 0.02


def real_study(workdir, schedule):
    """A study of three trials with a schedule's lengths; its outcome and its trials."""
    config = default_config("round")
    config.name = "digits"
    config.max_train_steps = schedule.total_steps
    config.data.train_split = "train[:200]"
    config.model.hidden_sizes = (32,)
    config.evaluation.selection_metric = "loss"
    config.schedule.warmup_steps = schedule.warmup_steps
    config.schedule.decay = schedule.decay
    config.schedule.decay_steps = schedule.decay_steps
    config.search.method = "grid"
    config.search.space = (choices("schedule.base_learning_rate", *RATES),)
    outcome, _ = run(config, workdir)
    return outcome, read_trials(workdir / "digits")


@pytest.mark.parametrize("verdict", REAL)
def test_real_studies_far_too_long_far_too_short_and_about_right(verdict, tmp_path):
    length = REAL[verdict].total_steps
    outcome, trials = real_study(tmp_path, REAL[verdict])
    diagnosis = outcome["best_step_diagnosis"]
    assert diagnosis["verdict"] == verdict
    assert diagnosis["trials"] == len(trials) == len(RATES)
    assert outcome["diverged"] == 0
    steps = [record.best_step for record in trials]
    assert diagnosis["in_first_10_percent"] == sum(10 * step <= length for step in steps)
    assert diagnosis["in_last_25_percent"] == sum(4 * step > 3 * length for step in steps)
    assert any("3 of 3 trials decays to zero" in caveat for caveat in diagnosis["caveats"])
    before, after = trials[outcome["best_trial"]].schedule, suggested(diagnosis)
    assert before.total_steps == length
    assert after.total_steps == diagnosis["suggested_max_train_steps"]
    # Warmup and decay fit into all three suggestions, so that only the constant period changes.
    assert dataclasses.replace(after, constant_steps=before.constant_steps) == before
    if verdict == "too_long":
        assert after.total_steps == 2 * max(steps)
    else:
        assert after.total_steps == length * (2 if verdict == "too_short" else 1)


def test_a_real_study_of_the_length_suggested_for_a_too_long_one_is_as_good(tmp_path):
    long, _ = real_study(tmp_path / "long", REAL["too_long"])
    schedule = suggested(long["best_step_diagnosis"])
    assert schedule.total_steps <= REAL["too_long"].total_steps / 5
    short, trials = real_study(tmp_path / "short", schedule)
    assert short["best_step_diagnosis"]["verdict"] != "too_long"
    # The schedule that the diagnosis named is one that really ran.
    assert schedule in [record.schedule for record in trials]
    before, after = (outcome["best_validation"]["loss"] for outcome in (long, short))
    assert after <= (1 + TOLERANCE) * before


def test_a_real_study_of_the_length_suggested_for_a_too_short_one_is_no_worse(tmp_path):
    short, _ = real_study(tmp_path / "short", REAL["too_short"])
    schedule = suggested(short["best_step_diagnosis"])
    long, trials = real_study(tmp_path / "long", schedule)
    assert schedule in [record.schedule for record in trials]
    for metric, before in short["best_validation"].items():
        assert long["best_validation"][metric] <= before
