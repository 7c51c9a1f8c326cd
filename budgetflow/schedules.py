"""Learning-rate schedules as data: warmup, then constant, then decay, in absolute steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np

from budgetflow.import_path import import_object

Shape = Literal[
    "none", "linear", "cosine", "1-sqrt", "exponential", "polynomial", "inverse_sqrt", "step"
]
Decay = Shape | Literal["function"]
# Decays that never end at a value that can be chosen.
ENDLESS = ("none", "inverse_sqrt", "step", "function")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate for every step: linear warmup from 0, constant, decay, final value.

    Update number ``s`` (from 0) uses ``learning_rate(s)`` and leads from the state at step ``s`` to
    the one at ``s + 1``; a run of ``total_steps`` never uses the value at ``total_steps`` itself.
    This is optax's convention, so warmup's first update has learning rate 0.

    Attributes:
        base_learning_rate: the highest value, held through the constant period.
        warmup_steps: updates of linear warmup.
        constant_steps: updates at the base learning rate.
        decay_steps: updates of decay; 0 if ``decay`` is "none".
        decay: the shape of the decay. With f the fraction of it that is over, from the base to the
            final learning rate: "linear"; "cosine" (Loshchilov and Hutter 2017, arXiv:1608.03983);
            "1-sqrt", by 1 - sqrt(f) (Hägele et al. 2024, arXiv:2405.18392); "polynomial", by
            (1 - f)^power; "exponential", by the same factor in every step. Without an end of their
            own, t steps into the decay: "inverse_sqrt", by sqrt(timescale / (timescale + t))
            (Vaswani et al. 2017, arXiv:1706.03762); "step", times a factor at every drop. And
            "function": all learning rates are those of ``function``, for as long as the run is.
        final_learning_rate: where the decay ends; 0 for those without an end of their own.
        final_steps: updates at the final learning rate, after the decay.
        power: of "polynomial".
        timescale_steps: of "inverse_sqrt".
        drop_steps: of "step": the drops, in steps after the start of the decay, the first being 0.
        drop_factor: of "step".
        function: the import path of an ``optax.Schedule``, the whole of "function".
    """

    base_learning_rate: float
    warmup_steps: int = 0
    constant_steps: int = 0
    decay_steps: int = 0
    decay: Decay = "none"
    final_learning_rate: float = 0.0
    power: float = 1.0
    timescale_steps: int = 1
    drop_steps: tuple[int, ...] = ()
    drop_factor: float = 0.1
    final_steps: int = 0
    function: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop_steps", tuple(self.drop_steps))  # JSON has lists
        lengths = (self.warmup_steps, self.constant_steps, self.decay_steps, self.final_steps)
        if min(lengths) < 0:
            raise ValueError(f"a schedule's lengths cannot be negative: {self}")
        if (self.decay == "none") != (self.decay_steps == 0):
            raise ValueError(f"decay {self.decay!r} does not go with {self.decay_steps} steps")
        if self.decay in ENDLESS and (self.final_learning_rate or self.final_steps):
            raise ValueError(f"decay {self.decay!r} has no final learning rate to set or hold")
        if (self.decay == "function") != (self.function is not None):
            raise ValueError(f"decay {self.decay!r} does not go with function {self.function!r}")
        if self.decay == "exponential" and self.final_learning_rate <= 0:
            raise ValueError("an exponential decay needs a final learning rate above 0")
        if (self.decay == "step") != bool(self.drop_steps):
            raise ValueError(f"decay {self.decay!r} does not go with drops at {self.drop_steps}")
        if self.drop_steps and (self.drop_steps[0] != 0 or list(self.drop_steps) != sorted(
            {*self.drop_steps}
        )):  # fmt: skip
            raise ValueError(f"drops are ascending, the first at 0, not at {self.drop_steps}")
        if self.power <= 0 or self.timescale_steps <= 0 or not 0 < self.drop_factor < 1:
            raise ValueError(f"power, timescale and drop factor are out of range: {self}")

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


@functools.lru_cache(maxsize=32)
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
    base = schedule.base_learning_rate
    # Lengths of zero are replaced by one: their branch is never selected, only computed.
    warmup = base * count / max(schedule.warmup_steps, 1)
    decayed = _decayed(schedule, xp.maximum(count - schedule.decay_start_step, 0), xp)
    held = (count < schedule.decay_start_step) | (schedule.decay == "none")
    return xp.where(count < schedule.warmup_steps, warmup, xp.where(held, base, decayed))


def _decayed(schedule: Schedule, into: Any, xp: ModuleType) -> Any:
    """The learning rate some steps into the decay."""
    base, final = schedule.base_learning_rate, schedule.final_learning_rate
    if schedule.decay == "inverse_sqrt":
        return base * xp.sqrt(schedule.timescale_steps / (schedule.timescale_steps + into))
    if schedule.decay == "step":
        return base * schedule.drop_factor ** sum(
            1.0 * (into >= drop) for drop in schedule.drop_steps
        )
    fraction = xp.clip(into / max(schedule.decay_steps, 1), 0.0, 1.0)
    if schedule.decay == "exponential":
        return base * (final / base) ** fraction
    left = {
        "cosine": lambda: 0.5 * (1 + xp.cos(xp.pi * fraction)),
        "1-sqrt": lambda: 1 - xp.sqrt(fraction),
        "polynomial": lambda: (1 - fraction) ** schedule.power,
    }.get(schedule.decay, lambda: 1 - fraction)()
    return final + (base - final) * left


def common_prefix_steps(first: Schedule, second: Schedule) -> int:
    """How many updates two schedules share from the start, with exactly the same learning rates."""
    steps = min(first.total_steps, second.total_steps)
    differ = first.learning_rates(steps) != second.learning_rates(steps)
    return int(np.argmax(differ)) if differ.any() else steps
