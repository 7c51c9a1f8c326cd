"""What the next round searches: by tags, by the trials that compete, and by the config's word."""

import dataclasses
import itertools
import json
import math

import pydantic
import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, log_uniform, uniform
from budgetflow.config.search_space import TAGS, Dimension, points
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.search_space import (
    ACTIONS,
    CarriedField,
    Derivation,
    NothingToCarryOverError,
    derive,
    plan,
)
from budgetflow.playbook.derived.transfer_tags import default_tag
from budgetflow.playbook.derived.trials import next_points

METRIC = "validation_loss"
SELECTION = Selection(METRIC)
LINEAR = Schedule(0.1, 10, 60, 30, "linear")
modest = settings(max_examples=100, deadline=None)

FIELDS = (
    "optimizer.momentum",
    "model.width",
    "model.init_scale",
    "regularization.weight_decay",
    "schedule.power",
)


def trial(number, value, setting, schedule=LINEAR, status="complete"):
    """A trial whose metric goes from 1 at a tenth of its run to ``value`` at the end."""
    rows = [{"step": 10, METRIC: 1.0}, {"step": 100, METRIC: value}]
    return trial_record(number, schedule, rows, hyperparameters=setting, status=status)


# Of the trials above, those that are no better than this do not compete.
HOPELESS = 1.0


def derived(space, records, overrides=None, max_train_steps=300):
    return derive(space, records, SELECTION, overrides or {}, max_train_steps=max_train_steps)


def only_row(dimension, values, overrides=None, **fields):
    """The row of one dimension; its trials are of equal worth but for the first, the best."""
    name = dimension.name
    records = [trial(n, 0.1 + 0.01 * bool(n), {name: v}) for n, v in enumerate(values)]
    (row,) = derived([dimension], records, overrides, **fields).rows
    return row


@st.composite
def dimensions(draw, name):
    kind = draw(st.sampled_from(["choices", "numbers", "uniform", "log_uniform"]))
    tag = draw(st.sampled_from([None, *TAGS]))
    if kind == "choices":
        values = draw(st.lists(st.text("abc", max_size=2), min_size=1, max_size=4, unique=True))
        return choices(name, *values, tag=tag)
    if kind == "numbers":
        values = draw(st.lists(st.floats(0, 9), min_size=1, max_size=6, unique=True))
        return choices(name, *values, tag=tag)
    low = draw(st.floats(1e-6, 10.0))
    high = low * draw(st.floats(1.01, 1e6))
    make = uniform if kind == "uniform" else log_uniform
    return make(name, low, high, tag=tag)


@st.composite
def studies(draw):
    """A search space, and trials of its points."""
    count = draw(st.integers(1, len(FIELDS)))
    space = [draw(dimensions(name)) for name in FIELDS[:count]]
    drawn = points(space, "random", draw(st.integers(1, 12)), draw(st.integers(0, 999)))
    values = st.floats(0, 0.999)
    return space, [trial(2 * n, draw(values), point) for n, point in enumerate(drawn)]


@st.composite
def overrides_of(draw, space):
    chosen = draw(st.lists(st.sampled_from([d.name for d in space]), unique=True))
    return {name: draw(st.sampled_from(ACTIONS)) for name in chosen}


def holds(dimension, value):
    if dimension.distribution == "choices":
        return value in dimension.values
    return dimension.low <= value <= dimension.high


@modest
@given(studies(), st.data())
def test_the_winner_lies_within_what_is_derived(study, data):
    space, records = study
    overrides = data.draw(overrides_of(space))
    found = derived(space, records, overrides)
    best = next(record for record in records if record.trial == found.best_trial)
    assert min(r.rows[-1][METRIC] for r in records) == best.rows[-1][METRIC]
    assert [row.field for row in found.rows] == [dimension.name for dimension in space]
    for row in found.rows:
        assert row.value == best.hyperparameters[row.field] == found.winner[row.field]
        assert row.dimension is None or holds(row.dimension, row.value)
        if row.dimension and row.dimension.distribution == "choices":
            assert row.dimension.values[0] == row.value


@modest
@given(studies(), st.data())
def test_hopeless_and_diverged_trials_change_nothing(study, data):
    space, records = study
    overrides = data.draw(overrides_of(space))
    added = []
    for n, point in enumerate(points(space, "random", data.draw(st.integers(1, 20)), seed=1)):
        diverged = data.draw(st.booleans())
        value = -1.0 if diverged else data.draw(st.floats(HOPELESS + 1e-6, 9))
        worse = trial(2 * n + 1, value, point, status="diverged" if diverged else "complete")
        if not diverged:  # nor is it any better on the way
            worse = trial_record(
                2 * n + 1, LINEAR, [{"step": 100, METRIC: value}], hyperparameters=point
            )
        added.append(worse)
    assert derived(space, [*added, *records], overrides) == derived(space, records, overrides)


