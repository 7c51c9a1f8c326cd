import math

import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection

METRIC = "validation_error_rate"
SELECTION = Selection(METRIC)
VALUES = st.sampled_from([0.0, 0.25, 0.5, math.nan, math.inf, -math.inf]) | st.floats()

modest = settings(max_examples=100, deadline=None)


@st.composite
def measurements(draw):
    values = draw(st.lists(VALUES, max_size=12))
    return [{"step": 10 * (i + 1), METRIC: value} for i, value in enumerate(values)]


@modest
@given(measurements())
def test_best_is_the_lowest_finite_one_and_the_earliest_of_ties(rows):
    best = SELECTION.best(rows)
    finite = [row for row in rows if math.isfinite(row[METRIC])]
    if not finite:
        assert best is None
        return
    assert best in finite
    for row in finite:
        assert row[METRIC] >= best[METRIC]
        assert row["step"] >= best["step"] or row[METRIC] > best[METRIC]


@modest
@given(measurements(), measurements())
def test_training_longer_never_selects_a_worse_row(rows, more):
    before = SELECTION.best(rows)
    end = len(rows) * 10
    after = SELECTION.best([*rows, *({**row, "step": end + row["step"]} for row in more)])
    if before is not None:
        assert after[METRIC] <= before[METRIC]


@modest
@given(measurements())
def test_negated_values_of_which_higher_is_better_select_the_same_row(rows):
    negated = [{**row, METRIC: -row[METRIC]} for row in rows]
    best, other = SELECTION.best(rows), Selection(METRIC, higher_is_better=True).best(negated)
    assert (best and best["step"]) == (other and other["step"])


@pytest.mark.parametrize(
    ("higher_is_better", "value", "than", "worse"),
    [
        (False, 1.1, 1.0, 0.1),
        (False, 0.5, 1.0, -0.5),
        (False, -1.0, -2.0, 0.5),
        (True, 0.9, 1.0, 0.1),
        (True, -3.0, -2.0, 0.5),
        (True, -1.0, -2.0, -0.5),
        (True, 0.0, 0.0, 0.0),
        (False, 0.1, 0.0, math.inf),
        (True, 0.1, 0.0, -math.inf),
    ],
)
def test_how_much_worse_one_value_is_than_another(higher_is_better, value, than, worse):
    selection = Selection(METRIC, higher_is_better)
    assert selection.worse_by(value, than) == pytest.approx(worse)


def test_rows_without_the_metric_are_left_out():
    rows = [{"step": 1, "train_loss": 0.1}, {"step": 2, METRIC: 0.5}]
    assert SELECTION.best(rows) == rows[1]
    assert Selection("validation_loss").best(rows) is None
    assert SELECTION.best([]) is None


@pytest.mark.parametrize(
    ("status", "bracket", "fitted_at_step", "diverged"),
    [
        ("running", None, None, False),
        ("complete", (40, 50), 50, False),
        ("diverged", None, None, True),
        # It fitted the training set before its loss became infinite, so it is feasible.
        ("diverged", (40, 50), 50, False),
    ],
)
def test_a_trial_is_infeasible_if_it_diverged_before_it_fitted(
    status, bracket, fitted_at_step, diverged
):
    schedule = Schedule(0.1, 0, 60)
    trial = trial_record(0, schedule, status=status, step=60, fitted_at_step_bracket=bracket)
    assert trial.fitted_at_step == fitted_at_step
    assert trial.diverged is diverged
