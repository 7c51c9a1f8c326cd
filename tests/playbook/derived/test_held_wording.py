"""Whole sentences about whether a choice held."""

import math

import pytest

from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.seed_noise import Noise
from budgetflow.playbook.derived.earlier_choice import Setting, judge_choice
from budgetflow.playbook.derived.earlier_choice_words import (
    COLUMNS,
    held_reasons,
    held_rows,
    held_title,
    held_warning,
)

SELECTION = Selection("validation_error_rate")
INF = math.inf
BEST, WORST = (1.0, 1.1), (2.0, 2.1)
NOISE = "The noise between seeds is taken to be 0.0707 in validation error rate "


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


def test_held():
    found = study(BEST, WORST, momentum=[0.9, 0.95])
    assert reasons(found) == [
        "The earlier round's choice held: of 2 settings with 2 seeds each it is still the best "
        "with a probability of 99.8%.",
        f"{NOISE}(2 degrees of freedom), the same for all settings; with that, such a verdict is "
        "wrong in at most 0.05 of studies.",
        "The order of 2 settings in both rounds: Kendall's tau-b 1.00, from too few to say "
        "anything (an interval takes 5).",
    ]
    assert held_warning(found) is None


def test_did_not_hold_and_one_field_differs():
    found = study(WORST, BEST, momentum=[0.9, 0.95], depth=[2, 2])
    verdict = "of 2 settings with 2 seeds each, setting 1 is better with a probability of 99.8%."
    assert reasons(found)[0] == f"The earlier round's choice did not hold: {verdict}"
    assert reasons(found)[-1] == (
        "What moved is momentum up from 0.9 to 0.95: nothing else differs between the two settings."
    )
    assert held_warning(found).text == (
        f"THE EARLIER ROUND'S CHOICE DID NOT HOLD: {verdict} Tune again at the longer length: "
        "momentum (up from 0.9 to 0.95)."
    )


def test_the_table_has_a_row_for_each_hyperparameter():
    fields = {"momentum": [0.9, 0.95], "depth": [2, 2]}
    moved = study(WORST, BEST, **fields)
    assert held_title(moved) == "What held of the round before: the choice did not hold"
    assert held_rows(moved) == [
        ("momentum", "0.9", "0.95", "it moved: tune it again"),
        ("depth", "2", "2", "it is the same"),
    ]
    stayed = study(BEST, WORST, **fields)
    assert held_title(stayed) == "What held of the round before: the choice held"
    assert {row[-1] for row in held_rows(stayed)} == {"it is the same"}
    several = study(WORST, BEST, momentum=[0.9, 0.5], depth=[2, 3])
    assert {row[-1] for row in held_rows(several)} == {
        "it, or another that moved, made the difference"
    }
    unsure = study((1.0,), (0.9,), **fields)
    assert held_title(unsure) == "What held of the round before: cannot be told"
    assert held_rows(unsure)[0] == ("momentum", "0.9", "0.95", "nothing beyond noise")
    assert {len(row) for row in held_rows(unsure)} == {len(COLUMNS)}


def test_did_not_hold_and_several_fields_differ():
    found = study(WORST, BEST, momentum=[0.9, 0.5], optimizer=["sgd", "adam"])
    assert reasons(found)[-1] == (
        "The setting that the later round prefers has momentum down from 0.9 to 0.5, optimizer "
        "changed from sgd to adam; which hyperparameter made the difference cannot be told from "
        "these runs."
    )
    assert held_warning(found).text.endswith(
        "Tune again at the longer length: momentum (down from 0.9 to 0.5), optimizer (changed from "
        "sgd to adam)."
    )


def test_did_not_hold_and_nothing_differs():
    warning = held_warning(study(WORST, BEST))
    assert warning.text.endswith("No hyperparameter differs between the two.")


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


def test_a_lower_mean_within_noise_is_no_move():
    found = study((1.0, 1.2), (0.9, 1.1), lr=[0.1, 0.2])
    assert reasons(found)[-1] == (
        "The lowest mean of the later round has lr up from 0.1 to 0.2; that is not shown to be "
        "more than noise, so it is no sign of a move."
    )


def test_a_choice_that_diverged_did_not_hold():
    found = study((INF,) * 3, (1.0,) * 3, lr=[0.1, 0.2])
    against = (
        "it diverged in 3 of 3 seeds of the later round, more often than the other settings do "
        "(Fisher's exact test at 0.05)."
    )
    assert reasons(found)[0] == f"The earlier round's choice did not hold: {against}"
    assert reasons(found)[-1].endswith("cannot be told from these runs.")
    assert against in held_warning(found).text


def test_others_that_diverged_are_counted():
    found = study(BEST, (INF, 1.0), WORST)
    assert (
        "1 other setting, of which a seed diverged in the later round, counts as worse."
        in reasons(found)
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
