"""Learning-rate schedules as data: warmup, then constant, then decay, in absolute steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np

Decay = Literal["none", "linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate for every step: linear warmup from 0, constant, decay to a final value.

    Update number ``s`` (from 0) uses ``learning_rate(s)`` and leads from the state at step ``s`` to
    the one at ``s + 1``; a run of ``total_steps`` never uses the value at ``total_steps`` itself.
    This is optax's convention, so warmup's first update has learning rate 0.

    Attributes:
        base_learning_rate: the highest value, held through the constant period.
        warmup_steps: updates of linear warmup.
        constant_steps: updates at the base learning rate.
        decay_steps: updates of decay; 0 if ``decay`` is "none".
        decay: the shape of the decay.
        final_learning_rate: where the decay ends.
    """

    base_learning_rate: float
    warmup_steps: int = 0
    constant_steps: int = 0
    decay_steps: int = 0
    decay: Decay = "none"
    final_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if min(self.warmup_steps, self.constant_steps, self.decay_steps) < 0:
            raise ValueError(f"a schedule's lengths cannot be negative: {self}")
        if (self.decay == "none") != (self.decay_steps == 0):
            raise ValueError(f"decay {self.decay!r} does not go with {self.decay_steps} steps")

    @property
    def total_steps(self) -> int:
        """The updates of a run with this schedule: warmup, constant and decay together."""
        return self.decay_start_step + self.decay_steps

    @property
    def decay_start_step(self) -> int:
        """The step at which warmup and the constant period are over."""
        return self.warmup_steps + self.constant_steps

    def learning_rates(self, steps: int | None = None) -> np.ndarray:
        """The learning rates of the first ``steps`` updates (default: all), float32, [steps]."""
        count = np.arange(self.total_steps if steps is None else steps)
        return np.asarray(_evaluate(self, count, np), dtype=np.float32)

    def to_optax(self) -> Callable[[Any], Any]:
        """This schedule as an ``optax.Schedule``: a traceable function of the update's count."""
        import jax.numpy as jnp

        return lambda count: _evaluate(self, jnp.asarray(count), jnp)

    def to_dict(self) -> dict[str, Any]:
        """The schedule's fields, ready for JSON; ``Schedule(**fields)`` is the way back."""
        return dataclasses.asdict(self)


def _evaluate(schedule: Schedule, count: Any, xp: ModuleType) -> Any:
    """The learning rate at ``count``, an integer, by NumPy (float64) or jax.numpy (float32)."""
    base, final = schedule.base_learning_rate, schedule.final_learning_rate
    # Lengths of zero are replaced by one: their branch is never selected, only computed.
    warmup = base * count / max(schedule.warmup_steps, 1)
    fraction = xp.clip((count - schedule.decay_start_step) / max(schedule.decay_steps, 1), 0.0, 1.0)
    if schedule.decay == "cosine":
        decayed = final + (base - final) * 0.5 * (1 + xp.cos(xp.pi * fraction))
    else:
        decayed = final + (base - final) * (1 - fraction)
    held = (count < schedule.decay_start_step) | (schedule.decay == "none")
    return xp.where(count < schedule.warmup_steps, warmup, xp.where(held, base, decayed))


def common_prefix_steps(first: Schedule, second: Schedule) -> int:
    """How many updates two schedules share from the start, with exactly the same learning rates."""
    steps = min(first.total_steps, second.total_steps)
    differ = first.learning_rates(steps) != second.learning_rates(steps)
    return int(np.argmax(differ)) if differ.any() else steps
