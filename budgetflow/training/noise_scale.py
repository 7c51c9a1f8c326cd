"""Measures gradient noise at a trial's state: what the simple noise scale is estimated from.

The estimates themselves are in :mod:`budgetflow.playbook.gradient_noise`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from budgetflow.data.records import Split, stacked
from budgetflow.training.mesh import place_everywhere
from budgetflow.training.spec import ProgramSpec
from budgetflow.training.step import TrainState, batch_gradients
from budgetflow.training.trial_run import TrialRun

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
    size = min(batch_size, MOST_EXAMPLES)
    add, products = _compiled(run.program.spec, run.program.mesh)
    total: Any = jax.tree.map(jnp.zeros_like, run.state.params)
    for batch, numbers in _batches(run, seed, size):
        total = add(run.state, batch, numbers, total)
    mean = jax.tree.map(lambda g: g / BATCHES, total)
    found = [products(run.state, *drawn, mean) for drawn in _batches(run, seed, size)]
    norms, projections = np.array(jax.device_get(found), np.float64).T
    return GradientProducts(size, tuple(norms.tolist()), tuple(projections.tolist()))


@functools.lru_cache(maxsize=64)
def _compiled(spec: ProgramSpec, mesh: Mesh) -> tuple[Any, Any]:
    """Adds a batch's gradient to a sum; and takes its products with itself and with a mean."""
    # The parts of a batch save memory, which these smaller ones do not need.
    spec = dataclasses.replace(spec, gradient_accumulation=1)

    def gradient(state: TrainState, batch: Any, numbers: Any) -> Any:
        found = batch_gradients(spec, mesh, state, batch=batch, numbers=numbers)[2]
        return jax.tree.map(lambda g: g.astype(jnp.float32), found)

    def add(state: TrainState, batch: Any, numbers: Any, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient(state, batch, numbers))

    def products(state: TrainState, batch: Any, numbers: Any, mean: Any) -> Any:
        found = gradient(state, batch, numbers)
        return _dot(found, found), _dot(found, mean)

    return jax.jit(add), jax.jit(products)


def _dot(a: Any, b: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), start=jnp.float32(0))


def _batches(run: TrialRun, seed: int, size: int) -> Iterator[tuple[Any, Any]]:
    """Batches of the training set, each with the trial's numbers and a seed of its own."""
    train, mesh = run.dataset.train, run.program.mesh
    rng = np.random.default_rng([seed, run.step])
    for _ in range(BATCHES):
        batch = _examples(train, rng.integers(train.num_examples, size=size), rng)
        numbers = {"seed": rng.integers(2**32, dtype=np.uint32)}
        yield place_everywhere(batch, mesh), {**run.numbers, **place_everywhere(numbers, mesh)}


def _examples(train: Split, indices: np.ndarray, rng: np.random.Generator) -> Any:
    if train.arrays is not None:
        named = {name: train.arrays[name] for name in ("inputs", "targets")}
        return jax.tree.map(lambda array: np.asarray(array)[indices], named)
    own = rng if train.is_random else None
    return stacked(train.example(int(index), own) for index in indices)
