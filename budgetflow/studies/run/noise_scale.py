"""Measures gradient noise at a trial's state: what the simple noise scale is estimated from.

The estimates themselves are in :mod:`budgetflow.playbook.comparison.gradient_noise`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from budgetflow.engine.data.records import stacked
from budgetflow.engine.training.exactness import compiler_options
from budgetflow.engine.training.mesh import place, replicated
from budgetflow.engine.training.spec import ProgramSpec
from budgetflow.engine.training.step import TrainState, batch_gradients
from budgetflow.engine.training.trial_run import TrialRun

# Batches at each state, and the most examples of each: the noise of a larger batch says the same.
BATCHES, MOST_EXAMPLES = 32, 64


@dataclasses.dataclass(frozen=True)
class GradientProducts:
    """Products of the gradients g_i of independent batches at one state, with their mean m.

    Attributes:
        batch_size: the examples of each batch.
        squared_norms: |g_i|².
        projections: g_i · m.
    """

    batch_size: int
    squared_norms: tuple[float, ...]
    projections: tuple[float, ...]


def gradient_products(run: TrialRun, seed: int, batch_size: int) -> GradientProducts:
    """Measures the gradients of batches at a trial's state, which stays as it is.

    Each is the gradient of the training loss as training takes it: with regularization and
    augmentation, and with random numbers of its own; before weight decay, clipping, and whatever
    else the optimizer makes of it. The examples of each batch are drawn with replacement, as the
    estimates assume; training draws without, so that its batches have a little less noise where
    they are a large part of the training set.

    The gradients are computed twice, to hold no more than two at a time.

    Args:
        run: the trial.
        seed: of the examples and the random numbers, together with the trial's step.
        batch_size: of the trial; batches here have at most :data:`MOST_EXAMPLES`.
    """
    size, state = min(batch_size, MOST_EXAMPLES), run.state
    add, products = _compiled(run.program.spec, run.program.mesh)
    batches = _batches(run, seed, size)
    total: Any = jax.tree.map(jnp.zeros_like, state.params)
    for number in range(BATCHES):
        total = add(state, batches, np.int32(number), run.numbers, total)
    mean = jax.tree.map(lambda g: g / BATCHES, total)
    all_products = [
        products(state, batches, np.int32(number), run.numbers, mean) for number in range(BATCHES)
    ]
    norms, projections = np.array(jax.device_get(all_products), np.float64).T
    return GradientProducts(size, tuple(norms.tolist()), tuple(projections.tolist()))


@functools.lru_cache(maxsize=64)  # Compiled functions, which hold no data.
def _compiled(spec: ProgramSpec, mesh: Mesh) -> tuple[Any, Any]:
    """Adds a batch's gradient to a sum; and takes its products with itself and with a mean."""
    # The parts of a batch save memory, which these smaller ones do not need.
    spec = dataclasses.replace(spec, gradient_accumulation=1)

    def gradient(state: TrainState, batches: Any, number: Any, numbers: Any) -> Any:
        batch = jax.tree.map(lambda array: array[number], batches)
        numbers = {**numbers, "seed": batch.pop("seed")}
        gradients = batch_gradients(spec, mesh, state, batch=batch, numbers=numbers)[2]
        return jax.tree.map(lambda g: g.astype(jnp.float32), gradients)

    def add(state: TrainState, batches: Any, number: Any, numbers: Any, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient(state, batches, number, numbers))

    def products(state: TrainState, batches: Any, number: Any, numbers: Any, mean: Any) -> Any:
        own = gradient(state, batches, number, numbers)
        return _dot(own, own), _dot(own, mean)

    exactly = compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(add, compiler_options=exactly), jax.jit(products, compiler_options=exactly)


def _dot(a: Any, b: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), start=jnp.float32(0))


def _batches(run: TrialRun, seed: int, size: int) -> Any:
    """The batches, stacked on the trial's devices, each with a seed of its own."""
    train = run.data.dataset.train
    rng = np.random.default_rng([seed, run.step])
    indices = rng.integers(train.num_examples, size=(BATCHES, size))
    seeds = rng.integers(2**32, size=BATCHES, dtype=np.uint32)
    if train.arrays is not None:
        named = {name: train.arrays[name] for name in ("inputs", "targets")}
        batches = jax.tree.map(lambda array: np.asarray(array)[indices], named)
    else:
        own = rng if train.is_random else None
        examples = stacked(train.example(int(index), own) for index in indices.flat)
        batches = jax.tree.map(lambda a: a.reshape(*indices.shape, *a.shape[1:]), examples)
    return place({**batches, "seed": seeds}, replicated(run.program.mesh))
