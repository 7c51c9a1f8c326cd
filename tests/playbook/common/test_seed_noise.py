import math

import pytest

from budgetflow.playbook.common.seed_noise import Noise, pooled_noise, with_floor


def test_noise_is_pooled_over_settings_by_their_degrees_of_freedom():
    found = pooled_noise([(1.0, 3.0), (10.0, 11.0, 12.0), (7.0,)])
    assert found == Noise(pytest.approx(math.sqrt((2 + 2) / 3)), 3)


@pytest.mark.parametrize("groups", [[], [(1.0,), (2.0,)], [(1.0, math.inf)], [(math.nan,) * 3]])
def test_without_two_finite_seeds_there_is_no_estimate(groups):
    assert pooled_noise(groups) is None
    assert pooled_noise(groups, resolution=0.1) is None


def test_noise_is_at_least_the_resolution():
    assert pooled_noise([(1.0, 1.0)], resolution=0.1) == Noise(0.1, 1)
    assert pooled_noise([(1.0, 3.0)], resolution=0.1).sd > 1


def test_rounding_is_no_noise():
    assert pooled_noise([(0.1, 0.1), (0.3, 0.1 + 0.2)]) is None
    assert with_floor(Noise(1e-7, 4), scale=1.0, resolution=0.0) is None
    assert with_floor(Noise(1e-5, 4), scale=1.0, resolution=0.0) == Noise(1e-5, 4)
