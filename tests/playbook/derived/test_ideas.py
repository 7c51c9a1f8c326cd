import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from budgetflow.playbook.derived.ideas import ALPHA, judge

STUDIES = 2000
BASELINE = dict(enumerate([1.0, 1.3, 0.9, 1.1, 1.2]))


def seeds(costs):
    return dict(enumerate(map(float, costs)))


def shifted(by, noise=(0.0, 0.01, -0.01, 0.02, -0.02)):
    return {seed: cost + by + noise[seed] for seed, cost in BASELINE.items()}


def only(costs, **options):
    (result,) = judge({"idea": costs}, BASELINE, **options)
    return result


def null_studies(draw, resolution=0.0, fewest=3):
    """In how many of 2,000 studies of 1 to 5 ideas that change nothing one is promoted."""
    rng, promoted = np.random.default_rng(0), 0
    for _ in range(STUDIES):
        count, n = int(rng.integers(1, 6)), int(rng.integers(fewest, 8))
        baseline, *ideas = draw(rng, (count + 1, n))
        entered = {str(i): seeds(costs) for i, costs in enumerate(ideas)}
        results = judge(entered, seeds(baseline), resolution=resolution)
        promoted += any(result.status == "promoted" for result in results)
    return promoted


@pytest.mark.parametrize(
    ("draw", "resolution"),
    [
        (lambda rng, size: rng.normal(size=size), 0.0),
        (lambda rng, size: rng.standard_t(2, size=size), 0.0),
        (lambda rng, size: rng.normal(size=size) * np.array([4, *[1] * (size[0] - 1)])[:, None], 0),
        (lambda rng, size: rng.binomial(100, 0.02, size=size) / 100, 0.01),
        (lambda rng, size: rng.binomial(360, 0.02, size=size) / 360, 0.0),
    ],
    ids=["normal", "heavy_tails", "noisier_baseline", "100_examples", "no_resolution"],
)
def test_ideas_that_change_nothing_are_promoted_in_at_most_alpha(draw, resolution):
    most = STUDIES * ALPHA + 3 * math.sqrt(STUDIES * ALPHA * (1 - ALPHA))
    assert null_studies(draw, resolution) <= most


@pytest.mark.parametrize(("ideas", "power"), [(1, 0.95), (5, 0.7)])
def test_five_seeds_show_an_effect_of_three_standard_deviations(ideas, power):
    rng, promoted = np.random.default_rng(0), 0
    for _ in range(500):
        costs = rng.normal(size=(ideas + 1, 5))
        costs[1] -= 3
        entered = {str(i): seeds(c) for i, c in enumerate(costs[1:])}
        promoted += judge(entered, seeds(costs[0]))[0].status == "promoted"
    assert promoted > power * 500


def test_the_test_is_scipys():
    idea = seeds([0.9, 1.25, 0.95, 1.0, 1.05])
    result = only(idea)
    found = stats.ttest_rel(list(idea.values()), list(BASELINE.values()), alternative="less")
    interval = stats.ttest_rel(list(idea.values()), list(BASELINE.values()))
    interval = interval.confidence_interval(1 - 2 * ALPHA)
    assert result.p_better == pytest.approx(found.pvalue)
    assert result.p_worse == pytest.approx(1 - found.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.difference == pytest.approx(-0.07)
    assert result.relative == pytest.approx(-0.07 / 1.1)


def test_holm_counts_all_ideas_that_entered():
    ideas = {
        "better": shifted(-0.1),
        "none": shifted(0.0, (0.1, -0.2, 0.1, 0.05, -0.05)),
        "worse": shifted(0.1),
        "diverged": {**shifted(-1.0), 3: math.nan},
        "short": {0: 0.0, 1: 0.0},
    }
    results = {result.name: result for result in judge(ideas, BASELINE)}
    assert [result.status for result in results.values()] == [
        "promoted",
        "not_better",
        "worse",
        "diverged",
        "cannot_tell",
    ]
    alone = only(ideas["better"])
    assert results["better"].p_better == pytest.approx(5 * alone.p_better)
    assert results["worse"].p_worse == pytest.approx(5 * only(ideas["worse"]).p_worse)
    second = min(1.0, 4 * only(ideas["none"]).p_better)
    assert results["none"].p_better == pytest.approx(second)
    assert {result.ideas for result in results.values()} == {5}


def test_what_one_idea_shows_may_not_be_enough_beside_others():
    idea = shifted(-0.03, (0.0, 0.03, -0.03, 0.02, -0.02))
    assert only(idea).status == "promoted"
    others = {str(i): shifted(0.0) for i in range(4)}
    assert judge({"idea": idea, **others}, BASELINE)[0].status == "not_better"


def test_seeds_that_only_one_has_do_not_count():
    idea = {**{seed: cost - 0.1 for seed, cost in shifted(0.0).items() if seed < 3}, 9: 100.0}
    result = only(idea)
    assert (result.seeds, result.status) == (3, "promoted")
    assert result.difference == pytest.approx(-0.1)


@pytest.mark.parametrize("common", [0, 1, 2])
def test_under_three_common_seeds_nothing_can_be_told(common):
    result = only({seed: -100.0 - seed for seed in range(common)})
    assert (result.status, result.p_better, result.low) == ("cannot_tell", None, None)
    assert (result.difference is None) == (common == 0)


def test_an_idea_that_diverges_in_any_seed_is_not_promoted():
    for cost in (math.nan, math.inf):
        for seed in (4, 99):  # also one that the baseline does not have
            result = only({**shifted(-0.5), seed: cost})
            assert (result.status, result.diverged, result.p_better) == ("diverged", 1, None)


def test_seeds_in_which_the_baseline_diverged_are_left_out():
    (result,) = judge({"idea": shifted(-0.1)}, {**BASELINE, 0: math.inf})
    assert (result.seeds, result.status) == (4, "promoted")


def test_the_baseline_itself_is_not_better():
    for resolution in (0.0, 0.01):
        result = only(BASELINE, resolution=resolution)
        assert (result.status, result.difference, result.relative) == ("not_better", 0, 0)


def test_differences_that_agree_show_nothing_without_a_resolution():
    constant = {seed: cost - 0.1 for seed, cost in BASELINE.items()}
    assert only(constant).status == "cannot_tell"
    assert only(constant, resolution=1e-3).status == "promoted"
    # Three seeds, each better by one example.
    three = {seed: BASELINE[seed] - 0.01 for seed in range(3)}
    assert only(three, resolution=0.01).status == "not_better"


def test_relative_to_nothing():
    (result,) = judge({"idea": seeds([1, 2, 4])}, seeds([0, 0, 0]))
    assert (result.relative, result.status) == (None, "not_better")


costs = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, math.inf, math.nan]))
by_seed = st.dictionaries(st.integers(0, 5), costs)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from("abcd"), by_seed, max_size=4), by_seed, st.floats(0, 10))
def test_any_costs_give_facts_that_json_has(ideas, baseline, resolution):
    results = judge(ideas, baseline, resolution=resolution)
    assert [result.name for result in results] == list(ideas)
    for result in results:
        json.dumps(dataclasses.asdict(result), allow_nan=False)
        if result.status == "promoted":
            assert result.difference < 0
            assert result.high < 0
            assert result.p_better <= ALPHA
            assert result.seeds >= 3
            assert result.diverged == 0
