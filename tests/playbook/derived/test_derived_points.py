"""What is drawn from a derived search space, and that it can be written and read."""

import dataclasses
import itertools
import json
import math

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_derived_search_space import (
    FIELDS,
    derived,
    dimensions,
    holds,
    modest,
    overrides_of,
    studies,
    trial,
)

from budgetflow.config import choices, log_uniform, uniform
from budgetflow.config.search_space import TAGS, Dimension, points
from budgetflow.playbook.derived.search_space import ACTIONS, CarriedField, Derivation
from budgetflow.playbook.derived.trials import next_points


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
