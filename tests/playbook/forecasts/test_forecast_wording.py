import dataclasses

import pytest
from test_receipts import receipt

from budgetflow.playbook.forecasts.expected import Expected
from budgetflow.playbook.forecasts.study_forecast import LongerRun, StudyForecast
from budgetflow.playbook.forecasts.words import (
    coverage,
    forecast_sentences,
    longer_rows,
    not_scored,
    receipt_rows,
    receipt_sentence,
    with_ends,
    worth,
)

TWICE = LongerRun(
    length_steps=800,
    steps_to_train=480,
    loss=Expected(1.48, 1.46, 1.50),
    gain=Expected(0.04, 0.02, 0.06),
)
FOUR = LongerRun(
    length_steps=1600,
    steps_to_train=1280,
    loss=Expected(1.44, 1.41, 1.47),
    gain=Expected(0.08, 0.05, 0.11),
    metric=Expected(0.31, 0.29, 0.33),
)
FAR = LongerRun(length_steps=9000, cannot_tell="9000 steps are too many")
SAID = StudyForecast(
    trial=3, curves=(3, 4), law="momentum", loss=1.52, metric=0.35, longer=(TWICE, FOUR, FAR)
)


def said(**fields):
    return dataclasses.replace(SAID, **fields)


def test_a_newcomer_reads_in_one_sentence_what_four_times_the_steps_would_buy():
    first, far = forecast_sentences(SAID, 400, "error_rate")
    assert first == (
        "Four times the steps (1600) would bring the validation loss of trial 3 from 1.52 to about "
        "1.440 (1.410 to 1.470), and the error rate from 0.35 to about 0.310 (0.290 to 0.330) for "
        "1,280 more steps to train."
    )
    assert far == "What 9000 steps would give cannot be told: 9000 steps are too many."
    timed = next(forecast_sentences(SAID, 400, "error_rate", 0.1))
    assert timed.endswith("for 1,280 more steps to train, about 2 minutes at this speed.")


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        (
            {"seed_noise": 0.05, "worth_until_steps": 400},
            ", less than the noise between seeds (0.05): longer training is not expected to show.",
        ),
        (
            {"seed_noise": 0.01, "worth_until_steps": 900},
            "; from 900 steps on, twice as many are expected to gain less than the noise between "
            "seeds (0.01).",
        ),
        (
            {"not_told_because": "no two seeds"},
            "; up to which length that is worth it cannot be told: no two seeds.",
        ),
    ],
)
def test_what_longer_is_worth_is_beside_its_cost(fields, end):
    assert worth(said(**fields), 400) == (
        "Twice the steps (800) are expected to lower the validation loss by 0.040 (0.020 to 0.060)"
        f" for 480 more steps to train{end}"
    )


def test_a_receipt_says_what_was_forecast_what_came_and_what_follows():
    assert receipt_sentence(receipt()) == (
        "Before these 400 steps were run, first forecast a validation loss of 1.50 (1.40 to 1.60) "
        "at their end: 1.7 came, OUTSIDE the interval, and the middle was 10.0% too low. It had to "
        "be 2 times as wide, and the next ones here are wider for it."
    )
    held = receipt(inside=True, came=1.55, error=-0.03, needed=0.5)
    held = dataclasses.replace(
        held,
        metric="error_rate",
        metric_expected=Expected(0.31, 0.29, 0.33),
        metric_came=0.3,
        metric_inside=True,
    )
    assert receipt_sentence(held).endswith(
        "inside the interval, and the middle was 3.0% too low. Of the error rate it said 0.310 "
        "(0.290 to 0.330), and 0.3 came, inside."
    )
    assert coverage([held, receipt()]) == (
        "1 of 2 forecasts so far held what came (intervals are to hold 90%)"
    )
    assert receipt_rows([held]) == [
        ("first", "400", "1.50 (1.40 to 1.60)", "1.55", "-3.0%", "yes", "0.5")
    ]
    assert not_scored("first", 400, "it diverged") == (
        "What first forecast for 400 steps is not scored: it diverged."
    )


def test_the_table_has_a_row_for_each_length():
    assert longer_rows(SAID) == [
        ("800", "480", "-", "1.480 (1.460 to 1.500)", "0.040 (0.020 to 0.060)", "-"),
        (
            *("1600", "1280", "-", "1.440 (1.410 to 1.470)", "0.080 (0.050 to 0.110)"),
            "0.310 (0.290 to 0.330)",
        ),
        ("9000", "-", "-", "cannot be told", "-", "-"),
    ]
    assert [row[2] for row in longer_rows(SAID, 0.25)] == [
        "about 2 minutes",
        "about 5 minutes",
        "-",
    ]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (Expected(3412.2, 3260.0, 3570.0), "3412 (3260 to 3570)"),
        (Expected(0.0123, 0.0119, 0.0127), "0.01230 (0.01190 to 0.01270)"),
        (Expected(0.1, -0.004, 0.2), "0.10 (0.00 to 0.20)"),
        (Expected(0.5, 0.5, 0.5), "0.5000 (0.5000 to 0.5000)"),
    ],
)
def test_figures_have_the_digits_of_their_interval(expected, text):
    assert with_ends(expected) == text
