"""The compiled functions of a trial: pure, and shared by all trials that differ only in numbers.

Whatever is a number (learning rate, momentum, weight decay, dropout rate, seed…) enters as a traced
array, so that a study compiles once; whatever shapes the program (model, optimizer, batch size)
stands in a :class:`ProgramSpec`, and specs that are equal share a :class:`Program`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from budgetflow.base.import_path import keyword_names
from budgetflow.engine.optimizers import example_numbers, make_optimizer, schedule_free_params
from budgetflow.engine.training.apply import (
    Arrays,
    as_before,
    divided,
    examples_of,
    merged_model,
    on_cpu,
    predict,
    split_model,
)
from budgetflow.engine.training.exactness import compiler_options
from budgetflow.engine.training.fit_check import Progress, check_fit, is_fitted
from budgetflow.engine.training.mesh import replicated, state_shardings
from budgetflow.engine.training.spec import ProgramSpec, apply_model, augmented, model_inputs
from budgetflow.engine.training.tracing import has_convolutions

# Enough that a call's own cost is small even beside the smallest model's updates.
STEPS_PER_CALL = 32


class TrainState(NamedTuple):
    """A trial's state at a step; all that a checkpoint holds.

    Attributes:
        step: updates made so far, int32 scalar.
        params: the model's parameters, nested dicts of arrays.
        model_state: its other variables, such as batch statistics.
        opt_state: the optimizer's state.
        ema_params: the average of the parameters that is evaluated instead of them: the moving one
            of the config, or that of a schedule-free optimizer; empty where there is none.
    """

    step: jax.Array
    params: Arrays
    model_state: Arrays
    opt_state: Any
    ema_params: Arrays

    @property
    def evaluated_params(self) -> Arrays:
        """The parameters to evaluate: the moving average, if there is one."""
        return self.ema_params or self.params


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The compiled functions of one spec on one mesh.

    Attributes:
        spec: what they were made from.
        mesh: where they run.
        state: a TrainState of the shapes, types and shardings of its arrays.
        loops: whether to loop on the device; XLA runs convolutions in loops slowly on the CPU.
        steps_per_call: the most updates that one call of ``train_steps`` makes.
        init: (numbers, learning rate of the first update) -> TrainState at step 0.
        train_steps: (state, progress, data, batches, learning_rates, count, numbers) ->
            (state, progress). ``data`` is the training set on the device and ``batches`` the
            indices into it, [steps_per_call, batch_size]; or ``data`` is None and ``batches`` the
            examples themselves. The first ``count`` are used. The state is donated.
        eval_step: (totals, params, model_state, data, batches, weights) -> totals: of each of the
            task's metrics, the sums of its totals and weights over stacked batches, of indices or
            examples as above. Examples of weight 0 are left out.
        is_fitted: (params, model_state, batches) -> whether every example of a batch is fitted;
            ``batches`` are stacked as for ``eval_step``, but hold just one.
    """

    spec: ProgramSpec
    mesh: Mesh
    state: TrainState
    loops: bool
    steps_per_call: int
    init: Any
    train_steps: Any
    eval_step: Any
    is_fitted: Any


