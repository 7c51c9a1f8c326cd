"""How much memory a trial needs, before it runs."""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
import numpy as np
from rich.filesize import decimal

from budgetflow.base.errors import ConfigError
from budgetflow.config import StudyConfig
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.training.fit_check import initial_progress
from budgetflow.engine.training.mesh import batch_sharding, replicated
from budgetflow.engine.training.spec import traced_numbers
from budgetflow.engine.training.step import Program
from budgetflow.engine.training.trial_run import resident_arrays, steps_per_call


def peak_bytes(config: StudyConfig, dataset: Dataset, program: Program, live_trials: int) -> int:
    """The most memory that a device needs at a time, by the compiled train step's own analysis.

    That is its arguments (train state, data, batches), its results that do not take the arguments'
    place, and what it computes in between; and the states of other trials that wait on the device.
    Copies that wait to be saved come on top, of states of at most 256 MiB.

    Args:
        config: the trial's config.
        dataset: the data.
        program: the trial's program, which this compiles.
        live_trials: trials whose states are on the device at the same time, this one included.
    """
    compiled = program.train_steps.lower(*step_arguments(config, dataset, program)).compile()
    memory = compiled.memory_analysis()
    of_step = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return of_step + (live_trials - 1) * state_bytes(program)


def state_bytes(program: Program) -> int:
    """The size of a device's share of the train state."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(program.state)
    )


def check_state_fits(program: Program) -> None:
    """Checks that a device has the memory for its share of the train state alone.

    Raises:
        ConfigError: it has not.
    """
    # One of this process; those of a trial may all be another's, but are of the same kind.
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and device.platform == "cpu":
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = state_bytes(program)
    if limit is not None and needed > limit:
        raise ConfigError(
            f"config.model: the train state of {dict(program.spec.model)['name']} needs "
            f"{decimal(needed)} on a device that has {decimal(limit)}; use a smaller one, or more "
            "devices with config.mesh.fsdp = -1"
        )


def step_arguments(config: StudyConfig, dataset: Dataset, program: Program) -> tuple[Any, ...]:
    """The shapes of what ``train_steps`` is called with."""
    train, mesh, size = dataset.train, program.mesh, config.data.batch_size
    length = steps_per_call(config, train, program)

    def shape(array: Any, leading: tuple[int, ...] = (), sharding: Any = None) -> Any:
        return jax.ShapeDtypeStruct((*leading, *np.shape(array)), array.dtype, sharding=sharding)

    data: Any = None
    batches: Any = jax.ShapeDtypeStruct((length, size), np.dtype(np.int32))
    if train.arrays is not None:
        everywhere = functools.partial(shape, sharding=replicated(mesh))
        data = jax.tree.map(everywhere, resident_arrays(train))
    else:
        divided = batch_sharding(mesh, leading_dimensions=1)
        batches = jax.tree.map(lambda a: shape(a, (length, size), divided), train.example(0))
    progress = jax.tree.map(
        lambda a: shape(a, sharding=replicated(mesh)), initial_progress(train.num_examples)
    )
    numbers = jax.tree.map(
        lambda a: shape(a, sharding=replicated(mesh)), traced_numbers(config, program.spec)
    )
    rates = jax.ShapeDtypeStruct((length,), np.dtype(np.float32))
    return program.state, progress, data, batches, rates, np.int32(0), numbers
