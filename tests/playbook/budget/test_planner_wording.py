"""Whole sentences about plans of rounds."""

import dataclasses

import pytest

from budgetflow.playbook.budget.budget import Budget, StepCost, budget_in_steps
from budgetflow.playbook.budget.planner import (
    BudgetRequest,
    InfeasibleBudgetError,
    plan_rounds,
)
from budgetflow.playbook.budget.words import infeasible, plan_rows, plan_sentences

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


def test_a_row_for_each_round():
    assert plan_rows(plan_rounds(request(Budget("steps", 104_500)))) == [
        {
            "study": "round 1",
            "trials": 54,
            "steps a trial": 1000,
            "of production": "10%",
            "steps": 54_000,
            "of the budget": "52%",
        },
        {
            "study": "round 2",
            "trials": 5,
            "steps a trial": 10_000,
            "of production": "100%",
            "steps": 50_000,
            "of the budget": "48%",
        },
    ]


def test_what_a_budget_buys():
    assert sentences(Budget("steps", 104_500)) == [
        "The budget is 104500 steps.",
        "The plan costs 104000 steps if every trial is trained from scratch; 500 are left over.",
        "Twice the budget (209000 steps) buys 109 trials of 1000 steps and 10 of 10000; half of "
        "it (52250 steps) buys 32 trials of 1000 steps and 2 of 10000.",
    ]


def test_what_reuse_saves_and_half_the_budget_does_not_buy():
    found = sentences(Budget("hours", 3), constant_fraction=0.8)
    assert found == [
        "The budget of 3 hours is 30000 steps of 0.36 seconds, evaluations included.",
        "The plan costs 30000 steps if every trial is trained from scratch; 0 are left over.",
        "About 1600 of them (5%) or more need not be trained, if trials of the last round continue "
        "those of the round before.",
        "Twice the budget (6 hours) buys 30 trials of 1000 steps and 3 of 10000; half of it (1.5 "
        "hours) is too little for any plan.",
    ]


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


def test_a_short_first_round_is_flagged():
    *_, warning = sentences(Budget("steps", 100_000), first_round_fraction=0.05)
    assert warning == (
        "THE FIRST ROUND IS SHORT: 500 steps are 5% of the production run, and conclusions of so "
        "short a round are unlikely to carry over. At about 10% many questions can be answered, "
        "and even that is no guarantee for runs of 20%. Give it 10%, or check again in a later "
        "round what it concludes."
    )


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
