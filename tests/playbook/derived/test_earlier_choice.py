"""Whether a choice held, over simulated studies whose truth is known."""

import collections
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from budgetflow.playbook.common.seed_noise import Noise
from budgetflow.playbook.derived.earlier_choice import ALPHA, Setting, judge_choice

INF = math.inf
STUDIES = 2000
TRUTHS = ("holds", "flips", "tied", "rival_tied", "drowned")


def setting(later, promoted=False, earlier=(0.0,), **hyperparameters):
    return Setting(hyperparameters, tuple(earlier), tuple(later), promoted)


def true_means(rng, truth):
    """The true mean costs of 2 to 8 settings, and which of them was promoted."""
    count = int(rng.integers(2, 9))
    means = rng.normal(size=count) * rng.choice([0.3, 1.0, 3.0])
    promoted = int(np.argmin(means))
    if truth == "flips":
        promoted = (promoted + int(rng.integers(1, count))) % count
    elif truth == "tied":
        means[:] = 0
    elif truth == "rival_tied":
        means = abs(means)
        means[[promoted, (promoted + 1) % count]] = -0.5
    elif truth == "drowned":
        promoted = int(rng.integers(count))
        means *= 0.01
    return means, promoted


def noisy(rng, noise, count, promoted, seeds):
    """Noise between seeds: [settings, seeds]."""
    size = (count, seeds)
    if noise == "heavy_tails":
        return rng.standard_t(2, size=size)
    if noise == "skewed":
        return rng.exponential(size=size) - 1
    normal = rng.normal(size=size)
    if noise == "unequal":
        return normal * np.exp(rng.uniform(-1.15, 1.15, size=(count, 1)))
    if noise == "promoted_is_noisier":
        normal[promoted] *= 4
    if noise == "diverging":
        normal[rng.random(size) < rng.choice([0.1, 0.5])] = np.nan
    return normal


def wrong(verdict, means, promoted):
    """Whether a verdict is confident and false."""
    better = means < means[promoted]
    return bool(
        better.any() if verdict == "held" else verdict != "cannot_tell" and not better.any()
    )


def simulate(noise, truth, seed=0, studies=STUDIES, fewest_seeds=2):
    """How often each verdict was given, and how often a wrong one."""
    rng, counts = np.random.default_rng(seed), collections.Counter()
    for _ in range(studies):
        means, promoted = true_means(rng, truth)
        seeds = int(rng.integers(fewest_seeds, 6))
        later = means[:, None] + noisy(rng, noise, len(means), promoted, seeds)
        found = judge_choice([setting(map(float, x), i == promoted) for i, x in enumerate(later)])
        counts[found.verdict] += 1
        counts["wrong"] += wrong(found.verdict, means, promoted)
        if seeds == 1:
            assert found.verdict == "cannot_tell"
    return counts


def at_most(share, studies):
    """A count with slack: three standard deviations of a binomial."""
    return studies * share + 3 * math.sqrt(studies * share * (1 - share))


@pytest.mark.parametrize("truth", TRUTHS)
def test_confident_verdicts_are_wrong_in_at_most_alpha(truth):
    counts = simulate("normal", truth)
    assert counts["wrong"] <= at_most(ALPHA, STUDIES)
    # And it does speak where there is something to see.
    if truth == "holds":
        assert counts["held"] > 0.2 * STUDIES
    if truth == "flips":
        assert counts["did_not_hold"] > 0.35 * STUDIES


@pytest.mark.parametrize("noise", ["heavy_tails", "skewed", "unequal"])
def test_other_noise_does_little_harm(noise):
    for truth in ("tied", "holds", "flips"):
        assert simulate(noise, truth, studies=500)["wrong"] <= at_most(0.08, 500)


def test_divergence_by_chance_makes_no_confident_verdict():
    # All settings diverge equally often and are as good otherwise: nothing held, nothing did not.
    counts = simulate("diverging", "tied")
    assert counts["did_not_hold"] <= at_most(ALPHA, STUDIES)


