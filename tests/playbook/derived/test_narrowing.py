"""A neighbourhood of the trials that compete, as wide as they can tell."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from budgetflow.config import choices, log_uniform, uniform
from budgetflow.config.search_space import points
from budgetflow.playbook.derived.narrowing import (
    EXTENSION,
    MIN_SETTINGS,
    MISSING_BY_CHANCE,
    edge,
    narrow,
)

modest = settings(max_examples=100, deadline=None)


@modest
@given(st.floats(0, 1), st.integers(MIN_SETTINGS, 8), st.integers(0, 999))
def test_a_range_narrows_to_the_span_of_what_competes_and_its_margin(center, count, seed):
    dimension = uniform("optimizer.b1", 2.0, 3.0)
    low = 2.2 + 0.3 * center
    values = [
        point["optimizer.b1"]
        for point in points([uniform("optimizer.b1", low, low + 0.3)], "random", count, seed)
    ]
    assume(len(set(values)) == count)
    how, row = narrow(dimension, values)
    assert how == "spread"
    span = max(values) - min(values)
    margin = span / (count - 1)
    expected_low = min(min(values) - margin, values[0] - 0.1)
    expected_high = max(max(values) + margin, values[0] + 0.1)
    assert row.low == pytest.approx(max(expected_low, 2.0))
    assert row.high == pytest.approx(min(expected_high, 3.0))


def test_a_log_range_narrows_in_decades():
    _, row = narrow(log_uniform("optimizer.eps", 1e-8, 1e-2), [1e-5, 1e-6, 1e-4])
    assert (row.low, row.high) == pytest.approx((1e-7, 1e-3))
    assert row.distribution == "log_uniform"


def test_a_range_that_does_not_matter_is_kept_on_average():
    dimension = uniform("optimizer.b1", 0.0, 1.0)
    widths = []
    for seed in range(300):
        values = [p["optimizer.b1"] for p in points([dimension], "random", 6, seed)]
        lowest, highest = min(values), max(values)
        row = narrow(dimension, values).dimension
        widths.append((row.high - row.low, highest - lowest))
    narrowed, spans = (sum(column) / 300 for column in zip(*widths, strict=True))
    assert spans < 0.75  # what the bare span would leave: 5/7 on average
    assert narrowed > 0.85  # what is beyond the range is cut off


@pytest.mark.parametrize(
    ("dimension", "values", "side", "low", "high"),
    [
        (uniform("model.a", 2.0, 3.0), [2.01, 2.1, 2.2], "low", 2 - EXTENSION, 2.295),
        (uniform("model.a", 2.0, 3.0), [2.99, 2.9, 2.8], "high", 2.705, 3 + EXTENSION),
        # Not below half of the way to 0, nor beyond half of the way to 1.
        (uniform("model.a", 0.1, 1.1), [0.11, 0.2, 0.3], "low", 0.05, 0.395),
        (uniform("model.a", 0.0, 0.5), [0.01, 0.02, 0.03], "low", 0.0, 0.06),
        (uniform("model.a", 0.1, 0.9), [0.89, 0.88, 0.87], "high", 0.81, 0.95),
        (log_uniform("model.a", 1e-4, 1.0), [0.99, 0.9, 0.8], "high", None, 1.0),
        (log_uniform("model.a", 1e-4, 1e-0), [1e-4, 2e-4, 3e-4], "low", 1e-5, None),
    ],
)
def test_a_winner_at_an_edge_is_flagged_and_the_range_extended(dimension, values, side, low, high):
    _, row = narrow(dimension, values)
    assert edge(dimension, values[0]) == side
    for found, expected in ((row.low, low), (row.high, high)):
        assert expected is None or found == pytest.approx(expected)


@modest
@given(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=8), st.booleans())
def test_the_winner_and_the_least_width_are_in_what_is_left(winner, others, in_decades):
    dimension = (log_uniform if in_decades else uniform)("optimizer.b1", 2.0, 3.0)
    values = [min(max(dimension.value_at(q), 2.0), 3.0) for q in (winner, *others)]
    how, row = narrow(dimension, values)
    assert row.low <= values[0] <= row.high
    assert row.high - row.low > 0.08
    assert (how == "too_few") == (len({*values}) < MIN_SETTINGS)
    if how == "too_few":
        assert (row.low, row.high) == (2.0, 3.0)


def test_ordered_choices_keep_the_neighbours_of_the_winners():
    dimension = choices("model.width", 8, 1, 2, 4, 16)
    assert narrow(dimension, [4] * 18).dimension.values == (4, 2, 8)
    assert narrow(dimension, [4, 16, *[4] * 16]).dimension.values == (4, 16, 2, 8)
    assert narrow(dimension, [1] * 18).dimension.values == (1, 2)
    assert narrow(dimension, [3] * 23).dimension.values == (3, 2, 4)


def test_names_have_no_neighbours():
    dimension = choices("optimizer.name", "a", "b", "c")
    assert narrow(dimension, ["b"] * 9) == ("spread", None)
    # Eight settings lack one of three equally good choices in up to 3 (2/3)^8 = 12 % of cases.
    how, kept = narrow(dimension, ["b"] * 8)
    assert (how, kept.values) == ("too_few", ("b", "a", "c"))


@pytest.mark.parametrize(
    ("values", "value", "side"),
    [
        ((8, 1, 4), 1, "low"),
        ((8, 1, 4), 8, "high"),
        ((8, 1, 4), 4, None),
        ((1, 8), 1, None),  # of two, each is at an end
        (("a", "b", "c"), "a", None),
        ((True, False, None), True, None),
    ],
)
def test_the_edge_of_choices(values, value, side):
    assert edge(choices("model.a", *values), value) == side


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("settings_drawn", [3, 5, 9, 14, 20])
def test_equally_good_choices_are_dropped_no_more_often_than_is_stated(count, settings_drawn):
    draws = random.Random(0)
    dimension = choices("optimizer.name", *"abcde"[:count])
    drops = 0
    for _ in range(1000):
        values = [draws.choice(dimension.values) for _ in range(settings_drawn)]
        kept = narrow(dimension, values).dimension
        drops += kept is None or len(kept.values) < count
    assert drops / 1000 <= MISSING_BY_CHANCE
