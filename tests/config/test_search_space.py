import dataclasses
import itertools
import json
import math

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, log_grid, log_uniform, uniform
from budgetflow.config.search_space import TAGS, Dimension, points
from budgetflow.studies import search_space as former_home

modest = settings(max_examples=60, deadline=None)

SEEDS = st.integers(0, 2**32 - 1)
QUANTILES = st.floats(0, 1, exclude_max=True) | st.just(math.nextafter(1, 0))
VALUES = st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text(max_size=3)


@st.composite
def dimensions(draw, name):
    kind = draw(st.sampled_from(["choices", "uniform", "log_uniform"]))
    if kind == "choices":
        return choices(name, *draw(st.lists(VALUES, min_size=1, max_size=5)))
    low = draw(st.floats(1e-8, 10.0))
    high = low * draw(st.floats(1.01, 1e6))
    return uniform(name, low, high) if kind == "uniform" else log_uniform(name, low, high)


@st.composite
def spaces(draw):
    return [draw(dimensions(f"model.field{i}")) for i in range(draw(st.integers(1, 5)))]


def is_in(value, dimension):
    if dimension.distribution == "choices":
        return any(value == v and type(value) is type(v) for v in dimension.values)
    return isinstance(value, float) and dimension.low <= value <= dimension.high


@modest
@given(spaces(), SEEDS, st.sampled_from(["random", "halton"]), st.integers(1, 12))
def test_every_point_has_a_value_of_every_dimension(space, seed, method, trials):
    drawn = points(space, method, trials, seed)
    assert len(drawn) == trials
    for point in drawn:
        assert list(point) == [dimension.name for dimension in space]
        assert all(is_in(point[dimension.name], dimension) for dimension in space)
        assert json.loads(json.dumps(point)) == point


@modest
@given(
    spaces(), SEEDS, st.sampled_from(["random", "halton"]), st.integers(0, 10), st.integers(0, 30)
)
def test_more_trials_only_add_points_at_the_end(space, seed, method, few, more):
    assert points(space, method, few + more, seed)[:few] == points(space, method, few, seed)


@pytest.mark.parametrize("method", ["random", "halton"])
def test_another_seed_gives_other_points(method):
    space = [uniform("optimizer.momentum", 0, 1)]
    assert points(space, method, 5, seed=0) != points(space, method, 5, seed=1)


@modest
@given(st.integers(1, 4), SEEDS, st.integers(1, 5))
def test_halton_points_cover_every_stretch_of_the_first_dimension(count, seed, power):
    # In base 2, of the first 2**k points one lies in each of 2**k equal stretches.
    space = [uniform(f"model.field{i}", 0, 1) for i in range(count)]
    drawn = points(space, "halton", 2**power, seed)
    stretches = sorted(int(point["model.field0"] * 2**power) for point in drawn)
    assert stretches == list(range(2**power))


@modest
@given(dimensions("model.field"), QUANTILES, QUANTILES)
def test_values_lie_in_their_range_and_grow_with_the_quantile(dimension, one, other):
    lower, higher = (dimension.value_at(quantile) for quantile in sorted((one, other)))
    assert is_in(lower, dimension)
    assert is_in(higher, dimension)
    if dimension.distribution != "choices":
        assert lower <= higher


def test_quantiles_are_spread_as_the_distribution_says():
    assert choices("model.depth", 2, 3, 4, 5).value_at(0.5) == 4
    assert [choices("model.depth", 2, 3).value_at(q) for q in (0, 0.49, 0.5, 0.99)] == [2, 2, 3, 3]
    assert uniform("optimizer.momentum", 1, 3).value_at(0.25) == 1.5
    rates = [log_uniform("schedule.rate", 1e-4, 1).value_at(q) for q in (0, 0.25, 0.5, 0.75)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])


def test_values_keep_their_types():
    values = choices("model.field", True, 1, 1.0, "1", (1, 2)).values
    assert [(type(value), value) for value in values] == [
        (bool, True),
        (int, 1),
        (float, 1.0),
        (str, "1"),
        (tuple, (1, 2)),
    ]


