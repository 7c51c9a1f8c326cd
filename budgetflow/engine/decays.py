"""The decays that a schedule can have: one table, and all that the library knows of each.

To add one, write its formula and its entry in :data:`DECAYS`, and its name in :data:`DecayName`.
An entry gives the facts of :class:`Decay` in which it differs from most of its kind.
tests/engine/test_decays.py holds whatever is in the table to the same laws.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from budgetflow.engine.schedules import Schedule

# The names that ``config.schedule.decay`` can have: those of the table but "function".
DecayName = Literal[
    "none",
    "linear",
    "cosine",
    "1-sqrt",
    "exponential",
    "polynomial",
    "inverse_sqrt",
    "step",
    "piecewise_constant",
    "piecewise_linear",
]

# Of a schedule and the steps that the decay is under way, an array of integers of the module:
# NumPy, which computes in float64, or jax.numpy, which computes in float32.
LearningRate = Callable[["Schedule", Any, ModuleType], Any]


@dataclasses.dataclass(frozen=True)
class Points:
    """Steps of the run that a decay is given by, instead of by its length; it begins at the first.

    Attributes:
        name: begins the names of their fields, as in ``drop_steps`` and ``drop_fractions``.
        plural: what messages call them.
        least_steps_left: how long before the end of the run the last one has to come.
        stretched: the steps after the start of the decay, ascending, once rounding has moved them.
    """

    name: str
    plural: str
    least_steps_left: int
    stretched: Callable[[list[int]], tuple[int, ...]]

    def steps(self, schedule: Schedule) -> tuple[int, ...]:
        """The steps after the start of a schedule's decay at which they are; the first is 0."""
        return getattr(schedule, f"{self.name}_steps")


def _merged(steps: list[int]) -> tuple[int, ...]:
    """Those that come to lie on the same step are one."""
    return tuple(sorted({*steps}))


def _apart(steps: list[int]) -> tuple[int, ...]:
    """All of them, a step apart at least, so that each keeps its factor."""
    most = itertools.accumulate((step - number for number, step in enumerate(steps)), max)
    return tuple(number + step for number, step in enumerate(most))


DROPS = Points("drop", "drops", 1, _merged)
# One at the very end is where a line leads to.
BOUNDARIES = Points("boundary", "boundaries", 0, _apart)


@dataclasses.dataclass(frozen=True)
class Lengthening:
    """How a schedule is carried over to a longer run, or why it is not.

    Attributes:
        grows: the length that takes all extra steps; None if there is no rule.
        words: the rule in a sentence; without one, the reason as the beginning of a sentence.
    """

    grows: Literal["constant_steps", "decay_steps"] | None
    words: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decay:
    """A family of decays. All facts are given: what is left out is a TypeError, never a default.

    Attributes:
        learning_rate: its formula; None if that is :attr:`Schedule.function`.
        has_steps: False only for "none", which is no decay at all.
        has_end: whether it ends at a final learning rate that can be chosen, and held.
        points: what it is given by instead of a length in steps; None for a length.
        parameters: its own numbers: fields of a schedule, and of its config, that have no effect on
            other families.
        problem: finds what is wrong with a schedule's values of these, in words that begin with the
            field's name, or nothing; None where there is nothing to check.
        lengthen: the rule for a longer run, by
            :func:`budgetflow.playbook.common.transfer.transfer`.
        shortens: what a run does that is shorter by more than the constant period: it has all its
            lengths in proportion, or ends before the decay does; None if there is no rule.
    """

    learning_rate: LearningRate | None
    has_steps: bool
    has_end: bool
    points: Points | None
    parameters: tuple[str, ...]
    problem: Callable[[Schedule], str | None] | None
    lengthen: Callable[[Schedule], Lengthening]
    shortens: Literal["in proportion", "by ending earlier"] | None


# Formulas: those that end at a final learning rate, by the part of the way to it that is left when
# a fraction of the decay is over, and those that give the learning rate itself.


