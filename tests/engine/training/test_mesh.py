import math

import pytest
from conftest import small_config
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from budgetflow.base.errors import ConfigError, nearest_numbers
from budgetflow.config.schema import MeshConfig
from budgetflow.engine.training.mesh import check_batch_size, make_mesh, mesh_sizes, partition_spec


def sizes(trial=1, data=1, fsdp=1, devices=8):
    return mesh_sizes(MeshConfig(trial=trial, data=data, fsdp=fsdp), devices)


def test_minus_one_takes_what_the_others_leave():
    assert sizes(1, -1, 1) == (1, 8, 1)
    assert sizes(-1, 2, 2) == (2, 2, 2)
    assert sizes(2, 1, -1) == (2, 1, 4)
    assert sizes(2, 2, 2) == (2, 2, 2)
    assert sizes(-1, -1, 2) == (4, 1, 2)
    assert sizes(1, -1, -1) == (1, 1, 8)


@given(st.tuples(*[st.sampled_from([-1, 1, 2, 3, 4, 6, 8])] * 3), st.integers(1, 64))
def test_a_mesh_has_every_device_or_is_refused(asked, devices):
    try:
        result = sizes(*asked, devices)
    except ConfigError:
        fixed = math.prod(size for size in asked if size > 0)
        fits = devices % fixed == 0 if -1 in asked else fixed == devices
        assert not fits
    else:
        assert math.prod(result) == devices
        assert all(ours in (size, -1) for ours, size in zip(asked, result, strict=True))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            (3, -1, 1),
            "trial 3 x fsdp 1 makes 3, which does not fit 8 devices; nearest that fits: 2 or 4",
        ),
        ((1, 16, 1), "makes 16, which does not fit 8 devices; nearest that fits: 8"),
        ((1, 2, 1), "set one of them to -1 to use all"),
        ((1, 0, 1), "config.mesh.data = 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest(asked, message):
    with pytest.raises(ConfigError, match=message):
        sizes(*asked)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest(digits):
    config = small_config(data__batch_size=30, gradient_accumulation=5)
    check_batch_size(config, make_mesh(config.mesh))
    with pytest.raises(
        ConfigError, match=r"gradient_accumulation = 4 .* nearest that fits: 3 or 5"
    ):
        small_config(data__batch_size=30, gradient_accumulation=4)


def test_the_nearest_number_may_be_many_times_as_large():
    assert nearest_numbers(2, lambda n: n % 24 == 0) == "nearest that fits: 24"
    assert nearest_numbers(30, lambda n: n % 24 == 0) == "nearest that fits: 24 or 48"
    assert nearest_numbers(1, lambda n: n == 1) == "no other number fits"


def spec(shape, fsdp=4):
    return partition_spec(shape, fsdp, min_sharded_size=64)


def test_the_largest_dimension_that_divides_is_cut():
    assert spec((8, 32)) == PartitionSpec(None, "fsdp")
    assert spec((32, 8)) == PartitionSpec("fsdp")
    assert spec((33, 8)) == PartitionSpec(None, "fsdp")
    assert spec((16, 16)) == PartitionSpec("fsdp")
    assert spec((33, 7)) == PartitionSpec()


def test_small_arrays_are_copied():
    assert spec((32,)) == PartitionSpec()
    assert spec(()) == PartitionSpec()
    assert spec((800, 800), fsdp=1) == PartitionSpec()
