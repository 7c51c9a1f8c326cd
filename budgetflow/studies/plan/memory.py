"""How much memory a study needs on each of its devices, before it runs."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.filesize import decimal

from budgetflow.base.errors import ConfigError
from budgetflow.config import StudyConfig
from budgetflow.engine.checkpoints import COPY_LIMIT_BYTES
from budgetflow.engine.data.records import Split, nbytes
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.training.device_data import even_batch_size, resident_arrays
from budgetflow.engine.training.evaluation_size import evaluation_batch_size
from budgetflow.engine.training.fit_check import initial_progress
from budgetflow.engine.training.mesh import batch_sharding, replicated
from budgetflow.engine.training.spec import traced_numbers
from budgetflow.engine.training.step import Program
from budgetflow.engine.training.trial_run import RACE_EXAMPLES, steps_per_call


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """What a study has on each of its devices, in bytes.

    Attributes:
        states: the train states of the trials that are there at the same time.
        copies: of states that wait to be saved.
        data: the training set, and what else is evaluated of splits in memory.
        at_end: state and data when the study concludes: a single state, and the test split.
        working: what a call of a compiled function takes beside these: streamed batches, results,
            and what is computed in between.
    """

    states: int
    copies: int
    data: int
    at_end: int
    working: int

    @property
    def resident(self) -> int:
        """The most that is live between calls."""
        return max(self.states + self.copies + self.data, self.at_end)

    @property
    def peak(self) -> int:
        """The most that is needed at a time."""
        return self.resident + self.working


def device_memory(
    config: StudyConfig, dataset: Dataset, program: Program, live_trials: int = 1, copies: int = 0
) -> DeviceMemory:
    """The memory that a device needs for a study, by the compiled functions' own analysis.

    Args:
        config: that of the trial with the largest state.
        dataset: the data.
        program: the trial's program, which this compiles.
        live_trials: trials whose states are on the device at the same time, this one included.
        copies: of states that wait to be saved, at most; none are made of large states.
    """
    train, state = dataset.train, state_bytes(program)
    whole_state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))

    def evaluated(split: Split | None, most: int | None = None) -> int:
        """A split's first examples in batches: numbers of training examples, or whole ones."""
        if split is None or split.arrays is None:
            return 0
        number, size = _batches(config, program, split, most)
        example = np.int32().nbytes if split is train else nbytes(split.example(0))
        return number * size // program.mesh.size * (example + np.float32().nbytes)

    training_set = 0 if train.arrays is None else nbytes(resident_arrays(train))
    data = training_set + evaluated(dataset.validation)
    data += evaluated(train, config.evaluation.train_examples)
    if program.spec.checks_fit and not config.evaluation.whole_in_races:
        data += evaluated(train, RACE_EXAMPLES)
    in_step = _bytes_of_call(program.train_steps, step_arguments(config, dataset, program))
    in_evaluation = _bytes_of_call(program.eval_step, _evaluation_arguments(config, train, program))
    evaluated_state = (program.state.evaluated_params, program.state.model_state)
    return DeviceMemory(
        states=live_trials * state,
        copies=copies * state if whole_state <= COPY_LIMIT_BYTES else 0,
        data=data,
        at_end=state + data + evaluated(dataset.test),
        working=max(
            0,
            in_step - state - training_set,
            in_evaluation - _share(evaluated_state) - training_set,
        ),
    )


def _bytes_of_call(function: Any, arguments: tuple[Any, ...]) -> int:
    """What a call of a compiled function has on a device: arguments, results, and in between."""
    memory = function.lower(*arguments).compile().memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def state_bytes(program: Program) -> int:
    """The size of a device's share of the train state."""
    return _share(program.state)


def _share(state: Any) -> int:
    """The size of a device's share of a train state or of a part of one."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
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


def _batches(
    config: StudyConfig, program: Program, split: Split, most: int | None
) -> tuple[int, int]:
    """The number and the size of the batches that a split's first examples are evaluated in."""
    count = min(split.num_examples, most or split.num_examples)
    size = even_batch_size(evaluation_batch_size(config, program), count, program.mesh)
    return -(-count // size), size


def _evaluation_arguments(config: StudyConfig, train: Split, program: Program) -> tuple[Any, ...]:
    """The shapes of what ``eval_step`` is called with for the training split."""
    number, size = _batches(config, program, train, config.evaluation.train_examples)
    leading = (number if program.loops and train.arrays is not None else 1, size)
    divided = batch_sharding(program.mesh, leading_dimensions=1)
    data, batches = _data_and_batches(train, program.mesh, leading)
    weights = jax.ShapeDtypeStruct(leading, np.dtype(np.float32), sharding=divided)
    params, model_state = program.state.evaluated_params, program.state.model_state
    return {}, params, model_state, data, batches, weights


def step_arguments(config: StudyConfig, dataset: Dataset, program: Program) -> tuple[Any, ...]:
    """The shapes of what ``train_steps`` is called with."""
    train, mesh, size = dataset.train, program.mesh, config.data.batch_size
    length = steps_per_call(config, train, program)

    data, batches = _data_and_batches(train, mesh, (length, size))
    progress, numbers = jax.tree.map(
        lambda array: _shape(array, replicated(mesh)),
        (initial_progress(train.num_examples), traced_numbers(config, program.spec)),
    )
    rates = jax.ShapeDtypeStruct((length,), np.dtype(np.float32))
    return program.state, progress, data, batches, rates, np.int32(0), numbers


def _data_and_batches(train: Split, mesh: Mesh, leading: tuple[int, int]) -> tuple[Any, Any]:
    """The shapes of the training set and of numbers into it; or None and of streamed batches."""
    if train.arrays is None:
        divided = batch_sharding(mesh, leading_dimensions=1)
        return None, jax.tree.map(lambda a: _shape(a, divided, leading), train.example(0))
    data = jax.tree.map(lambda a: _shape(a, replicated(mesh)), resident_arrays(train))
    return data, jax.ShapeDtypeStruct(leading, np.dtype(np.int32))


def _shape(array: Any, sharding: Any, leading: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*leading, *np.shape(array)), array.dtype, sharding=sharding)
