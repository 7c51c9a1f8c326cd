"""Whole sentences about plans of rounds."""

import dataclasses

import pytest

from budgetflow.playbook.budget.budget import Budget, StepCost, budget_in_steps
from budgetflow.playbook.budget.planner import (
    BudgetRequest,
    InfeasibleBudgetError,
    plan_rounds,
)
from budgetflow.playbook.budget.words import infeasible, plan_sentences

COST = StepCost(examples=64, flops=2e9, seconds=0.36)


def request(budget, **fields):
    steps = budget_in_steps(budget, COST)
    return BudgetRequest(**{"production_steps": 10_000, "budget_steps": steps, **fields})


def sentences(budget, **fields):
    asked = request(budget, **fields)
    return list(plan_sentences(plan_rounds(asked), asked, budget, COST))


def refusal(budget, **fields):
    asked = request(budget, **fields)
    with pytest.raises(InfeasibleBudgetError) as raised:
        plan_rounds(asked)
    return infeasible(asked, raised.value.smallest_feasible_steps, budget, COST)


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (
            Budget("examples", 6.4e6),
            "The budget of 6400000 examples is 100000 steps of 64 examples.",
        ),
        (Budget("flops", 1e14), "The budget of 1e+14 FLOPs is 50000 steps of 2e+09 FLOPs."),
    ],
)
def test_how_a_budget_became_steps(budget, sentence):
    assert sentences(budget)[0] == sentence


def test_too_small_a_budget_is_told_the_smallest():
    assert refusal(Budget("hours", 1.0)) == (
        "a budget of 1 hour is too small: the smallest that a plan needs is 2.4 hours (24000 "
        "steps): 4 trials of 1000 steps and 2 of 10000; give that, or a lower production_steps or "
        "first_round_fraction or num_rounds"
    )
    assert refusal(Budget("steps", 100), num_rounds=3, min_trials=8, min_last_trials=4) == (
        "a budget of 100 steps is too small: the smallest that a plan needs is 73296 steps: 8 "
        "trials of 1000 steps, 8 of 3162 and 4 of 10000; give that, or a lower production_steps or "
        "first_round_fraction or num_rounds"
    )
    assert refusal(Budget("steps", 100), num_rounds=1, min_last_trials=1) == (
        "a budget of 100 steps is too small: the smallest that a plan needs is 10000 steps: 1 "
        "trial of 10000 steps; give that, or a lower production_steps"
    )


def test_the_smallest_that_is_told_is_enough():
    cost = dataclasses.replace(COST, seconds=0.123457)
    asked = BudgetRequest(production_steps=12_345, budget_steps=1)
    with pytest.raises(InfeasibleBudgetError) as raised:
        plan_rounds(asked)
    told = infeasible(asked, raised.value.smallest_feasible_steps, Budget("hours", 0.001), cost)
    hours = float(told.split(" needs is ")[1].split(" hours")[0])
    plan_rounds(
        dataclasses.replace(asked, budget_steps=budget_in_steps(Budget("hours", hours), cost))
    )
