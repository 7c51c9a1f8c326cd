"""The schedule of a config: lengths in steps or as fractions of the run, resolved once to steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from numbers import Real
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from budgetflow.errors import ConfigError
from budgetflow.fields import (
    ALMOST_ONE,
    CHECKED,
    LEAST_RATE,
    Fraction,
    Rate,
    SomeSteps,
    Steps,
    Strength,
)
from budgetflow.schedules import ENDLESS, Schedule, Shape
from budgetflow.user_code import user_code

# Steps at which a schedule of the user's own is compared with itself.
STEPS_ASKED = 50


@dataclass(frozen=True, config=CHECKED)
class ScheduleConfig:
    """A learning-rate schedule; lengths in steps, or as fractions of ``max_train_steps``.

    The constant period is what the other lengths leave. Without a decay length, the decay takes all
    steps after warmup. See :class:`budgetflow.schedules.Schedule` for the shapes of ``decay``.

    Attributes:
        final_learning_rate, final_learning_rate_fraction: where the decay ends, itself or as a
            fraction of the base; "exponential" needs one, "inverse_sqrt" and "step" have none.
        final_steps: steps at that learning rate, after the decay.
        power: of "polynomial".
        timescale_steps: of "inverse_sqrt"; the warmup's length if not set.
        drop_steps, drop_fractions: of "step", instead of a decay length: when to drop.
        drop_factor: of "step": what each drop multiplies the learning rate by.
        function: instead of all of these: the import path of an ``optax.Schedule``, whose learning
            rates are used as they are. It has no rule by which it could be carried over to a
            longer run.
    """

    base_learning_rate: Rate = 0.1
    warmup_steps: SomeSteps | None = None
    warmup_fraction: Fraction | None = None
    decay: Shape = "none"
    decay_steps: SomeSteps | None = None
    decay_fraction: Fraction | None = None
    final_learning_rate: Strength | None = None
    final_learning_rate_fraction: Fraction | None = None
    final_steps: SomeSteps = 0
    power: Rate = 1.0
    timescale_steps: Steps | None = None
    drop_steps: tuple[Steps, ...] = ()
    drop_fractions: tuple[Fraction, ...] = ()
    drop_factor: Annotated[float, Field(ge=LEAST_RATE, le=ALMOST_ONE, strict=True)] = 0.1
    function: str | None = None


def resolve_schedule(config: ScheduleConfig, max_train_steps: int) -> Schedule:
    """The schedule in absolute steps of a run of ``max_train_steps``.

    Raises:
        ConfigError: a length is given twice, or the lengths do not fit into the run.
    """
    if config.function is not None:
        return _own_schedule(config, max_train_steps)
    warmup_steps = _length(config, "warmup", max_train_steps) or 0
    decay_steps = _length(config, "decay", max_train_steps)
    final_learning_rate = _final_learning_rate(config)
    drops = _drops(config, max_train_steps, warmup_steps)
    if drops:
        decay_steps = max_train_steps - drops[0]
    if config.decay == "none" and decay_steps:
        raise ConfigError("config.schedule has a decay length but decay = 'none'; set the shape")
    rest = max_train_steps - warmup_steps - config.final_steps
    if config.decay != "none" and decay_steps is None:
        decay_steps = max(rest, 0)
    constant_steps = rest - (decay_steps or 0)
    if config.final_steps and not decay_steps:
        raise ConfigError("config.schedule.final_steps follow a decay, which has no steps here")
    if constant_steps < 0 or warmup_steps >= max_train_steps:
        final = f" and final_steps ({config.final_steps})" if config.final_steps else ""
        raise ConfigError(
            f"config.schedule: warmup ({warmup_steps} steps) and decay ({decay_steps or 0}){final} "
            f"are longer than the run ({max_train_steps} steps); shorten them"
        )
    if not decay_steps:
        return Schedule(config.base_learning_rate, warmup_steps, max_train_steps - warmup_steps)
    return Schedule(
        base_learning_rate=config.base_learning_rate,
        warmup_steps=warmup_steps,
        constant_steps=constant_steps,
        decay_steps=decay_steps,
        decay=config.decay,
        final_learning_rate=final_learning_rate,
        final_steps=config.final_steps,
        power=config.power,
        timescale_steps=_timescale_steps(config, warmup_steps),
        drop_steps=tuple(step - drops[0] for step in drops),
        drop_factor=config.drop_factor,
    )


def _own_schedule(config: ScheduleConfig, max_train_steps: int) -> Schedule:
    """The schedule of ``config.function``, looked at over the whole run."""
    defaults = ScheduleConfig(function=config.function)
    for field in dataclasses.fields(config):
        if getattr(config, field.name) != getattr(defaults, field.name):
            raise ConfigError(
                f"config.schedule.{field.name} is set, but config.schedule.function = "
                f"{config.function!r} gives all learning rates by itself; keep one"
            )
    where = f"config.schedule.function = {config.function!r}"
    schedule = Schedule(1.0, decay_steps=max_train_steps, decay="function",
                        function=config.function)  # fmt: skip
    with user_code("config.schedule.function", config.function):
        if (returned := _traced(schedule.to_optax())) is not None:
            raise ConfigError(f"{where} returns {returned} for a step; an optax.Schedule returns a "
                              "single number")  # fmt: skip
        rates = schedule.learning_rates()
        _check_step_by_step(schedule.to_optax(), rates, where)
    if (bad := ~(np.isfinite(rates) & (rates >= 0))).any():
        step = int(bad.argmax())
        raise ConfigError(f"{where} gives the learning rate {rates[step]:g} at step {step}")
    if not rates.any():
        raise ConfigError(f"{where} is 0 at all {max_train_steps} steps")
    return dataclasses.replace(schedule, base_learning_rate=float(rates.max()))


def _traced(function: Callable[[Any], Any]) -> str | None:
    """What a schedule returns for a traced step; None if that is a single number, as it should."""
    import jax

    values: list[Any] = []
    step = jax.ShapeDtypeStruct((), np.int32)
    jax.eval_shape(lambda step: values.append(function(step)), step)
    if not isinstance(values[0], jax.Array | Real):
        return type(values[0]).__name__
    shape = getattr(values[0], "shape", ())
    return f"an array of shape {shape}" if shape else None


def _check_step_by_step(function: Callable[[Any], Any], rates: np.ndarray, where: str) -> None:
    """Checks that a schedule asked for one step after another gives what it gave when traced.

    One with a state of its own, or at random, would not: tracing asks it once for all steps.
    """
    count = min(len(rates), STEPS_ASKED)
    for step in np.unique(np.linspace(0, len(rates) - 1, count).round().astype(int)).tolist():
        asked = float(function(step))
        if not np.isclose(asked, rates[step], rtol=1e-4, equal_nan=True):
            raise ConfigError(
                f"{where} gives the learning rate {asked:g} when it is asked for step {step}, but "
                f"{rates[step]:g} when all steps are asked for at once; it should depend on "
                "nothing but the step"
            )


def _length(config: ScheduleConfig, name: str, max_train_steps: int) -> int | None:
    steps = getattr(config, f"{name}_steps")
    fraction = getattr(config, f"{name}_fraction")
    if steps is not None and fraction is not None:
        raise ConfigError(f"config.schedule gives both {name}_steps and {name}_fraction; keep one")
    return steps if fraction is None else round(fraction * max_train_steps)


def _final_learning_rate(config: ScheduleConfig) -> float:
    """Where the decay ends; 0 for one that has no end to choose."""
    final, fraction = config.final_learning_rate, config.final_learning_rate_fraction
    if final is not None and fraction is not None:
        raise ConfigError("config.schedule gives both final_learning_rate and "
                          "final_learning_rate_fraction; keep one")  # fmt: skip
    if final is None:
        final = (fraction or 0.0) * config.base_learning_rate
    if config.decay in ENDLESS and (final or config.final_steps):
        name = "final_steps" if config.final_steps else "final_learning_rate"
        raise ConfigError(
            f"config.schedule.{name} cannot be set for decay = {config.decay!r}, which has no end "
            "of its own; leave it out"
        )
    if final > config.base_learning_rate:
        raise ConfigError(
            f"config.schedule.final_learning_rate = {final} is above the base learning rate "
            f"{config.base_learning_rate}"
        )
    if config.decay == "exponential" and not final:
        raise ConfigError(
            "config.schedule.final_learning_rate should be above 0 for an exponential decay, which "
            "never reaches 0"
        )
    return final


def _timescale_steps(config: ScheduleConfig, warmup_steps: int) -> int:
    if config.decay != "inverse_sqrt":
        return 1
    return config.timescale_steps or warmup_steps or 1


def _drops(config: ScheduleConfig, max_train_steps: int, warmup_steps: int) -> list[int]:
    """The steps of the run at which the learning rate drops."""
    if config.drop_steps and config.drop_fractions:
        raise ConfigError("config.schedule gives both drop_steps and drop_fractions; keep one")
    drops = [*config.drop_steps, *(round(f * max_train_steps) for f in config.drop_fractions)]
    if bool(drops) != (config.decay == "step"):
        raise ConfigError("config.schedule: decay = 'step' and drop_steps (or drop_fractions) go "
                          "together")  # fmt: skip
    if drops and (config.decay_steps is not None or config.decay_fraction is not None):
        raise ConfigError("config.schedule: drops say when the decay begins; leave decay_steps and "
                          "decay_fraction out")  # fmt: skip
    if drops != sorted({*drops}) or any(not warmup_steps <= d < max_train_steps for d in drops):
        raise ConfigError(
            f"config.schedule drops at steps {drops}, which should ascend from the warmup's end "
            f"({warmup_steps}) to before the end of the run ({max_train_steps})"
        )
    return drops