costs = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.1, INF, -INF, math.nan]))


@st.composite
def studies(draw, most_seeds=4):
    seeds = st.integers(1, most_seeds)
    count = draw(st.integers(2, 8))
    promoted = draw(st.integers(0, count - 1))
    some = lambda n: draw(st.lists(costs, min_size=n, max_size=n))  # noqa: E731
    return [
        setting(some(draw(seeds)), i == promoted, some(draw(seeds)), lr=draw(costs), x="a")
        for i in range(count)
    ]


@hypothesis_settings(deadline=None, max_examples=60)
@given(studies())
def test_any_costs_give_facts_that_json_has(study):
    found = judge_choice(study)
    json.dumps(dataclasses.asdict(dataclasses.replace(found, moved=())), allow_nan=False)
    assert repr(found) == repr(judge_choice(study))  # NaN included
    for probability in (found.probability_still_best, found.probability_preferred_is_better):
        assert probability is None or 0 <= probability <= 1
    if found.verdict != "did_not_hold":
        assert found.retune == ()


@hypothesis_settings(deadline=None, max_examples=40)
@given(studies(most_seeds=1))
def test_one_seed_and_no_noise_never_tells(study):
    assert judge_choice(study).verdict == "cannot_tell"


def test_one_seed_with_noise_from_elsewhere():
    study = [setting([1.0], True), setting([2.0]), setting([3.0])]
    assert judge_choice(study, Noise(0.1, 8)).verdict == "held"
    assert judge_choice(study, Noise(1.0, 8)).verdict == "cannot_tell"
    study = [setting([1.0], True), setting([0.0])]
    assert judge_choice(study, Noise(0.1, 8)).verdict == "did_not_hold"


def test_noise_of_the_later_round_counts_where_there_is_any():
    study = [setting([1.0, 3.0], True), setting([0.0])]
    found = judge_choice(study, Noise(1e-3, 100))
    assert (found.noise_sd, found.noise_degrees_of_freedom) == (pytest.approx(math.sqrt(2)), 1)
    assert found.verdict == "cannot_tell"


def test_two_settings_are_a_t_test():
    from scipy import stats

    one, other = [1.0, 1.4, 0.9], [1.5, 1.2, 1.9, 1.6]
    found = judge_choice([setting(one, True), setting(other)])
    p = stats.ttest_ind(one, other, alternative="less").pvalue
    assert found.probability_still_best == pytest.approx(1 - p, abs=2e-4)
    found = judge_choice([setting(other, True), setting(one)])
    assert found.probability_preferred_is_better == pytest.approx(1 - p, abs=1e-9)


def test_the_probability_of_the_best_of_many_as_drawn_from_the_posterior():
    means, freedom = np.array([0.0, 0.5, 1.0, 3.0]), 3
    rng = np.random.default_rng(1)
    sd = np.sqrt(freedom / rng.chisquare(freedom, size=100_000))
    drawn = means + sd[:, None] * rng.normal(size=(len(sd), 4))
    one_seed = [setting([m], i == 0) for i, m in enumerate(means)]
    found = judge_choice(one_seed, Noise(1.0, freedom)).probability_still_best
    assert found == pytest.approx(np.mean(drawn.argmin(axis=1) == 0), abs=0.006)


def test_ties_cannot_be_told():
    study = [setting([0.1, 0.2], True), setting([0.1, 0.2]), setting([0.1, 0.2])]
    found = judge_choice(study)
    assert found.verdict == "cannot_tell"
    assert found.preferred == 0
    assert found.probability_still_best == pytest.approx(1 / 3)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_seeds_that_agree_do_not_show_that_there_is_no_noise(unit):
    later = [[0.1 * unit, 0.1 * unit], [0.2 * unit, (0.2 + 1e-9) * unit]]
    study = [setting(later[0], True), setting(later[1])]
    assert judge_choice(study).verdict == "cannot_tell"
    assert judge_choice(study).noise_sd is None
    assert judge_choice(study, resolution=0.05 * unit).verdict == "cannot_tell"
    assert judge_choice(study, resolution=0.001 * unit).verdict == "held"


