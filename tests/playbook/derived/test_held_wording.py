"""Whole sentences about whether a choice held."""

import math

import pytest

from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.seed_noise import Noise
from budgetflow.playbook.derived.earlier_choice import Setting, judge_choice
from budgetflow.playbook.derived.earlier_choice_words import (
    held_reasons,
    held_warning,
)

SELECTION = Selection("validation_error_rate")
INF = math.inf
BEST, WORST = (1.0, 1.1), (2.0, 2.1)


def study(*later, noise=None, **fields):
    """Settings of which the first was promoted; a field's values are those of each setting."""
    return judge_choice(
        [
            Setting({k: v[i] for k, v in fields.items()}, (float(i),), costs, i == 0)
            for i, costs in enumerate(later)
        ],
        noise,
    )


def reasons(found):
    return list(held_reasons(found, SELECTION))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            study((1.0,), (2.0,), (3.0,), (4.0,)),
            "4 settings with one seed each: run config.search.seeds = 3.",
        ),
        (
            study((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),
            "2 settings with 3 seeds each, whose seeds do not show their noise: run "
            "config.search.seeds = 6.",
        ),
        (
            study((1.0, 2.0), (1.0, 2.0, 1.5)),
            "2 settings with 2 to 3 seeds: it is still the best with a probability of 50.0%, and "
            "nothing else is certain enough: run config.search.seeds = 3.",
        ),
        (
            study((INF, 1.0), (2.0, 2.1)),
            "2 settings with 2 seeds each: it diverged in 1 of 2 seeds of the later round, which "
            "may be chance: run config.search.seeds = 3.",
        ),
        (
            study((INF, 1.0), (math.nan, 2.1)),
            "2 settings with 2 seeds each: each has a seed that diverged in the later round.",
        ),
    ],
    ids=["one_seed", "no_noise", "in_noise", "diverged", "all_diverged"],
)
def test_cannot_tell(found, sentence):
    assert found.verdict == "cannot_tell"
    told = reasons(found)
    assert told[0] == f"Whether the earlier round's choice held cannot be told from {sentence}"
    assert not any(word in " ".join(told) for word in ("choice held:", "did not hold", "wrong in"))
    assert held_warning(found) is None


def test_did_not_hold_though_no_hyperparameter_differs():
    assert held_warning(study(WORST, BEST)).text.endswith(
        "No hyperparameter differs between the two."
    )


def test_no_probability_is_rounded_to_certainty():
    found = study((0.0,), (1e6,), noise=Noise(1.0, 50))
    assert reasons(found)[0].endswith("still the best with a probability of over 99.9%.")


@pytest.mark.parametrize(
    ("order", "meaning"),
    [
        (range(20), ": what is better in the earlier round tends to be better in the later."),
        (range(20, 0, -1), ": what is better in the earlier round tends to be worse in the later."),
        (
            range(6),
            ", which does not exclude that the earlier order says nothing of the later.",
        ),
    ],
)
def test_the_interval_of_the_order_says_what_may_be_said(order, meaning):
    found = study(*((float(cost),) for cost in order))
    low, high = found.rank_correlation.low, found.rank_correlation.high
    assert reasons(found)[1] == (
        f"The order of {len(order)} settings in both rounds: Kendall's tau-b "
        f"{found.rank_correlation.tau:.2f} (95% interval {low:.2f} to {high:.2f}){meaning}"
    )
