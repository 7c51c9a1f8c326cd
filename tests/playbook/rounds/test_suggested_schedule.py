"""The schedule that the best-step diagnosis suggests for the next round; and its shortening."""

import dataclasses
import math
import sys
import types

import pytest
from conftest import diagnose, mirrored
from hypothesis import given, settings
from hypothesis import strategies as st
from test_best_step import METRIC, SELECTION, diagnose_steps, modest, suggested, trial

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.transfer import NoTransferRuleError, transfer
from budgetflow.playbook.rounds.best_step import shortened

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
