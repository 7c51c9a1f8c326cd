import dataclasses
import json
import math
import sys
import types

import pytest
from conftest import diagnose, mirrored, run, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.config import choices, default_config
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.transfer import NoTransferRuleError, transfer
from budgetflow.playbook.rounds.best_step import shortened
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


HIGHER = Selection(METRIC, higher_is_better=True)
LENGTHED = ("linear", "cosine", "1-sqrt", "exponential", "polynomial", "inverse_sqrt", "step")


@st.composite
def schedules(draw, total_steps, decays=("none", *LENGTHED)):
    """Schedules of every shape, of ``total_steps`` updates."""
    decay = draw(st.sampled_from(decays))
    base = draw(st.sampled_from([0.003, 0.1, 1.0]))
    warmup = draw(st.integers(0, total_steps - 1))
    if decay == "none":
        return Schedule(base, warmup, total_steps - warmup)
    decay_steps = draw(st.integers(1, total_steps - warmup))
    final = 0
    if decay not in ("inverse_sqrt", "step"):
        final = draw(st.just(0) | st.integers(0, total_steps - warmup - decay_steps))
    return Schedule(
        base, warmup, total_steps - warmup - decay_steps - final, decay_steps, decay,
        final_learning_rate=0.01 * base if decay == "exponential" or final else 0.0,
        final_steps=final,
        timescale_steps=max(warmup, 1),
        drop_steps=(0, *{draw(st.integers(1, decay_steps))}) if decay == "step" else (),
    )  # fmt: skip


@st.composite
def studies(draw):
    """Trials with schedules, best steps and best metrics, some of which diverged."""
    length = draw(st.sampled_from([20, 100, 1000]))
    tenth = st.integers(1, length // 10)
    last = st.integers(math.floor(0.75 * length) + 1, length)
    # Often all trials alike, so that every verdict comes up.
    steps = draw(st.sampled_from([tenth, last, st.integers(1, length)]))
    count = draw(st.integers(1, 6))
    return length, [
        trial(
            number,
            draw(steps),
            length,
            status=draw(st.sampled_from(["complete", "complete", "complete", "diverged"])),
            best=draw(st.sampled_from([0.05, 0.1, 0.15])),
            schedule=draw(schedules(length)),
        )
        for number in range(count)
    ]


def best_of(trials):
    """The trial that retrospective selection picks, found anew."""
    usable = [t for t in trials if t.status != "diverged"]
    return min(usable, key=lambda t: (min(row[METRIC] for row in t.rows), t.trial))


def suggested(diagnosis):
    return Schedule(**json.loads(json.dumps(diagnosis["suggested_schedule"], allow_nan=False)))


@settings(max_examples=300, deadline=None)
@given(studies())
def test_the_suggested_schedule_is_the_best_trials_at_the_suggested_length(study):
    length, trials = study
    diagnosis = diagnose(trials, length, SELECTION)
    verdict, suggestion = diagnosis["verdict"], diagnosis["suggested_max_train_steps"]
    if verdict == "undecided":
        assert diagnosis["suggested_schedule"] is None
        return
    before = best_of(trials).schedule
    if verdict == "too_short" and before.decay == "inverse_sqrt":
        assert diagnosis["suggested_schedule"] is None
        assert any("inverse square root" in caveat for caveat in diagnosis["caveats"])
        return
    after = suggested(diagnosis)
    assert after.total_steps == suggestion
    assert after.base_learning_rate == before.base_learning_rate
    assert (
        after
        == {
            "too_long": lambda: shortened(before, suggestion),
            "too_short": lambda: transfer(before, suggestion).after,
            "about_right": lambda: before,
        }[verdict]()
    )


@modest
@given(studies(), st.randoms(use_true_random=False))
def test_the_order_of_trials_changes_nothing_in_what_is_suggested(study, random):
    length, trials = study
    shuffled = random.sample(trials, len(trials))
    assert diagnose(shuffled, length, SELECTION) == diagnose(trials, length, SELECTION)


@modest
@given(studies())
def test_negated_values_of_which_higher_is_better_change_nothing(study):
    length, trials = study
    found = diagnose(trials, length, SELECTION)
    other = diagnose(mirrored(trials, METRIC), length, HIGHER)
    differing = {name for name in found if found[name] != other[name]}
    assert differing <= {"competes_at", "means"}
    if found["trials"]:
        assert other["competes_at"] == -found["competes_at"]


@modest
@given(studies())
def test_a_diverged_trial_that_was_the_best_suggests_no_schedule(study):
    length, trials = study
    ahead = trial(
        len(trials), 1, length, status="diverged", best=0.0, schedule=Schedule(9.0, 0, length)
    )
    without, with_it = (diagnose(ts, length, SELECTION) for ts in (trials, [ahead, *trials]))
    for key in ("verdict", "suggested_max_train_steps", "suggested_schedule", "means"):
        assert with_it[key] == without[key]


def test_of_equally_good_trials_the_first_one_gives_the_schedule():
    rates = {2: 0.2, 0: 0.3, 1: 0.4, 3: 0.5}
    trials = [
        trial(n, 500, 1000, best=0.15 if n == 0 else 0.1, schedule=Schedule(rate, 0, 1000))
        for n, rate in rates.items()
    ]
    assert suggested(diagnose(trials, 1000, SELECTION)) == Schedule(0.4, 0, 1000)


@pytest.mark.parametrize(
    ("best_step", "before", "after"),
    [
        # Too short: as transfer does it.
        (1000, Schedule(0.1, 50, 600, 350, "linear"), Schedule(0.1, 50, 1600, 350, "linear")),
        (1000, Schedule(0.1, 50, 0, 950, "cosine"), Schedule(0.1, 50, 0, 1950, "cosine")),
        (1000, Schedule(0.1, 0, 1000), Schedule(0.1, 0, 2000)),
        # Too long, 200 steps would do: warmup and decay stay where they fit.
        (100, Schedule(0.1, 50, 850, 100, "linear"), Schedule(0.1, 50, 50, 100, "linear")),
        (100, Schedule(0.1, 50, 800, 150, "linear"), Schedule(0.1, 50, 0, 150, "linear")),
        (100, Schedule(0.1, 50, 950), Schedule(0.1, 50, 150)),
        # And else shrink in proportion, here to a fifth.
        (100, Schedule(0.1, 50, 795, 155, "linear"), Schedule(0.1, 10, 159, 31, "linear")),
        (100, Schedule(0.1, 50, 0, 950, "cosine"), Schedule(0.1, 10, 0, 190, "cosine")),
        (100, Schedule(0.1, 250, 750), Schedule(0.1, 50, 150)),
        # An inverse square root ends earlier, at what the longer run had there.
        (
            100,
            Schedule(0.1, 50, 0, 950, "inverse_sqrt", timescale_steps=50),
            Schedule(0.1, 50, 0, 150, "inverse_sqrt", timescale_steps=50),
        ),
        # Unless it ends before its decay.
        (
            100,
            Schedule(0.1, 200, 0, 800, "inverse_sqrt", timescale_steps=200),
            Schedule(0.1, 40, 0, 160, "inverse_sqrt", timescale_steps=200),
        ),
        (500, Schedule(0.1, 50, 0, 950, "cosine"), Schedule(0.1, 50, 0, 950, "cosine")),
    ],
)
def test_suggested_schedules(best_step, before, after):
    diagnosis = diagnose_steps([best_step] * 3, schedule=before)
    assert suggested(diagnosis) == after
    assert ("schedule of the best trial" in diagnosis["means"]) is (before != after)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 1000).flatmap(
        lambda n: st.tuples(schedules(n), st.integers(1, n)),
    )
)
def test_shortened_keeps_warmup_and_decay_where_they_fit(schedule_and_length):
    before, length = schedule_and_length
    after = shortened(before, length)
    assert after.total_steps == length
    kept = ("warmup_steps", "decay_steps", "final_steps", "drop_steps")
    same = {f.name for f in dataclasses.fields(Schedule)} - {*kept, "constant_steps"}
    assert all(getattr(after, name) == getattr(before, name) for name in same)
    if before.total_steps - before.constant_steps <= length:
        assert all(getattr(after, name) == getattr(before, name) for name in kept)
    elif before.decay == "inverse_sqrt" and before.decay_start_step < length:
        beginning = before.learning_rates(length)
        assert after.learning_rates().tolist() == beginning.tolist()
    else:
        # In proportion, but for rounding and one step that a decay keeps at least.
        for name in ("warmup_steps", "constant_steps", "decay_steps", "final_steps"):
            share = getattr(before, name) * length / before.total_steps
            assert abs(getattr(after, name) - share) <= 2


