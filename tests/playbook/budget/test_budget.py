import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.playbook.budget.budget import UNITS, StepCost, budget_in_steps, steps_in_unit

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
        ({"steps": 1000}, 1000),
        ({"examples": 6400}, 100),
        ({"examples": 6463}, 100),
        ({"flops": 1e12}, 500),
        ({"flops": 1.9e9}, 0),
        ({"hours": 2}, 2000),
        ({"hours": 0.1}, 100),
        ({"hours": 0.0999}, 99),
    ],
)
def test_a_budget_in_steps_is_rounded_down(budget, steps):
    assert budget_in_steps(budget, COST) == steps


@given(costs, st.sampled_from(UNITS), st.integers(1, 10**9))
def test_what_steps_cost_pays_for_them(cost, unit, steps):
    amount = steps_in_unit(steps, unit, cost)
    bought = budget_in_steps({unit: amount}, cost)
    if unit in ("steps", "examples"):
        assert bought == steps
    else:
        # Rounded up to three digits.
        assert steps <= bought <= 1.011 * steps + 1
        assert float(f"{amount:.3g}") == amount


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "given in none: should be one of steps, examples, flops, hours"),
        ({"steps": 1, "hours": 2}, "given in hours, steps: should be one of"),
        ({"hour": 1}, "a budget in 'hour': did you mean 'hours'"),
        ({"steps": 0}, "a budget of 0 steps: should be a number above 0"),
        ({"steps": float("nan")}, "a budget of nan steps: should be"),
        ({"steps": float("inf")}, "a budget of inf steps: should be"),
        ({"flops": 1e12}, "FLOPs of a step cannot be counted"),
        ({"hours": 1}, "seconds of a step were not timed"),
    ],
)
def test_what_is_no_budget_is_refused(budget, message):
    with pytest.raises(ConfigError, match=message):
        budget_in_steps(budget, StepCost(examples=64))
