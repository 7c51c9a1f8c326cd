import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.playbook.budget.budget import (
    UNITS,
    Budget,
    StepCost,
    budget_in_steps,
    steps_in_unit,
)

COST = StepCost(examples=64, flops=2e9, seconds=3.6)
costs = st.builds(
    StepCost,
    examples=st.integers(1, 10**5),
    flops=st.floats(1.0, 1e21),
    seconds=st.floats(1e-6, 1e3),
)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget("steps", 1000), 1000),
        (Budget("examples", 6400), 100),
        (Budget("examples", 6463), 100),
        (Budget("flops", 1e12), 500),
        (Budget("flops", 1.9e9), 0),
        (Budget("hours", 2), 2000),
        (Budget("hours", 0.1), 100),
        (Budget("hours", 0.0999), 99),
    ],
)
def test_a_budget_in_steps_is_rounded_down(budget, steps):
    assert budget_in_steps(budget, COST) == steps


@given(costs, st.sampled_from(UNITS), st.integers(1, 10**9))
def test_what_steps_cost_pays_for_them(cost, unit, steps):
    amount = steps_in_unit(steps, unit, cost)
    bought = budget_in_steps(Budget(unit, amount), cost)
    if unit in ("steps", "examples"):
        assert bought == steps
    else:
        # Rounded up to three digits.
        assert steps <= bought <= 1.011 * steps + 1
        assert float(f"{amount:.3g}") == amount


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget("flops", 1e12), "FLOPs of a step cannot be counted"),
        (Budget("hours", 1), "seconds of a step were not timed"),
    ],
)
def test_a_budget_in_a_unit_without_a_cost_is_refused(budget, message):
    with pytest.raises(ConfigError, match=message):
        budget_in_steps(budget, StepCost(examples=64))
