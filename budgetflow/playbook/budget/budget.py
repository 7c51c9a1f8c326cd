"""A budget in steps, examples, FLOPs or hours, and what it is in steps: the planner's own unit."""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Mapping
from fractions import Fraction

from budgetflow.base.errors import ConfigError, nearest

UNITS = ("steps", "examples", "flops", "hours")
# To which figures in FLOPs and hours are rounded up, to be read and typed.
_THREE_DIGITS = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step costs: the figures by which a budget became steps.

    Attributes:
        examples: the batch size.
        flops: floating-point operations of an update; None where they were not or cannot be
            counted.
        seconds: of an update, with its share of the evaluations, of one trial that has its devices
            to itself; None where that was not timed.
    """

    examples: int
    flops: float | None = None
    seconds: float | None = None


def budget_in_steps(budget: Mapping[str, float], cost: StepCost) -> int:
    """The whole steps that a budget pays for; those of all trials together.

    Figures are taken as the decimal numbers that they are written as: 0.1 hours are 100 steps of
    3.6 seconds.

    Args:
        budget: one of :data:`UNITS` -> how much of it, as in {"hours": 2.5}. Hours are those of the
            devices of one trial, which run one trial at a time.
        cost: of a step.

    Raises:
        ConfigError: it is no such budget, or what a step costs of it is not known.
    """
    if len(budget) != 1:
        given = ", ".join(sorted(budget)) or "none"
        raise ConfigError(f"the budget is given in {given}: should be one of {', '.join(UNITS)}")
    (unit, amount), *_ = budget.items()
    each = _of_a_step(unit, cost)
    if not 0 < amount < float("inf"):
        raise ConfigError(f"a budget of {amount:g} {unit}: should be a number above 0")
    return int(exact(amount) // each)


def steps_in_unit(steps: int, unit: str, cost: StepCost) -> float:
    """What a number of steps costs in a unit: a budget of that much pays for all of them.

    Args:
        steps: how many.
        unit: one of :data:`UNITS`. FLOPs and hours are rounded up to three digits.
        cost: of a step.

    Raises:
        ConfigError: there is no such unit, or what a step costs of it is not known.
    """
    needed = steps * _of_a_step(unit, cost)
    if needed.denominator == 1 and unit in ("steps", "examples"):
        return int(needed)
    numerator, denominator = map(decimal.Decimal, (needed.numerator, needed.denominator))
    return float(_THREE_DIGITS.divide(numerator, denominator))


def _of_a_step(unit: str, cost: StepCost) -> Fraction:
    """What a step costs in a unit, exactly."""
    if unit not in UNITS:
        raise ConfigError(f"a budget in {unit!r}: {nearest(unit, UNITS)}")
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
    """The decimal number that a float is written as: a tenth of 30 steps is 3."""
    return Fraction(str(number))