def _fraction(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """The fraction of the decay that is over, in [0, 1]."""
    # A length of zero is replaced by one: its value is never selected, only computed.
    return xp.clip(into / max(schedule.decay_steps, 1), 0.0, 1.0)


def _to_the_end(left: LearningRate) -> LearningRate:
    """From the base to the final learning rate, by the part of the way that is left."""

    def learning_rate(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
        base, final = schedule.base_learning_rate, schedule.final_learning_rate
        return final + (base - final) * left(schedule, _fraction(schedule, into, xp), xp)

    return learning_rate


def _none(schedule: Schedule, fraction: Any, xp: ModuleType) -> Any:
    """All of the way."""
    return xp.ones_like(fraction)


def _linear(schedule: Schedule, fraction: Any, xp: ModuleType) -> Any:
    """1 - f, as optax.linear_schedule."""
    return 1 - fraction


def _cosine(schedule: Schedule, fraction: Any, xp: ModuleType) -> Any:
    """(1 + cos(pi f)) / 2: Loshchilov and Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1 + xp.cos(xp.pi * fraction))


def _one_minus_sqrt(schedule: Schedule, fraction: Any, xp: ModuleType) -> Any:
    """1 - sqrt(f): Hägele et al. 2024, arXiv:2405.18392."""
    return 1 - xp.sqrt(fraction)


def _polynomial(schedule: Schedule, fraction: Any, xp: ModuleType) -> Any:
    """(1 - f)^power, as optax.polynomial_schedule."""
    return (1 - fraction) ** schedule.power


def _exponential(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """By the same factor in every step, as optax.exponential_decay: base (final / base)^f."""
    base, final = schedule.base_learning_rate, schedule.final_learning_rate
    return base * (final / base) ** _fraction(schedule, into, xp)


def _inverse_sqrt(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """Base sqrt(timescale / (timescale + t)): Vaswani et al. 2017, arXiv:1706.03762."""
    timescale = schedule.timescale_steps
    return schedule.base_learning_rate * xp.sqrt(timescale / (timescale + into))


def _step(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """Times the same factor at every drop, as optax.piecewise_constant_schedule.

    Not a case of "piecewise_constant" with the powers of the factor, which rounds differently.
    """
    drops = sum(1.0 * (into >= drop) for drop in schedule.drop_steps)
    return schedule.base_learning_rate * schedule.drop_factor**drops


def _piecewise_constant(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """From each boundary on its factor of the base, as optax.piecewise_constant_schedule.

    There a boundary has the ratio of its factor and the one before.
    """
    passed = xp.searchsorted(xp.asarray(schedule.boundary_steps), into, side="right")
    return schedule.base_learning_rate * xp.asarray(schedule.boundary_factors)[passed - 1]


def _piecewise_linear(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """At each boundary its factor of the base, and a straight line from one to the next.

    As optax.piecewise_interpolate_schedule, where a boundary has the ratio of its factor and the
    one before. The last factor stays.
    """
    steps, factors = xp.asarray(schedule.boundary_steps), xp.asarray(schedule.boundary_factors)
    return schedule.base_learning_rate * xp.interp(into, steps, factors)


# What can be wrong with parameters.


def _final_problem(schedule: Schedule) -> str | None:
    if schedule.final_learning_rate > 0:
        return None
    return "final_learning_rate should be above 0 for an exponential decay, which never reaches 0"


def _between(name: str, low: float, high: float) -> Callable[[Schedule], str | None]:
    """Of a number that lies between two others."""

    def problem(schedule: Schedule) -> str | None:
        value = getattr(schedule, name)
        if low < value < high:
            return None
        return f"{name} = {value} is out of range; should be between {low:g} and {high:g}"

    return problem


def _boundary_problem(schedule: Schedule) -> str | None:
    factors, boundaries = schedule.boundary_factors, len(schedule.boundary_steps)
    if len(factors) != boundaries:
        return (
            f"boundary_factors = {factors} are {len(factors)} for {boundaries} boundaries; should "
            "be one for each"
        )
    if all(0 <= factor <= 1 for factor in factors):
        return None
    return (
        f"boundary_factors = {factors} are out of range; should be from 0 to 1, since the base "
        "learning rate is the highest"
    )


def _line_problem(schedule: Schedule) -> str | None:
    factors = schedule.boundary_factors
    if problem := _boundary_problem(schedule):
        return problem
    if factors[0] == 1 and len(factors) > 1:
        return None
    return (
        f"boundary_factors = {factors} should be two or more, the first 1.0: up to the first "
        "boundary the learning rate is the base"
    )


# What becomes of a decay in a longer run. Why each rule: see playbook/common/transfer.py.


def _extend_constant(schedule: Schedule) -> Lengthening:
    return Lengthening(
        "constant_steps",
        f"{schedule.decay}: warmup and the decay's length are kept and the constant period is "
        "extended",
    )


def _go_on(schedule: Schedule) -> Lengthening:
    return Lengthening("constant_steps", "constant: the learning rate goes on")


def _extend_cosine(schedule: Schedule) -> Lengthening:
    if schedule.constant_steps:
        return _extend_constant(schedule)
    return Lengthening(
        "decay_steps",
        "cosine: the base learning rate is kept and the cosine extended to the new length",
    )


def _no_constant_to_extend(schedule: Schedule) -> Lengthening:
    return Lengthening(
        None,
        "an inverse square root decay has no constant period to extend, so that its extra steps "
        "would come at its lowest learning rates",
    )


def _only_the_author_knows(schedule: Schedule) -> Lengthening:
    return Lengthening(
        None,
        f"{schedule.function} is a function of the step, which does not say what becomes of it in "
        "a longer run",
    )


# What decays to a final learning rate have in common, and the others; an entry says what it has
# instead.
_WithAnEnd = functools.partial(
    Decay,
    has_steps=True,
    has_end=True,
    points=None,
    parameters=(),
    problem=None,
    lengthen=_extend_constant,
    shortens="in proportion",
)
_WithoutEnd = functools.partial(_WithAnEnd, has_end=False)

DECAYS: dict[str, Decay] = {
    "none": _WithoutEnd(learning_rate=_to_the_end(_none), has_steps=False, lengthen=_go_on),
    "linear": _WithAnEnd(learning_rate=_to_the_end(_linear)),
    "cosine": _WithAnEnd(learning_rate=_to_the_end(_cosine), lengthen=_extend_cosine),
    "1-sqrt": _WithAnEnd(learning_rate=_to_the_end(_one_minus_sqrt)),
    "exponential": _WithAnEnd(learning_rate=_exponential, problem=_final_problem),
    "polynomial": _WithAnEnd(
        learning_rate=_to_the_end(_polynomial),
        parameters=("power",),
        problem=_between("power", 0, math.inf),
    ),
    "inverse_sqrt": _WithoutEnd(
        learning_rate=_inverse_sqrt,
        parameters=("timescale_steps",),
        problem=_between("timescale_steps", 0, math.inf),
        lengthen=_no_constant_to_extend,
        shortens="by ending earlier",
    ),
    "step": _WithoutEnd(
        learning_rate=_step,
        points=DROPS,
        parameters=("drop_factor",),
        problem=_between("drop_factor", 0, 1),
    ),
    "piecewise_constant": _WithoutEnd(
        learning_rate=_piecewise_constant,
        points=BOUNDARIES,
        parameters=("boundary_factors",),
        problem=_boundary_problem,
    ),
    "piecewise_linear": _WithoutEnd(
        learning_rate=_piecewise_linear,
        points=BOUNDARIES,
        parameters=("boundary_factors",),
        problem=_line_problem,
    ),
    "function": _WithoutEnd(learning_rate=None, lengthen=_only_the_author_knows, shortens=None),
}