@modest
@given(studies(), st.data())
def test_the_action_is_the_tags_or_the_overrides(study, data):
    space, records = study
    overrides = data.draw(overrides_of(space))
    by_tag = dict(zip(TAGS, ACTIONS, strict=True))
    found = derived(space, records, overrides)
    for dimension, row, planned in zip(space, found.rows, plan(space, overrides), strict=True):
        expected = by_tag[dimension.tag or default_tag(dimension.name)]
        if dimension.name == "schedule.power" and dimension.tag is None:
            expected = "winner_only"
        assert row.action == planned.action == overrides.get(dimension.name, expected)
        assert row.tag == planned.tag == (dimension.tag or default_tag(dimension.name))
        assert row.tagged_by == ("config" if dimension.tag else "playbook")
        assert row.overridden == planned.overridden == (dimension.name in overrides)
        if row.action in ("pinned", "winner_only"):
            assert row.dimension is None
            assert row.searched is None


@pytest.mark.parametrize(
    ("tag", "override", "distribution"),
    list(
        itertools.product(
            [None, *TAGS], [None, *ACTIONS], ["choices", "names", "uniform", "log_uniform"]
        )
    ),
)
def test_every_combination_gives_valid_points(tag, override, distribution):
    makers = {
        "choices": lambda name: choices(name, 0.2, 0.4, 0.6, 0.8, tag=tag),
        "names": lambda name: choices(name, "a", "b", tag=tag),
        "uniform": lambda name: uniform(name, 0.1, 0.9, tag=tag),
        "log_uniform": lambda name: log_uniform(name, 0.01, 0.9, tag=tag),
    }
    name = "optimizer.b1"
    dimension = makers[distribution](name)
    found = derived(
        [dimension],
        [trial(n, 0.1 + n / 100, p) for n, p in enumerate(points([dimension], "random", 6, 0))],
        {name: override} if override else {},
    )
    (row,) = found.rows
    for point in next_points(found, seed=0, trials=5):
        assert point != found.winner
        assert row.dimension is not None
        assert holds(row.dimension, point[name])


# What the trials say


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6], [0.5, 0.6, 0.6, 0.5, 0.5]])
def test_fewer_than_three_different_values_say_nothing(values):
    row = only_row(uniform("optimizer.b1", 0.1, 0.9), values)
    assert (row.searched, row.low, row.high) == ("too_few", 0.1, 0.9)


def test_other_seeds_of_a_setting_are_no_other_settings():
    name = "optimizer.b1"
    records = [trial(n, 0.1, {name: 0.5, "seed": n}) for n in range(5)]
    (row,) = derived([uniform(name, 0.1, 0.9)], records).rows
    assert (row.searched, row.competing) == ("too_few", 1)


def test_few_settings_drop_no_choice():
    row = only_row(choices("optimizer.name", "sgd", "adam"), ["sgd"] * 3)
    # One setting three times is one setting.
    assert (row.searched, row.competing, row.values) == ("too_few", 1, ("sgd", "adam"))


def with_another(dimension, values):
    """A study whose settings all differ in a second hyperparameter."""
    name = dimension.name
    records = [
        trial(n, 0.1 + 0.01 * bool(n), {name: v, "optimizer.b1": n / 100})
        for n, v in enumerate(values)
    ]
    return derived([dimension, uniform("optimizer.b1", 0, 1)], records).rows[0]


@pytest.mark.parametrize(
    ("count", "searched", "values"),
    [(4, "too_few", ("adam", "sgd")), (5, "spread", ())],
)
def test_a_choice_is_dropped_where_chance_does_not_explain_it(count, searched, values):
    # One of two equally good choices is missing among 4 settings in 1/8 of cases, among 5 in 1/16.
    row = with_another(choices("optimizer.name", "sgd", "adam"), ["adam"] * count)
    assert (row.searched, row.values, row.competing) == (searched, values, count)
    assert row.competing_values == ("adam",)


def test_a_row_has_the_evidence_for_its_reason():
    row = only_row(uniform("optimizer.b1", 2.0, 3.0), [2.01, 2.2, 2.1])
    assert (row.searched, row.at_edge) == ("spread", "low")
    assert (row.low, row.high) == pytest.approx((1.75, 2.295))
    assert (row.low_before, row.high_before) == (2.0, 3.0)
    assert (row.competing, row.competing_low, row.competing_high) == (3, 2.01, 2.2)


# Sweeps of the schedule, and lengths


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


def test_an_unlikely_field_that_is_not_the_schedules_is_searched_anew():
    row = only_row(uniform("optimizer.b1", 0.1, 0.9, tag="unlikely"), [0.5, 0.5, 0.5, 0.52])
    assert (row.action, row.searched, row.low, row.high) == ("swept", "whole", 0.1, 0.9)


