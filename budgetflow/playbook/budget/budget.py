"""A budget in steps, examples, FLOPs or hours, converted to steps, the planner's own unit."""

from __future__ import annotations

import dataclasses
import decimal
from fractions import Fraction
from typing import NamedTuple

from budgetflow.base.errors import ConfigError

UNITS = ("steps", "examples", "flops", "hours")
# To which figures in FLOPs and hours are rounded up, to be read and typed.
_THREE_DIGITS = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)


class Budget(NamedTuple):
    """A budget as it is given.

    Attributes:
        unit: one of :data:`UNITS`. Hours are those of the devices of one trial, which run one trial
            at a time.
        amount: above 0.
    """

    unit: str
    amount: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """The cost of one step, by which a budget is converted to steps.

    Attributes:
        examples: the batch size.
        flops: floating-point operations of an update; None where they are not counted.
        seconds: of an update, with its share of the evaluations, of one trial that has its devices
            to itself; None where they are not timed.
    """

    examples: int
    flops: float | None = None
    seconds: float | None = None


def budget_in_steps(budget: Budget, cost: StepCost) -> int:
    """The whole steps that a budget pays for; those of all trials together.

    Figures are taken as the decimal numbers that they are written as: 0.1 hours are 100 steps of
    3.6 seconds.

    Raises:
        ConfigError: the cost of a step in the budget's unit is not known.
    """
    return int(exact(budget.amount) // _of_a_step(budget.unit, cost))


def steps_in_unit(steps: int, unit: str, cost: StepCost) -> float:
    """The cost of a number of steps in a unit; a budget of that much pays for all of them.

    Args:
        steps: how many.
        unit: one of :data:`UNITS`. FLOPs and hours are rounded up to three digits.
        cost: of a step.

    Raises:
        ConfigError: the cost of a step in that unit is not known.
    """
    needed = steps * _of_a_step(unit, cost)
    if needed.denominator == 1 and unit in ("steps", "examples"):
        return int(needed)
    numerator, denominator = map(decimal.Decimal, (needed.numerator, needed.denominator))
    return float(_THREE_DIGITS.divide(numerator, denominator))


def _of_a_step(unit: str, cost: StepCost) -> Fraction:
    """The exact cost of a step in a unit."""
    if unit == "flops" and cost.flops is None:
        raise ConfigError(
            "the FLOPs of a step cannot be counted for this model on these devices; give the "
            "budget in steps, examples or hours"
        )
    if unit == "hours" and cost.seconds is None:
        raise ConfigError("the seconds of a step were not timed; give the budget in steps")
    costs = {"steps": 1, "examples": cost.examples, "flops": cost.flops, "hours": cost.seconds}
    return exact(costs[unit] or 0) / (3600 if unit == "hours" else 1)


def exact(number: float) -> Fraction:
    """The decimal number that a float is written as, so that a tenth of 30 steps is 3."""
    return Fraction(str(number))
