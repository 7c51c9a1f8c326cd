"""What the next round searches: by tags, by the trials that compete, and by the config's word."""

import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, log_uniform, uniform
from budgetflow.config.search_space import TAGS, points
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.search_space import ACTIONS, NothingToCarryOverError, derive, plan
from budgetflow.playbook.derived.transfer_tags import default_tag

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


def test_an_unlikely_field_that_is_not_the_schedules_is_searched_anew():
    row = only_row(uniform("optimizer.b1", 0.1, 0.9, tag="unlikely"), [0.5, 0.5, 0.5, 0.52])
    assert (row.action, row.searched, row.low, row.high) == ("swept", "whole", 0.1, 0.9)


# The config's word


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