def test_others_that_diverged_are_worse():
    good = setting([1.0, 1.1], True)
    found = judge_choice([good, setting([INF, INF]), setting([0.5, math.nan])])
    assert (found.verdict, found.others_diverged, found.preferred) == ("held", 2, 0)
    assert judge_choice([setting([1.0], True), setting([INF])]).verdict == "cannot_tell"


@pytest.mark.parametrize(
    ("diverged", "seeds", "others", "verdict"),
    [
        (1, 1, 1, "cannot_tell"),
        (2, 2, 1, "cannot_tell"),  # by chance in 1 of 6
        (3, 3, 1, "did_not_hold"),  # 1 of 20
        (2, 2, 3, "did_not_hold"),  # 1 of 28
        (1, 5, 3, "cannot_tell"),
        (2, 3, 3, "did_not_hold"),  # 3 of 66
    ],
)
def test_a_choice_that_diverged(diverged, seeds, others, verdict):
    choice = setting([INF] * diverged + [1.0] * (seeds - diverged), True)
    found = judge_choice([choice, *(setting([2.0] * seeds) for _ in range(others))])
    assert found.verdict == verdict
    assert (found.promoted_diverged, found.promoted_seeds) == (diverged, seeds)
    assert found.probability_still_best is None


def test_where_all_diverged_nothing_is_preferred():
    found = judge_choice([setting([INF] * 3, True), setting([math.nan] * 3)])
    assert (found.verdict, found.preferred, found.moved) == ("cannot_tell", None, ())


def moved(before, after, later=((2.0, 2.1), (1.0, 1.1))):
    return judge_choice([setting(later[0], True, **before), setting(later[1], **after)])


def test_what_moved_where_one_field_differs():
    found = moved({"lr": 0.1, "momentum": 0.9, "seed": 0}, {"lr": 0.2, "momentum": 0.9, "seed": 1})
    assert found.verdict == "did_not_hold"
    rows = [(m.field, m.before, m.after, m.direction, m.evidence) for m in found.moved]
    assert rows == [
        ("lr", 0.1, 0.2, "up", "shown"),
        ("momentum", 0.9, 0.9, "same", "within_noise"),
    ]
    assert found.retune == ("lr",)


def test_what_moved_where_several_fields_differ_cannot_be_attributed():
    before = {"lr": 0.1, "optimizer": "sgd", "nesterov": False}
    found = moved(before, {"lr": 0.01, "optimizer": "adam", "nesterov": True, "depth": 3})
    assert {m.field: m.direction for m in found.moved} == {
        "lr": "down",
        "optimizer": "changed",
        "nesterov": "changed",
        "depth": "changed",
    }
    assert {m.evidence for m in found.moved} == {"not_attributable"}
    assert found.retune == ("lr", "optimizer", "nesterov", "depth")


def test_within_noise_nothing_is_to_be_tuned_again():
    found = moved({"lr": 0.1}, {"lr": 0.2}, later=((2.0, 3.0), (1.9, 2.9)))
    assert found.verdict == "cannot_tell"
    assert [(m.direction, m.evidence) for m in found.moved] == [("up", "within_noise")]
    assert found.retune == ()


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ([setting([1.0], True)], "takes two"),
        ([setting([1.0]), setting([1.0])], "0 settings are marked"),
        ([setting([1.0], True), setting([1.0], True)], "2 settings are marked"),
        ([setting([1.0], True), setting([])], "setting 1 has no cost"),
    ],
)
def test_what_cannot_be_compared_is_refused(study, message):
    with pytest.raises(ValueError, match=message):
        judge_choice(study)