@modest
@given(st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_grid_is_every_combination_in_order_whatever_the_number_of_trials(values):
    space = [choices(f"model.field{i}", *options) for i, options in enumerate(values)]
    names = [dimension.name for dimension in space]
    expected = [
        dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)
    ]
    assert points(space, "grid", 1, seed=0) == expected
    assert points(space, "grid", 100, seed=1) == expected


@pytest.mark.parametrize("method", ["grid", "random", "halton"])
def test_no_dimension_is_one_trial_without_hyperparameters(method):
    assert points([], method, 16, seed=0) == [{}]


@pytest.mark.parametrize(
    "dimension", [uniform("model.width", 1, 2), log_uniform("model.width", 1, 2)]
)
def test_grid_search_over_a_range_is_refused_by_name(dimension):
    with pytest.raises(ConfigError, match=r"model\.width"):
        points([choices("model.depth", 1, 2), dimension], "grid", 4, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: choices("model.width"),
        lambda: uniform("model.width", 2, 1),
        lambda: uniform("model.width", 1, 1),
        lambda: uniform("model.width", math.nan, 1),
        lambda: uniform("model.width", 0, math.nan),
        lambda: uniform("model.width", 0, math.inf),
        lambda: uniform("model.width", -math.inf, 0),
        lambda: log_uniform("model.width", 0, 1),
        lambda: log_uniform("model.width", -1, 1),
        lambda: log_uniform("model.width", 2, 1),
        lambda: log_uniform("model.width", 1, math.inf),
    ],
)
def test_impossible_dimensions_are_refused_by_name(make):
    with pytest.raises(ConfigError, match=r"model\.width"):
        make()


@modest
@given(st.floats(1e-6, 1.0), st.floats(2.0, 1e6), st.integers(2, 12))
def test_log_grid_runs_from_low_to_high_at_equal_ratios(low, factor, count):
    grid = log_grid(low, low * factor, count)
    assert len(grid) == count
    assert grid[0] == pytest.approx(low, rel=1e-3)
    assert grid[-1] == pytest.approx(low * factor, rel=1e-3)
    ratio = factor ** (1 / (count - 1))
    for before, after in itertools.pairwise(grid):
        assert after / before == pytest.approx(ratio, rel=2e-3)


def test_log_grid_has_readable_numbers():
    assert log_grid(1e-3, 1, 7) == (0.001, 0.003162, 0.01, 0.03162, 0.1, 0.3162, 1.0)


def test_configs_may_import_search_spaces_from_where_they_once_were():
    assert former_home.log_uniform is log_uniform
    assert former_home.choices is choices


@pytest.mark.parametrize("tag", [None, *TAGS])
def test_every_kind_of_dimension_takes_a_tag_by_keyword(tag):
    made = [
        choices("optimizer.b1", 0.1, 0.2, tag=tag),
        uniform("optimizer.b1", 0.1, 0.2, tag=tag),
        log_uniform("optimizer.b1", 0.1, 0.2, tag=tag),
    ]
    assert [dimension.tag for dimension in made] == [tag] * 3
    assert made[0].values == (0.1, 0.2)


@pytest.mark.parametrize(
    ("tag", "hint"),
    [("likly", "'likely'"), ("very likely", "'very_likely'"), (3, "unlikely, very_likely")],
)
def test_a_tag_that_does_not_exist_is_refused_with_the_nearest(tag, hint):
    with pytest.raises(ConfigError, match=hint) as error:
        uniform("optimizer.b1", 0.1, 0.2, tag=tag)
    assert "optimizer.b1" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dimension_is_equal_to_one_of_the_same_content():
    for make in (lambda **more: choices("a", 1, 2, **more), lambda **more: uniform("a", 1, 2)):
        again = pydantic.TypeAdapter(Dimension).validate_python(dataclasses.asdict(make()))
        assert make() == again
        assert hash(make()) == hash(again)
    assert choices("a", 1, 2) != choices("a", 1, 3)
    assert choices("a", 1, 2) != choices("a", 1, 2, tag="might")
    assert choices("a", 1) != choices("a", True)


def test_tags_do_not_change_the_points():
    plain = [uniform("optimizer.b1", 0.1, 0.2), choices("model.depth", 1, 2)]
    tagged = [dataclasses.replace(dimension, tag="might") for dimension in plain]
    for method in ("random", "halton"):
        assert points(plain, method, 5, seed=0) == points(tagged, method, 5, seed=0)