@modest
@given(
    st.integers(1, 500).flatmap(
        lambda n: schedules(n, ("none", "linear", "1-sqrt", "exponential", "polynomial", "step"))
    ),
    st.integers(0, 500),
)
def test_shortened_takes_a_transfer_back(schedule, extra_steps):
    longer = transfer(schedule, schedule.total_steps + extra_steps).after
    assert shortened(longer, schedule.total_steps) == schedule


@pytest.mark.parametrize("length", [0, -1, 101])
def test_shortened_only_shortens(length):
    with pytest.raises(ValueError, match="100 steps cannot be shortened"):
        shortened(Schedule(0.1, 10, 90), length)


@pytest.mark.parametrize("best_step", [50, 500, 1000])
def test_a_function_of_ones_own_has_no_schedule_at_another_length(best_step, monkeypatch):
    rates = types.SimpleNamespace(rates=lambda step: 0.1)
    monkeypatch.setitem(sys.modules, "my_lab", rates)
    own = Schedule(0.1, decay_steps=1000, decay="function", function="my_lab.rates")
    with pytest.raises(NoTransferRuleError, match=r"my_lab\.rates"):
        shortened(own, 100)
    diagnosis = diagnose_steps([best_step] * 3, schedule=own)
    if best_step == 500:
        assert suggested(diagnosis) == own
        assert diagnosis["caveats"] == []
    else:
        assert diagnosis["suggested_schedule"] is None
        assert len(diagnosis["caveats"]) == 1
        assert "my_lab.rates" in diagnosis["caveats"][0]


@pytest.mark.parametrize(
    ("best_step", "schedule", "words"),
    [
        (
            1000,
            Schedule(0.1, 50, 600, 350, "linear"),
            "0.1 with warmup 50, constant 1600 and linear decay over 350 steps",
        ),
        (100, Schedule(0.25, 0, 1000), "0.25 with constant 200 steps"),
        (100, Schedule(0.1, 50, 950), "0.1 with warmup 50 and constant 150 steps"),
        (
            100,
            Schedule(0.1, 0, 0, 1000, "inverse_sqrt"),
            "0.1 with inverse sqrt decay over 200 steps",
        ),
        (
            100,
            Schedule(0.1, 0, 900, 60, "cosine", 0.001, final_steps=40),
            "0.1 with constant 100, cosine decay over 60 and final 40 steps",
        ),
    ],
)
def test_the_sentence_tells_the_suggested_schedule_in_words(best_step, schedule, words):
    diagnosis = diagnose_steps([best_step] * 3, schedule=schedule)
    assert diagnosis["means"].endswith(f"base learning rate {words}.")
    assert "best trial (0)" in diagnosis["means"]


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
