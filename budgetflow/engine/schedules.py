"""Learning-rate schedules as data: warmup, then constant, then decay, in absolute steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np

from budgetflow.base.errors import nearest
from budgetflow.base.import_path import import_object
from budgetflow.engine.decays import BOUNDARIES, DECAYS, DROPS, Decay, DecayName


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate for every step: linear warmup, constant, decay, final value.

    Update number ``s`` (from 0) uses ``learning_rate(s)`` and leads from the state at step ``s`` to
    the one at ``s + 1``; a run of ``total_steps`` never uses the value at ``total_steps`` itself.
    This is optax's convention, so warmup's first update has the learning rate that it starts from.

    Attributes:
        base_learning_rate: the highest value, held through the constant period.
        warmup_steps: updates of linear warmup.
        constant_steps: updates at the base learning rate.
        decay_steps: updates of decay; 0 if ``decay`` is "none".
        decay: the shape of the decay; a name in :data:`budgetflow.engine.decays.DECAYS`, where its
            formula is. For "function", all learning rates are those of ``function``, for as long as
            the run is.
        final_learning_rate: where the decay ends; 0 for those without an end of their own.
        final_steps: updates at the final learning rate, after the decay.
        power: of "polynomial".
        timescale_steps: of "inverse_sqrt".
        drop_steps: of "step": the drops, in steps after the start of the decay, the first being 0.
        drop_factor: of "step": what each drop multiplies the learning rate by.
        boundary_steps: of "piecewise_constant" and "piecewise_linear": in steps after the start of
            the decay, the first being 0.
        boundary_factors: of these two: the learning rate at each boundary, relative to the base.
        warmup_start_learning_rate: of the first update of warmup; not used without one.
        function: the import path of an ``optax.Schedule``, the whole of "function".
    """

    base_learning_rate: float
    warmup_steps: int = 0
    constant_steps: int = 0
    decay_steps: int = 0
    decay: DecayName | Literal["function"] = "none"
    final_learning_rate: float = 0.0
    power: float = 1.0
    timescale_steps: int = 1
    drop_steps: tuple[int, ...] = ()
    drop_factor: float = 0.1
    final_steps: int = 0
    function: str | None = None
    boundary_steps: tuple[int, ...] = ()
    boundary_factors: tuple[float, ...] = ()
    warmup_start_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} does not exist; {nearest(self.decay, DECAYS)}")
        for name in ("drop_steps", "boundary_steps", "boundary_factors"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = (self.warmup_steps, self.constant_steps, self.decay_steps, self.final_steps)
        if min(lengths) < 0:
            raise ValueError(f"a schedule's lengths cannot be negative: {self}")
        if self.family.has_steps != (self.decay_steps > 0):
            raise ValueError(f"decay {self.decay!r} does not go with {self.decay_steps} steps")
        if not self.family.has_end and (self.final_learning_rate or self.final_steps):
            raise ValueError(f"decay {self.decay!r} has no final learning rate to set or hold")
        if (self.family.learning_rate is None) != (self.function is not None):
            raise ValueError(f"decay {self.decay!r} does not go with function {self.function!r}")
        for points in (DROPS, BOUNDARIES):
            steps = points.steps(self)
            if (self.family.points == points) != bool(steps):
                raise ValueError(
                    f"decay {self.decay!r} does not go with {points.plural} at {steps}"
                )
            if steps and (steps[0] != 0 or list(steps) != sorted({*steps})):
                raise ValueError(f"{points.plural} are ascending, the first at 0, not at {steps}")
        start = self.warmup_start_learning_rate
        if start and not 0 < start <= self.base_learning_rate:
            raise ValueError(f"warmup leads from {start} to a lower base learning rate: {self}")
        if self.family.problem and (problem := self.family.problem(self)):
            raise ValueError(problem)

    @property
    def family(self) -> Decay:
        """All that is known of the shape of its decay."""
        return DECAYS[self.decay]

    @property
    def total_steps(self) -> int:
        """The updates of a run with this schedule: all four lengths together."""
        return self.decay_start_step + self.decay_steps + self.final_steps

    @property
    def decay_start_step(self) -> int:
        """The step at which warmup and the constant period are over."""
        return self.warmup_steps + self.constant_steps

    @property
    def end_learning_rate(self) -> float:
        """The learning rate that the update after the last one would have."""
        if self.function is not None:
            return float(self.to_optax()(self.total_steps))
        return float(_evaluate(self, np.asarray(self.total_steps), np))

    def learning_rates(self, steps: int | None = None) -> np.ndarray:
        """The learning rates of the first ``steps`` updates (default: all), float32, [steps]."""
        return _learning_rates(self, self.total_steps if steps is None else steps)

    def to_optax(self) -> Callable[[Any], Any]:
        """This schedule as an ``optax.Schedule``: a traceable function of the update's count."""
        if self.function is not None:
            return import_object(self.function, "config.schedule.function")
        import jax.numpy as jnp

        return lambda count: _evaluate(self, jnp.asarray(count), jnp)

    def to_dict(self) -> dict[str, Any]:
        """The schedule's fields, ready for JSON; ``Schedule(**fields)`` is the way back."""
        return dataclasses.asdict(self)


@functools.lru_cache(maxsize=32)  # Plans compare schedules pair by pair.
def _learning_rates(schedule: Schedule, steps: int) -> np.ndarray:
    if schedule.function is None:
        values = _evaluate(schedule, np.arange(steps), np)
    else:
        import jax

        # A schedule of one's own is asked for a step at a time, as an optimizer would.
        values = jax.vmap(schedule.to_optax())(np.arange(steps))
    rates = np.asarray(values, dtype=np.float32)
    rates.setflags(write=False)
    return rates


def _evaluate(schedule: Schedule, count: Any, xp: ModuleType) -> Any:
    """The learning rate at ``count``, an integer, by NumPy (float64) or jax.numpy (float32)."""
    base, start = schedule.base_learning_rate, schedule.warmup_start_learning_rate
    decayed = schedule.family.learning_rate
    assert decayed is not None  # a function is asked by itself
    # A length of zero is replaced by one: its branch is never selected, only computed.
    warmup = start + (base - start) * count / max(schedule.warmup_steps, 1)
    into = xp.maximum(count - schedule.decay_start_step, 0)
    is_constant = count < schedule.decay_start_step
    after_warmup = xp.where(is_constant, base, decayed(schedule, into, xp))
    return xp.where(count < schedule.warmup_steps, warmup, after_warmup)


def common_prefix_steps(first: Schedule, second: Schedule) -> int:
    """How many updates two schedules share from the start, with exactly the same learning rates."""
    steps = min(first.total_steps, second.total_steps)
    differ = first.learning_rates(steps) != second.learning_rates(steps)
    return int(np.argmax(differ)) if differ.any() else steps
