"""The schedule of a config: lengths in steps or as fractions of the run, resolved once to steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from numbers import Real
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from budgetflow.base.errors import ConfigError
from budgetflow.base.user_code import user_code
from budgetflow.config.fields import (
    ALMOST_ONE,
    CHECKED,
    LEAST_RATE,
    Fraction,
    Rate,
    SomeSteps,
    Steps,
    Strength,
)
from budgetflow.engine.decays import BOUNDARIES, DECAYS, DROPS, DecayName, Points
from budgetflow.engine.schedules import Schedule

# Steps at which a schedule of the user's own is compared with itself.
STEPS_ASKED = 50


@dataclass(frozen=True, config=CHECKED)
class ScheduleConfig:
    """A learning-rate schedule; lengths in steps, or as fractions of ``max_train_steps``.

    The constant period is what the other lengths leave. Without a decay length, the decay takes all
    steps after warmup. See :mod:`budgetflow.engine.decays` for the shapes of ``decay``.

    Attributes:
        warmup_start_learning_rate, warmup_start_learning_rate_fraction: where warmup begins, itself
            or as a fraction of the base; 0 if not set.
        final_learning_rate, final_learning_rate_fraction: where the decay ends, itself or as a
            fraction of the base; "exponential" needs one; "inverse_sqrt", "step" and those by
            pieces have none.
        final_steps: steps at that learning rate, after the decay.
        power: of "polynomial".
        timescale_steps: of "inverse_sqrt"; the warmup's length if not set.
        drop_steps, drop_fractions: of "step", instead of a decay length: when to drop.
        drop_factor: of "step": what each drop multiplies the learning rate by.
        boundary_steps, boundary_fractions: of "piecewise_constant" and "piecewise_linear", instead
            of a decay length: where the pieces begin.
        boundary_factors: of these two, one for each boundary: the learning rate there, as a
            fraction of the base. It stays until the next boundary, or goes there in a straight
            line; the last one stays to the end.
        function: instead of all of these: the import path of an ``optax.Schedule``, whose learning
            rates are used as they are. It has no rule by which it could be carried over to a
            longer run.
    """

    base_learning_rate: Rate = 0.1
    warmup_steps: SomeSteps | None = None
    warmup_fraction: Fraction | None = None
    warmup_start_learning_rate: Strength | None = None
    warmup_start_learning_rate_fraction: Fraction | None = None
    decay: DecayName = "none"
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
    boundary_steps: tuple[SomeSteps, ...] = ()
    boundary_fractions: tuple[Fraction, ...] = ()
    boundary_factors: tuple[Fraction, ...] = ()
    function: str | None = None


def resolve_schedule(config: ScheduleConfig, max_train_steps: int) -> Schedule:
    """The schedule in absolute steps of a run of ``max_train_steps``.

    Raises:
        ConfigError: a length is given twice, or the lengths do not fit into the run.
    """
    if config.function is not None:
        return _own_schedule(config, max_train_steps)
    decay = DECAYS[config.decay]
    warmup_steps = _length(config, "warmup", max_train_steps) or 0
    warmup_start = _learning_rate(config, "warmup_start_learning_rate")
    decay_steps = _length(config, "decay", max_train_steps)
    final_learning_rate = _final_learning_rate(config)
    steps = _points(config, max_train_steps, warmup_steps)
    if steps:
        decay_steps = max_train_steps - steps[0]
    if not decay.has_steps and decay_steps:
        raise ConfigError("config.schedule has a decay length but decay = 'none'; set the shape")
    rest = max_train_steps - warmup_steps - config.final_steps
    if decay.has_steps and decay_steps is None:
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
    fields: dict[str, Any] = {
        "base_learning_rate": config.base_learning_rate,
        "warmup_steps": warmup_steps,
        "warmup_start_learning_rate": warmup_start if warmup_steps else 0.0,
    }
    if not decay_steps:
        return Schedule(**fields, constant_steps=max_train_steps - warmup_steps)
    if decay.points:
        fields[f"{decay.points.name}_steps"] = tuple(step - steps[0] for step in steps)
    timescale_steps = config.timescale_steps or warmup_steps or 1
    try:
        return Schedule(
            **fields,
            constant_steps=constant_steps,
            decay_steps=decay_steps,
            decay=config.decay,
            final_learning_rate=final_learning_rate,
            final_steps=config.final_steps,
            power=config.power,
            timescale_steps=timescale_steps if "timescale_steps" in decay.parameters else 1,
            drop_factor=config.drop_factor,
            boundary_factors=config.boundary_factors,
        )
    except ValueError as error:
        raise ConfigError(f"config.schedule.{error}") from error


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
    schedule = Schedule(
        1.0, decay_steps=max_train_steps, decay="function", function=config.function
    )
    with user_code("config.schedule.function", config.function):
        if (returned := _traced(schedule.to_optax())) is not None:
            raise ConfigError(
                f"{where} returns {returned} for a step; an optax.Schedule returns a single number"
            )
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


def _either(config: ScheduleConfig, name: str, other: str) -> tuple[Any, Any]:
    """The values of two fields of which one at most may be given."""
    values = getattr(config, name), getattr(config, other)
    if all(value not in (None, ()) for value in values):
        raise ConfigError(f"config.schedule gives both {name} and {other}; keep one")
    return values


def _length(config: ScheduleConfig, name: str, max_train_steps: int) -> int | None:
    steps, fraction = _either(config, f"{name}_steps", f"{name}_fraction")
    return steps if fraction is None else round(fraction * max_train_steps)


def _learning_rate(config: ScheduleConfig, name: str) -> float:
    """A learning rate that is given by itself or as a fraction of the base; 0 if it is not."""
    rate, fraction = _either(config, name, f"{name}_fraction")
    if rate is None:
        rate = (fraction or 0.0) * config.base_learning_rate
    if rate > config.base_learning_rate:
        raise ConfigError(
            f"config.schedule.{name} = {rate} is above the base learning rate "
            f"{config.base_learning_rate}"
        )
    return rate


def _final_learning_rate(config: ScheduleConfig) -> float:
    """Where the decay ends; 0 for one that has no end to choose."""
    final = _learning_rate(config, "final_learning_rate")
    if not DECAYS[config.decay].has_end and (final or config.final_steps):
        name = "final_steps" if config.final_steps else "final_learning_rate"
        raise ConfigError(
            f"config.schedule.{name} cannot be set for decay = {config.decay!r}, which has no end "
            "of its own; leave it out"
        )
    return final


def _points(config: ScheduleConfig, max_train_steps: int, warmup_steps: int) -> list[int]:
    """The steps of the run that the decay is given by; none for one given by its length."""
    steps_of_decay: list[int] = []
    for points in (DROPS, BOUNDARIES):
        name, own = points.name, DECAYS[config.decay].points == points
        in_steps, fractions = _either(config, f"{name}_steps", f"{name}_fractions")
        steps = [*in_steps, *(round(fraction * max_train_steps) for fraction in fractions)]
        if bool(steps) != own:
            decays = " or ".join(repr(n) for n, decay in DECAYS.items() if decay.points == points)
            raise ConfigError(
                f"config.schedule: decay = {decays} and {name}_steps (or {name}_fractions) go "
                "together"
            )
        if own:
            _check_points(config, points, steps, warmup_steps, max_train_steps)
            steps_of_decay = steps
    return steps_of_decay


def _check_points(
    config: ScheduleConfig, points: Points, steps: list[int], first: int, max_train_steps: int
) -> None:
    """Checks that steps of the run ascend from the first possible one."""
    if config.decay_steps is not None or config.decay_fraction is not None:
        raise ConfigError(
            f"config.schedule: {points.plural} say when the decay begins; leave decay_steps and "
            "decay_fraction out"
        )
    last = max_train_steps - points.least_steps_left
    if steps != sorted({*steps}) or not first <= steps[0] < max_train_steps or steps[-1] > last:
        to = "before the end" if points.least_steps_left else "the end"
        raise ConfigError(
            f"config.schedule {points.plural} at steps {steps}, which should ascend from "
            f"the warmup's end ({first}) to {to} of the run ({max_train_steps})"
        )
