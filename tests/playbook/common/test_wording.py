"""The sentence that sums a study up, and what is said of any study."""

import dataclasses

import pytest
from test_round_wording import NOTHING, ROUND, cooldowns

from budgetflow.playbook.common.words import gone_on, in_words
from budgetflow.results.kind_views import headline
from budgetflow.results.words import format_cell, timing_line


def test_headlines_of_rounds_and_cooldowns():
    assert headline(ROUND) == (
        "Best of 4 trials of 1000 steps: trial 2 at step 900: validation error rate 0.01235, "
        "validation top 5 error undefined."
    )
    tested = dataclasses.replace(ROUND, best_test={"error_rate": 0.5})
    assert headline(tested) == (
        "Best of 4 trials of 1000 steps: trial 2 at step 900: validation error rate 0.01235, "
        "validation top 5 error undefined, test error rate 0.5."
    )
    assert headline(cooldowns(0.2, None, 0.1)) == (
        "Best validation error rate by length: 100 steps: 0.2, 300 steps: 0.1."
    )
    for outcome in (ROUND, cooldowns(None)):
        assert headline(dataclasses.replace(outcome, **NOTHING)) == "Every trial diverged."


def test_where_the_time_went():
    timing = {
        "seconds": 12.4,
        "steps_trained": 1000,
        "steps_per_second": 123.456,
        "examples_per_second": 15802.4,
        "share_of_time": {"data": 0.1, "training": 0.899, "other": 0.001},
    }
    assert timing_line(timing) == (
        "Trained 1000 steps in 12 s: 123.5 steps/s, 1.58e+04 examples/s while training. Time: "
        "training 90%, data 10%."
    )


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0001234, "1.2e-04"),
        (0.0, "0"),
        (0.12345, "0.123"),
        (12, "12"),
    ],
)
def test_cells(value, cell):
    assert format_cell(value) == cell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.008319950164101685, "0.00832"),
        (20.0, "20"),
        (123456.0, "123456"),
        (1e9, "1e+09"),
        (1234567, "1234567"),
        (0.0, "0"),
        ("sgd", "sgd"),
        (None, "None"),
        (True, "True"),
        ((1, 2.5), "(1, 2.5)"),
    ],
)
def test_values_in_words(value, text):
    assert in_words(value) == text


def test_a_study_that_ran_with_several_codes_says_which():
    assert gone_on("budgetflow's code, the code behind config.model.name (my_lab.models)") == (
        "Not all of this study ran with the same code: budgetflow's code, the code behind "
        "config.model.name (my_lab.models) changed on the way, and it was gone on with under "
        "--same_results, which vouches that this changes no number."
    )
