"""Lengths of a search space at another length of the run: the same steps, where a rule says so."""

import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.config import choices, uniform
from budgetflow.config.schedule import ScheduleConfig, resolve_schedule
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.derived.next_length import next_length

LINEAR = Schedule(0.1, 10, 60, 30, "linear")
COSINE = Schedule(0.1, 10, 0, 90, "cosine")


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 0.4),
    st.floats(0.1, 0.5),
    st.integers(20, 5000),
    st.integers(0, 9000),
    st.sampled_from(["linear", "cosine"]),
)
def test_fractions_of_the_next_run_are_the_same_steps(warmup, decay, steps, extra, shape):
    config = ScheduleConfig(warmup_fraction=warmup, decay_fraction=decay, decay=shape)
    before = resolve_schedule(config, steps)
    if not before.constant_steps:  # which is stretched
        return
    setting = {"schedule.warmup_fraction": warmup, "schedule.decay_fraction": decay}
    trial = trial_record(0, before, hyperparameters=setting)
    at_length = next_length(before, steps + extra)
    found = {field: at_length.value_in(trial, field) for field in setting}
    for field, value in setting.items():
        assert at_length.dimension(choices(field, value)).values == (found[field],)
    config = ScheduleConfig(
        warmup_fraction=found["schedule.warmup_fraction"],
        decay_fraction=found["schedule.decay_fraction"],
        decay=shape,
    )
    after = resolve_schedule(config, steps + extra)
    assert (after.warmup_steps, after.decay_steps) == (before.warmup_steps, before.decay_steps)


def test_lengths_are_read_off_the_schedule_and_not_off_an_earlier_rounds_hyperparameters():
    stale = {"schedule.warmup_fraction": 0.5, "schedule.decay_steps": 7}
    trial = trial_record(0, LINEAR, hyperparameters=stale)
    at_length = next_length(LINEAR, 200)
    assert at_length.value_in(trial, "schedule.warmup_fraction") == 10 / 200
    assert at_length.value_in(trial, "schedule.decay_steps") == 30


def test_a_cosine_over_the_whole_run_is_stretched_and_so_are_the_others():
    at_length = next_length(COSINE, 190)
    assert at_length.stretch == 2
    assert at_length.dimension(choices("schedule.decay_steps", 90, 45)).values == (180, 90)
    found = at_length.dimension(uniform("schedule.decay_fraction", 0.2, 0.9))
    assert (found.low, found.high) == pytest.approx((40 / 190, 180 / 190))
    # It has its share of the run by rule, and cannot be any longer.
    assert at_length.decay_lengths("schedule.decay_steps", 180) == [180, 90]
    assert at_length.decay_lengths("schedule.decay_steps", 1) == [1, 2]


def test_a_decay_is_swept_around_its_steps_and_around_its_share_of_the_run():
    at_length = next_length(LINEAR, 1000)
    steps = [30, 300, 15, 150, 60, 600]
    assert at_length.decay_lengths("schedule.decay_steps", 30) == steps
    assert at_length.decay_lengths("schedule.decay_fraction", 0.03) == [s / 1000 for s in steps]
    # Twice 60 % of the run is longer than what warmup leaves of it.
    assert at_length.decay_lengths("schedule.decay_steps", 60)[-1] == 990
    assert next_length(LINEAR, 100).decay_lengths("schedule.decay_steps", 30) == [30, 15, 60]


def test_what_is_no_length_stays():
    at_length = next_length(LINEAR, 1000)
    for dimension in (
        uniform("optimizer.b1", 0.1, 0.9),
        choices("schedule.decay", "linear", "cosine"),
        choices("schedule.warmup_steps", 5, 10),
        choices("model.hidden_sizes", (8, 8), (4,)),
        choices("schedule.decay_steps", None, 30),
        choices("optimizer.momentum", None, 0.9),
    ):
        assert at_length.dimension(dimension) == dimension
    assert at_length.dimension(choices("schedule.warmup_steps", None, 5)).values == (0, 5)


def test_drops_keep_their_distance_from_the_end():
    schedule = Schedule(0.1, 10, 60, 30, "step", drop_steps=(0, 20))
    dimension = choices("schedule.drop_steps", (70, 90), (80,))
    assert next_length(schedule, 300).dimension(dimension).values == ((270, 290), (280,))