# Compiled programs hold no data, and a second study of the process compiles nothing anew.
@functools.lru_cache(maxsize=256)
def make_program(spec: ProgramSpec, mesh: Mesh, min_sharded_size: int) -> Program:
    """The compiled functions for a spec; equal arguments get the same ones.

    Args:
        spec: what shapes the program.
        mesh: the devices of one trial, with axes ``data`` and ``fsdp``.
        min_sharded_size: arrays of the state of fewer elements are not cut over ``fsdp``.
    """
    # XLA runs convolutions inside loops 8 to 21 times slower on the CPU.
    loops = not (has_convolutions(spec) and on_cpu(mesh))
    numbers = {"seed": np.uint32(0), **example_numbers(spec.optimizer)}
    shapes = jax.eval_shape(functools.partial(init, spec), numbers, np.float32(0))
    state = state_shardings(shapes, mesh, min_sharded_size)
    everywhere = replicated(mesh)

    exactly = compiler_options(mesh.devices.flat[0].platform)

    def compiled(function: Any, out_shardings: Any, **options: Any) -> Any:
        return jax.jit(
            functools.partial(function, spec, mesh),
            out_shardings=out_shardings,
            compiler_options=exactly,
            **options,
        )

    return Program(
        spec=spec,
        mesh=mesh,
        state=jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, state
        ),
        loops=loops,
        steps_per_call=STEPS_PER_CALL if loops else 1,
        # Random numbers are much code, run once: on the CPU, compiling them well takes a second.
        init=jax.jit(
            functools.partial(init, spec),
            out_shardings=state,
            compiler_options={"xla_backend_optimization_level": 1} if on_cpu(mesh) else exactly,
        ),
        train_steps=compiled(train_steps, (state, everywhere), donate_argnums=0),
        eval_step=compiled(eval_step, everywhere),
        is_fitted=compiled(is_fitted, everywhere),
    )


def init(spec: ProgramSpec, numbers: dict[str, Any], learning_rate: jax.Array) -> TrainState:
    """The state at step 0; that of an optimizer may depend on all of its numbers."""
    _, params, model_state = split_model(spec.build_model(jax.random.key(numbers["seed"])))
    opt_state = make_optimizer(spec.optimizer, numbers, learning_rate).init(params)
    ema_params = schedule_free_params(opt_state, params)
    if spec.averages_params:
        # A copy, since both are donated to the train step; in bfloat16 it would stand still.
        ema_params = jax.tree.map(
            lambda a: jnp.array(a, jnp.promote_types(a.dtype, "float32")), params
        )
    return TrainState(jnp.int32(0), params, model_state, opt_state, ema_params)


def train_steps(
    spec: ProgramSpec,
    mesh: Mesh,
    state: TrainState,
    progress: Progress,
    data: Arrays | None,
    batches: Any,
    learning_rates: jax.Array,
    count: jax.Array,
    numbers: dict[str, Any],
) -> tuple[TrainState, Progress]:
    """The first ``count`` of some updates; see :class:`Program` for the arguments."""

    def update(index: Any, carry: tuple[TrainState, Progress]) -> tuple[TrainState, Progress]:
        batch = jax.tree.map(lambda array: array[index], batches)
        return train_step(spec, mesh, *carry, data, batch, learning_rates[index], numbers)

    if len(learning_rates) == 1:
        return update(0, (state, progress))
    return jax.lax.fori_loop(0, count, update, (state, progress))


def train_step(
    spec: ProgramSpec,
    mesh: Mesh,
    state: TrainState,
    progress: Progress,
    data: Arrays | None,
    batch: Any,
    learning_rate: jax.Array,
    numbers: dict[str, Any],
) -> tuple[TrainState, Progress]:
    """One update, of a batch of examples or, where ``data`` is given, of indices into that."""
    batch = examples_of(data, batch)
    value, model_state, gradients = batch_gradients(spec, mesh, state, batch=batch, numbers=numbers)
    optimizer = make_optimizer(spec.optimizer, numbers, learning_rate)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, value=value)
    params = optax.apply_updates(state.params, updates)
    ema_params = schedule_free_params(opt_state, params)
    if spec.averages_params:
        # Shorter at the start, as in TensorFlow's ExponentialMovingAverage, to forget the initial
        # parameters soon.
        decay = jnp.minimum(numbers["ema_decay"], (1 + state.step) / (10 + state.step))
        ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
    after = TrainState(state.step + 1, params, model_state, opt_state, ema_params)
    first_time = (progress.diverged_at_step < 0) & ~jnp.isfinite(value)
    progress = progress._replace(
        diverged_at_step=jnp.where(first_time, after.step, progress.diverged_at_step)
    )
    if spec.checks_fit and data is not None:
        progress = check_fit(spec, mesh, state=after, progress=progress, data=data)
    return after, progress


