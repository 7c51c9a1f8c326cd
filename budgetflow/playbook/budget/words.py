"""What a plan of rounds buys, and why a budget buys none, in words: facts in, words out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from budgetflow.playbook.budget.budget import Budget, StepCost, budget_in_steps, steps_in_unit
from budgetflow.playbook.budget.planner import (
    SHORT_FIRST_ROUND,
    BudgetRequest,
    RoundsPlan,
    plan_if_feasible,
    plan_rounds,
)

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True


def plan_rows(plan: RoundsPlan) -> list[dict[str, Any]]:
    """What a dry run shows of each round."""
    production = plan.rounds[-1].length_steps
    return [
        {
            "study": f"round {planned.round}",
            "trials": planned.trials,
            "steps a trial": planned.length_steps,
            "of production": _share(planned.length_steps, production),
            "steps": planned.steps,
            "of the budget": f"{planned.steps / plan.budget_steps:.0%}",
        }
        for planned in plan.rounds
    ]


def plan_sentences(
    plan: RoundsPlan, request: BudgetRequest, budget: Budget, cost: StepCost
) -> Iterator[str]:
    """The words of a dry run on a plan.

    Args:
        plan: the plan.
        request: the request that it is of, for what half and twice the budget buy.
        budget: as the config gives it.
        cost: of a step.
    """
    unit, amount = budget
    yield _conversion(budget, cost)
    yield (
        f"The plan costs {plan.total_steps} steps if every trial is trained from scratch; "
        f"{plan.left_over_steps} are left over."
    )
    if reused := plan.reused_steps_expected:
        yield (
            f"About {reused} of them ({reused / plan.total_steps:.0%}) or more need not be "
            "trained, if trials of the last round continue those of the round before."
        )
    twice = plan_if_feasible(request, 2 * request.budget_steps)
    half = plan_if_feasible(request, request.budget_steps // 2)
    yield (
        f"Twice the budget ({_amount(2 * amount, unit)}) {_buys(twice)}; half of it "
        f"({_amount(amount / 2, unit)}) {_buys(half)}."
    )
    if plan.first_round_is_short:
        first, last = plan.rounds[0].length_steps, plan.rounds[-1].length_steps
        tenth = f"{float(SHORT_FIRST_ROUND):.0%}"
        yield (
            f"THE FIRST ROUND IS SHORT: {first} steps are {_share(first, last)} of the production "
            "run, and conclusions of so short a round are unlikely to carry over. At about "
            f"{tenth} many questions can be answered, and even that is no guarantee for runs of "
            f"20%. Give it {tenth}, or check again in a later round what it concludes."
        )


def infeasible(request: BudgetRequest, smallest_steps: int, budget: Budget, cost: StepCost) -> str:
    """Why a budget is refused, and the smallest that is not, as an error message.

    Args:
        request: the request for a plan.
        smallest_steps: the smallest feasible budget.
        budget: as the config gives it.
        cost: of a step.
    """
    unit, amount = budget
    enough = _amount(steps_in_unit(smallest_steps, unit, cost), unit)
    in_steps = "" if unit == "steps" else f" ({_amount(smallest_steps, 'steps')})"
    plan = plan_rounds(dataclasses.replace(request, budget_steps=smallest_steps))
    lower = ["production_steps"]
    lower += ["first_round_fraction", "num_rounds"] if request.num_rounds > 1 else []
    return (
        f"a budget of {_amount(amount, unit)} is too small: the smallest that a plan needs is "
        f"{enough}{in_steps}: {_bought(plan)}; give that, or a lower {' or '.join(lower)}"
    )


def _conversion(budget: Budget, cost: StepCost) -> str:
    """A budget in steps, and the figure that it is converted by."""
    unit, amount = budget
    if unit == "steps":
        return f"The budget is {_amount(amount, unit)}."
    each = {
        "examples": _amount(cost.examples, "examples"),
        "flops": f"{cost.flops:.3g} FLOPs" if cost.flops else "",
        "hours": f"{cost.seconds:.3g} seconds, evaluations included" if cost.seconds else "",
    }
    steps = budget_in_steps(budget, cost)
    return f"The budget of {_amount(amount, unit)} is {steps} steps of {each[unit]}."


def _buys(plan: RoundsPlan | None) -> str:
    return "is too little for any plan" if plan is None else f"buys {_bought(plan)}"


def _bought(plan: RoundsPlan) -> str:
    """The trials of a plan, like "54 trials of 1000 steps and 5 of 10000"."""
    (first, *others), last = plan.rounds, plan.rounds[-1]
    trials = "trial" if first.trials == 1 else "trials"
    text = f"{first.trials} {trials} of {_amount(first.length_steps, 'steps')}"
    for planned in others:
        joined = " and" if planned is last else ","
        text += f"{joined} {planned.trials} of {planned.length_steps}"
    return text


def _amount(amount: float, unit: str) -> str:
    """An amount with its unit, like "2.5 hours"."""
    figure = f"{amount:.0f}" if unit in ("steps", "examples") else f"{amount:.6g}"
    plural = "FLOPs" if unit == "flops" else unit
    return f"{figure} {plural.removesuffix('s') if figure == '1' else plural}"


def _share(part: int, whole: int) -> str:
    """A share in percent, to three digits where it is small."""
    return f"{100 * part / whole:.3g}%"
