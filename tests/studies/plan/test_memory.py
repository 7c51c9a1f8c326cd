import jax
import pytest
from conftest import small_config
from test_step import TRANSFORMER, text  # noqa: F401

from budgetflow.engine.training.mesh import make_mesh, trial_slices
from budgetflow.engine.training.trial_run import trial_program
from budgetflow.studies.plan.memory import device_memory, state_bytes


def peak(dataset, live_trials=1, **fields):
    config = small_config(**fields)
    mesh = trial_slices(make_mesh(config.mesh))[0]
    program = trial_program(config, dataset, frozenset(), False, mesh)
    return device_memory(config, dataset, program, live_trials).peak, program


def test_the_peak_holds_state_and_data_and_what_is_computed(digits):
    small, program = peak(digits)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))
    assert state_bytes(program) == state
    data = sum(array.nbytes for array in digits.train.arrays.values())
    assert state + data < small < 2 * (state + data)
    large, _ = peak(digits, data__batch_size=1024)
    # At least the inputs, as float32, and the hidden layer.
    assert large - small > (1024 - 64) * (64 + 16) * 4


def test_other_trials_on_the_device_count(digits):
    one, program = peak(digits)
    assert peak(digits, live_trials=3)[0] == one + 2 * state_bytes(program)


def test_streamed_batches_count_but_not_their_data_set(digits, streamed_digits):
    in_memory, _ = peak(digits)
    streamed, program = peak(streamed_digits)
    data = sum(array.nbytes for array in digits.train.arrays.values())
    batches = program.steps_per_call * 64 * (64 + 4)
    assert streamed - in_memory == pytest.approx(batches - data, abs=batches)


def test_accumulating_gradients_saves_memory(text):  # noqa: F811
    in_parts, at_once = (peak(text, gradient_accumulation=n, **TRANSFORMER)[0] for n in (4, 1))
    assert in_parts < 0.75 * at_once
