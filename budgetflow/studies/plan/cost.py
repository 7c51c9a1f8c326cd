"""What a step of a trial costs, before it runs: floating-point operations, and seconds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax

from budgetflow.base.errors import ConfigError
from budgetflow.config import StudyConfig
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.step import Program, make_program
from budgetflow.engine.training.tracing import equations, nested_equations
from budgetflow.engine.training.trial_run import TrialRun
from budgetflow.studies.plan.memory import step_arguments
from budgetflow.studies.run.strategy import step_seconds

# What is timed is timed so often, for so long each time or longer; the median counts.
TIMES, AT_LEAST_SECONDS = 5, 0.1
# More steps than that takes of any model.
_MORE_THAN_ENOUGH_STEPS = 2**20
# Where nearly all of a model's work is; and kernels that XLA cannot look into.
_PRODUCTS = {"dot_general", "conv_general_dilated"}
_KERNELS = {"pallas_call", "ffi_call"}


def flops_per_step(config: StudyConfig, dataset: Dataset, program: Program) -> float | None:
    """The floating-point operations of one update, by XLA's analysis of the compiled train step.

    All of the batch's, on all devices: forward, backward and optimizer. A multiplication and an
    addition count as two, so that matrix products come to about 6 for each of their parameters and
    each example. The learning rate, regularization and other numbers do not change it.

    XLA counts the body of a loop once, however often it runs. So what is analysed is a single
    update, not a call's many, and without ``config.gradient_accumulation``, which cuts the same
    work into parts. It also counts the operations of one device alone, all of which do the same.

    Returns:
        The count; None where there is none to be trusted: the backend gives none, or there are
        matrix products or convolutions in a loop of the model or the optimizer itself (a scan over
        layers, say), or kernels that XLA cannot look into.
    """
    whole = dataclasses.replace(program.spec, gradient_accumulation=1)
    step = make_program(whole, program.mesh, config.mesh.min_sharded_size).train_steps
    state, progress, data, batches, rates, count, numbers = step_arguments(config, dataset, program)
    batches, rates = jax.tree.map(_of_one_step, (batches, rates))
    traced = step.trace(state, progress, data, batches, rates, count, numbers)
    if _has_uncountable(traced.jaxpr.jaxpr):
        return None
    analysis = traced.lower().compile().cost_analysis() or {}
    flops = analysis.get("flops", 0)
    return flops * program.mesh.size if flops > 0 else None


def seconds_per_step(
    config: StudyConfig, dataset: Dataset, program: Program, run_steps: int
) -> float:
    """The seconds of an update, with its share of the evaluations, by running a trial for a while.

    The trial has the program's devices to itself. Compiling, starting and saving come on top.

    Args:
        config: the trial's config.
        dataset: the data.
        program: the trial's program, which this compiles.
        run_steps: the length of the run that ``config.evaluation.evaluations`` are spread over. A
            step of a longer run costs less: so that of the shortest one is on the safe side.

    Raises:
        ConfigError: there are several processes, which would each stop at a time of their own.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            "the seconds of a step are not timed on several processes; give the budget in steps, "
            "examples or flops"
        )
    # At a learning rate at which nothing diverges.
    schedule = Schedule(1e-6, constant_steps=_MORE_THAN_ENOUGH_STEPS)
    run = TrialRun(config, schedule, DeviceData(dataset), program)
    try:
        update = statistics.median(step_seconds([run], AT_LEAST_SECONDS) for _ in range(TIMES))
        run.measure()  # compiled
        evaluation = statistics.median(_measure_seconds(run) for _ in range(TIMES))
    finally:
        run.release()
        run.data.release()
    return update + min(config.evaluation.evaluations, run_steps) / run_steps * evaluation


def _measure_seconds(run: TrialRun) -> float:
    started_at = time.perf_counter()
    run.measure()
    return time.perf_counter() - started_at


def _of_one_step(array: Any) -> Any:
    """The shape of a call's argument, [steps, ...], if the call made one update."""
    shape = (1, *array.shape[1:])
    return jax.ShapeDtypeStruct(shape, array.dtype, sharding=array.sharding)


def _has_uncountable(jaxpr: Any) -> bool:
    """Whether a traced function has work that XLA's analysis leaves out."""
    for equation in equations(jaxpr):
        name = equation.primitive.name
        inner = {each.primitive.name for each in nested_equations(equation)}
        if name in _KERNELS or (name in ("scan", "while") and inner & _PRODUCTS):
            return True
    return False
