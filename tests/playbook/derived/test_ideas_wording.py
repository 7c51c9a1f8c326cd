"""The ledger of ideas in rows and whole sentences, from facts made by hand."""

import pytest

from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.derived.ideas import IdeaResult
from budgetflow.playbook.derived.ideas_words import LEDGER_COLUMNS, ideas_reasons, ledger_rows

ERROR = Selection("validation_error_rate")
ACCURACY = Selection("validation_accuracy", higher_is_better=True)


def result(status, **fields):
    facts = {"seeds": 5, "diverged": 0, "ideas": 3, "alpha": 0.05, **fields}
    return IdeaResult(name="wider", status=status, **facts)


TESTED = {"low": -0.115, "high": -0.085, "p_better": 0.0123, "p_worse": 1.0}
PROMOTED = result("promoted", difference=-0.1, relative=-0.0909, **TESTED)
WORSE = result(
    "worse", difference=0.1, relative=None, low=0.085, high=0.115, p_better=1.0, p_worse=0.0001
)
NOT_BETTER = result(
    "not_better", difference=-0.01, relative=-0.01, low=-0.03, high=0.01, p_better=0.2, p_worse=1.0
)
EVIDENCE = "90% interval of idea minus baseline"


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            PROMOTED,
            "The idea 'wider' is better than the baseline by 0.1 (9.1%) in validation error rate "
            f"({EVIDENCE} -0.115 to -0.085, p = 0.012, 5 seeds): it is promoted.",
        ),
        (
            WORSE,
            "The idea 'wider' is worse than the baseline by 0.1 in validation error rate "
            f"({EVIDENCE} +0.085 to +0.115, p <0.001, 5 seeds): it is not promoted.",
        ),
        (
            NOT_BETTER,
            "The idea 'wider' is not better than the baseline by more than the noise between "
            "seeds: the means differ by 0.01 (1.0%) in validation error rate "
            f"({EVIDENCE} -0.03 to +0.01, p = 0.200, 5 seeds). It is not promoted.",
        ),
        (
            result("not_better", difference=0.0, relative=0.0),
            "The idea 'wider' is as good as the baseline on average: it is not promoted.",
        ),
        (
            result("diverged", diverged=2),
            "The idea 'wider' diverged in 2 seeds: it is not promoted.",
        ),
        (
            result("cannot_tell", seeds=2, difference=-5.0),
            "Whether the idea 'wider' is better cannot be told from 2 seeds that it and the "
            "baseline both have; it takes 3: run config.search.seeds = 3. It is not promoted.",
        ),
        (
            result("cannot_tell", difference=-5.0),
            "Whether the idea 'wider' is better cannot be told: its difference from the baseline "
            "is the same in all 5 seeds, so their noise is unknown. It is not promoted.",
        ),
    ],
    ids=lambda value: value.status if isinstance(value, IdeaResult) else "",
)
def test_each_status_has_its_sentence(found, sentence):
    assert next(ideas_reasons([found], ERROR)) == sentence


def test_how_ideas_are_tested_is_said_once_if_any_was():
    how = (
        "Ideas are compared with the baseline seed by seed, by one-sided paired t-tests with "
        "Holm's correction for the 2 that entered: the probability that any is promoted which is "
        "no better is at most 0.05."
    )
    assert list(ideas_reasons([PROMOTED, WORSE], ERROR))[2:] == [how]
    assert len(list(ideas_reasons([result("diverged", diverged=1)], ERROR))) == 1
    assert list(ideas_reasons([], ERROR)) == []


def test_the_ledger_has_the_sign_of_the_metric():
    assert ledger_rows([PROMOTED, result("diverged", seeds=0)], ERROR) == [
        ("wider", "-0.1", "-9.1%", "-0.115 to -0.085", "0.012", "5", "promoted"),
        ("wider", "-", "-", "-", "-", "0", "diverged"),
    ]
    (row,) = ledger_rows([PROMOTED], ACCURACY)
    assert row == ("wider", "+0.1", "+9.1%", "+0.085 to +0.115", "0.012", "5", "promoted")
    assert len(row) == len(LEDGER_COLUMNS)
