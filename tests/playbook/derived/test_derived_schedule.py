"""How learning rates, decays and lengths of the next round are derived from a round's."""

import pytest
from test_derived_search_space import LINEAR, derived, trial

from budgetflow.config import choices, log_uniform, uniform
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.derived.trials import next_points


def test_base_learning_rate_and_decay_are_swept_around_the_winners():
    schedule = Schedule(0.1, 10, 60, 30, "linear")
    space = [
        log_uniform("schedule.base_learning_rate", 1e-3, 1.0),
        choices("schedule.decay_steps", 30, 60),
        choices("schedule.decay", "linear", "cosine"),
    ]
    setting = {
        "schedule.base_learning_rate": 0.1,
        "schedule.decay_steps": 30,
        "schedule.decay": "linear",
    }
    found = derived(space, [trial(0, 0.1, setting, schedule)])
    rate, length, family = found.rows
    assert (rate.action, rate.searched, rate.values) == ("swept", "around", (0.1, 0.05, 0.2))
    assert (length.action, length.values) == ("swept", (30, 90, 15, 45, 60, 180))
    assert (family.action, family.value, family.dimension) == ("winner_only", "linear", None)
    drawn = next_points(found, seed=0, trials=20)
    sweeps = [
        {**setting, "schedule.decay_steps": 90},
        {**setting, "schedule.base_learning_rate": 0.05},
        {**setting, "schedule.decay_steps": 15},
        {**setting, "schedule.base_learning_rate": 0.2},
        {**setting, "schedule.decay_steps": 45},
        {**setting, "schedule.decay_steps": 60},
        {**setting, "schedule.decay_steps": 180},
    ]
    assert drawn[:7] == sweeps
    assert next_points(found, seed=0, trials=3) == sweeps[:3]
    # Three rates times six lengths, without the winner's own.
    assert len(drawn) == 17


@pytest.mark.parametrize(
    ("schedule", "field", "before", "value", "values"),
    [
        # A decay after a constant period keeps its steps; its share of the run is tried, too.
        (LINEAR, "decay_fraction", 0.3, 0.1, (0.1, 0.3, 0.05, 0.15, 0.2, 0.6)),
        # A cosine over all of the run is stretched, and cannot be any longer.
        (Schedule(0.1, 10, 0, 90, "cosine"), "decay_steps", 90, 290, (290, 145)),
        (
            Schedule(0.1, 10, 0, 90, "cosine"),
            "decay_fraction",
            0.9,
            290 / 300,
            (290 / 300, 145 / 300),
        ),
        (Schedule(0.1, 0, 99, 1, "linear"), "decay_steps", 1, 1, (1, 3, 2, 6)),
        # None to sweep.
        (Schedule(0.1, 10, 90), "decay_steps", None, 0, ()),
        # Drops keep their distance from the end.
        (
            Schedule(0.1, 10, 60, 30, "step", drop_steps=(0, 20)),
            "drop_steps",
            (70, 90),
            (270, 290),
            (),
        ),
        (LINEAR, "warmup_fraction", 0.1, 10 / 300, ()),
        (LINEAR, "warmup_steps", 10, 10, ()),
        (Schedule(0.1, 0, 70, 30, "linear"), "warmup_steps", None, 0, ()),
    ],
)
def test_lengths_are_those_of_the_next_round(schedule, field, before, value, values):
    name = f"schedule.{field}"
    (row,) = derived([choices(name, before)], [trial(0, 0.1, {name: before}, schedule)]).rows
    assert (row.value, row.values) == (value, values)


def test_a_fraction_that_is_narrowed_is_one_of_the_next_run():
    name = "schedule.warmup_fraction"
    records = [
        trial(n, 0.1 + n / 100, {name: steps / 100}, Schedule(0.1, steps, 100 - steps))
        for n, steps in enumerate([20, 10, 30])
    ]
    (row,) = derived(
        [uniform(name, 0.0, 0.8)], records, {name: "narrowed"}, max_train_steps=200
    ).rows
    assert row.value == 0.1
    assert (row.low, row.high) == pytest.approx((0.0, 0.2))
    assert (row.low_before, row.high_before) == (0.0, 0.4)


def test_a_schedule_without_a_rule_stays_and_says_so():
    name = "schedule.warmup_steps"
    schedule = Schedule(0.1, 10, 0, 90, "inverse_sqrt", timescale_steps=10)
    found = derived([choices(name, 10, 20)], [trial(0, 0.1, {name: 10}, schedule)])
    assert found.winner == {name: 10}
    assert "inverse" in found.no_schedule_because