def batch_gradients(
    spec: ProgramSpec, mesh: Mesh, state: TrainState, batch: Arrays, numbers: dict[str, Any]
) -> tuple[jax.Array, Arrays, Arrays]:
    """The mean loss of a training batch, the model's state after it, and the gradients."""
    key = jax.random.fold_in(jax.random.key(numbers["seed"]), state.step)
    augment_key, model_key = jax.random.split(key)
    batch = divided(batch, mesh)
    batch["inputs"] = model_inputs(spec, batch)
    if spec.augmentation is not None:
        batch["inputs"] = augmented(spec, augment_key, batch["inputs"], numbers["augmentation"])

    def sums_of(model_state: Arrays, part: Arrays, key: jax.Array) -> Any:
        value_and_gradients = jax.value_and_grad(_loss, has_aux=True)
        (total, (weight, model_state)), gradients = value_and_gradients(
            state.params, spec, numbers["regularization"], key, model_state, part
        )
        return (total, weight, gradients), model_state

    def mean(sums: Any) -> tuple[jax.Array, Arrays]:
        total, weight, gradients = sums
        weight = jnp.where(weight > 0, weight, 1.0)  # nothing but padding: no gradient
        return total / weight, jax.tree.map(lambda g: (g / weight).astype(g.dtype), gradients)

    if (count := spec.gradient_accumulation) == 1:
        sums, model_state = sums_of(state.model_state, batch, model_key)
        value, gradients = mean(sums)
        return value, model_state, gradients

    def add(carry: Any, part_and_key: Any) -> Any:
        sums, model_state = carry
        part_sums, model_state = sums_of(model_state, *part_and_key)
        return (jax.tree.map(jnp.add, sums, part_sums), model_state), None

    # Every part takes each count-th example, so that it is as evenly divided among the devices.
    parts = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0), batch)
    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), jnp.float32(0), state.params))
    unrolled = count if has_convolutions(spec) and on_cpu(mesh) else 1
    (sums, model_state), _ = jax.lax.scan(
        add,
        (zeros, state.model_state),
        (parts, jax.random.split(model_key, count)),
        unroll=unrolled,
    )
    value, gradients = mean(sums)
    return value, model_state, gradients


def _loss(
    params: Arrays,
    spec: ProgramSpec,
    strengths: dict[str, Any],
    key: jax.Array,
    model_state: Arrays,
    batch: Arrays,
) -> tuple[jax.Array, tuple[jax.Array, Arrays]]:
    """The sum of a batch's losses; and with it the sum of their weights, and the model's state."""
    model = merged_model(spec, params, model_state, train=True)
    arguments = {name: strengths[name] for name in spec.model_regularization}
    if "rngs" in keyword_names(type(model).__call__):
        arguments["rngs"] = nnx.Rngs(key)
    outputs = apply_model(spec, model, batch["inputs"], arguments)
    smoothing = {name: strengths[name] for name in spec.task_regularization}
    total, weight = spec.build_task().loss(outputs, batch, **smoothing).sums()
    return total, (weight, as_before(model_state, split_model(model)[2]))


def eval_step(
    spec: ProgramSpec,
    mesh: Mesh,
    totals: Arrays,
    params: Arrays,
    model_state: Arrays,
    data: Arrays | None,
    batches: Any,
    weights: jax.Array,
) -> Arrays:
    """Adds the metrics of stacked batches to the totals; empty totals start a sum."""
    task = spec.build_task()

    def sums(batch: Any, weights: jax.Array) -> Arrays:
        batch = examples_of(data, batch)
        outputs = predict(spec, mesh, params, model_state, batch=batch)
        metrics = task.metrics(outputs, batch)
        return {name: metric.sums(counted=weights > 0) for name, metric in metrics.items()}

    if len(weights) == 1:
        added = sums(jax.tree.map(lambda array: array[0], batches), weights[0])
    else:
        every = jax.lax.map(lambda pair: sums(*pair), (batches, weights))
        added = jax.tree.map(lambda values: values.sum(axis=0), every)
    return added if not totals else jax.tree.map(jnp.add, totals, added)