# The config's word


@modest
@given(st.data())
def test_the_round_after_the_next_reads_what_was_searched(data):
    tags = st.sampled_from([None, *TAGS])
    space = [dataclasses.replace(data.draw(dimensions(f)), tag=data.draw(tags)) for f in FIELDS]
    records = [trial(n, 0.1 * n, point) for n, point in enumerate(points(space, "halton", 6, 0))]
    found = derived(space, records)
    written = json.loads(json.dumps([dataclasses.asdict(row) for row in found.rows]))
    reader = pydantic.TypeAdapter(tuple[CarriedField, ...])
    again = [row.searched_dimension for row in reader.validate_python(written)]
    assert again == [row.searched_dimension for row in found.rows]
    for dimension, before, row in zip(again, space, found.rows, strict=True):
        assert (dimension.name, dimension.tag) == (before.name, before.tag)
        if row.dimension is None:
            assert dimension.values == (row.value,)
        else:
            assert dataclasses.replace(dimension, tag=row.tag) == row.dimension


def test_a_dimension_of_the_config_replaces_what_is_derived():
    name = "optimizer.b1"
    row = only_row(uniform(name, 0.1, 0.9), [0.5], {name: uniform(name, 0.7, 0.8)})
    assert (row.action, row.searched, row.low, row.high) == ("swept", "dimension", 0.7, 0.8)
    assert row.overridden


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        ({"optimizer.b2": "pinned"}, r"optimizer\.b2.*did you mean 'optimizer\.b1'"),
        ({"optimizer.b1": "pined"}, "'pined'.*did you mean 'pinned'"),
        ({"optimizer.b1": 3}, "= 3: neither"),
        ({"optimizer.b1": uniform("optimizer.b2", 0, 1)}, r"'optimizer\.b2'.*'optimizer\.b1'"),
    ],
)
def test_bad_overrides_are_refused_with_the_nearest(overrides, hint):
    space = [uniform("optimizer.b1", 0.1, 0.9)]
    for act in (
        lambda: derived(space, [trial(0, 0.1, {"optimizer.b1": 0.5})], overrides),
        lambda: plan(space, overrides),
    ):
        with pytest.raises(ConfigError, match=hint):
            act()


def test_there_is_nothing_to_carry_over_where_every_trial_diverged():
    records = [trial(0, 0.1, {"optimizer.b1": 0.5}, status="diverged")]
    with pytest.raises(NothingToCarryOverError, match="all 1 trials diverged"):
        derived([uniform("optimizer.b1", 0.1, 0.9)], records)


def test_a_shorter_round_and_a_winner_without_a_value_are_refused():
    space = [uniform("optimizer.b1", 0.1, 0.9)]
    with pytest.raises(ValueError, match="fewer"):
        derived(space, [trial(0, 0.1, {"optimizer.b1": 0.5})], max_train_steps=99)
    with pytest.raises(ValueError, match=r"trial 0, the best, has no value of optimizer\.b1"):
        derived(space, [trial(0, 0.1, {})])


# Points


@modest
@given(studies(), st.integers(0, 20), st.integers(0, 2**32 - 1), st.data())
def test_points_are_complete_and_new(study, count, seed, data):
    space, records = study
    found = derived(space, records, data.draw(overrides_of(space)))
    drawn = next_points(found, seed, count)
    keys = [json.dumps(point) for point in drawn]
    assert len(keys) == len({*keys}) <= count
    assert json.dumps(found.winner) not in keys
    searched = {dimension.name: dimension for dimension in found.space}
    for point in drawn:
        assert [*point] == [dimension.name for dimension in space]
        for name, value in point.items():
            assert value == found.winner[name] or holds(searched[name], value)
    sizes = [len(d.values) if d.values else math.inf for d in found.space]
    assert len(drawn) == min(count, math.prod(sizes) - 1)
    assert next_points(found, seed, count) == drawn


def test_lists_of_a_trials_file_are_tuples():
    name = "model.hidden_sizes"
    found = derived([choices(name, (8, 8), (4,))], [trial(0, 0.1, {name: [8, 8]})])
    assert found.winner == {name: (8, 8)}


@modest
@given(studies())
def test_what_is_derived_can_lie_in_an_outcome(study):
    found = derived(*study)
    as_json = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    assert pydantic.TypeAdapter(Derivation).validate_python(as_json) == found


def test_what_is_derived_can_be_a_search_space():
    records = [trial(n, 0.1 + n / 100, {"optimizer.b1": v}) for n, v in enumerate([0.5, 0.4, 0.6])]
    (dimension,) = derived([uniform("optimizer.b1", 0.1, 0.9)], records).space
    assert isinstance(dimension, Dimension)
    assert (dimension.name, dimension.tag) == ("optimizer.b1", "might")
