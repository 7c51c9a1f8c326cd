import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from budgetflow.playbook.common.rank_correlation import rank_correlation

INF = math.inf


def one_seed(costs):
    return [(cost,) for cost in costs]


def correlation(earlier, later):
    return rank_correlation(one_seed(earlier), one_seed(later))


pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9)


@settings(deadline=None, max_examples=60)
@given(pairs)
def test_tau_is_scipys(values):
    earlier, later = zip(*values, strict=True)
    found = correlation(earlier, later)
    if len(set(earlier)) == 1 or len(set(later)) == 1:
        assert found is None
        return
    assert found.tau == pytest.approx(stats.kendalltau(earlier, later).statistic)
    assert (found.low is None) == (len(values) < 5)
    if found.low is not None:
        assert -1 <= found.low <= found.tau + 1e-9
        assert found.tau - 1e-9 <= found.high <= 1
        assert found == correlation(earlier, later)


@pytest.mark.parametrize("count", [5, 8, 20])
def test_perfect_agreement_of_a_few_settings_is_no_certainty(count):
    found = correlation(range(count), range(count))
    independent = count // 2
    assert (found.tau, found.high) == (1, 1)
    # The tau at which all independent pairs agree by chance in 2.5 %.
    assert ((1 + found.low) / 2) ** independent == pytest.approx(0.025)
    mirrored = correlation(range(count), range(count, 0, -1))
    assert (mirrored.tau, mirrored.low, mirrored.high) == (-1, -1, -found.low)


def test_what_diverged_ranks_last():
    found = correlation([1, 2, INF], [1, 2, math.nan])
    assert found.tau == 1
    assert rank_correlation([(1, 2), (3, 4)], [(1, INF), (3, 4)]).tau == -1


def test_noise_between_seeds_widens_the_interval():
    means = np.array([0.0, 1.0, 3.0, 2.0, 4.0, 5.0, 7.0, 6.0])
    later = one_seed(means + np.array([0, 0, 0, 0, 1.5, 0, 0, 0]))
    calm = rank_correlation([(m, m) for m in means], later)
    noisy = rank_correlation([(m - 2, m + 2) for m in means], later)
    assert noisy.tau == calm.tau
    assert noisy.low < calm.low


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    for tau in (0.0, 0.8):
        rho = math.sin(math.pi / 2 * tau)  # of a bivariate normal distribution
        missed = 0
        for _ in range(200):
            x, z = rng.normal(size=(2, 6))
            found = correlation(x, rho * x + math.sqrt(1 - rho**2) * z)
            missed += not found.low <= tau <= found.high
        assert missed <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_rounds_of_different_settings_are_refused():
    with pytest.raises(ValueError, match="2 settings before and 1 after"):
        rank_correlation([(1,), (2,)], [(1,)])
