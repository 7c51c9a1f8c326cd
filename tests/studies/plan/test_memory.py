import jax
import pytest
from conftest import small_config
from test_step import TRANSFORMER, text  # noqa: F401

from budgetflow.engine.training.mesh import make_mesh, trial_slices
from budgetflow.engine.training.trial_run import trial_program
from budgetflow.studies.plan.memory import device_memory, state_bytes


def memory(dataset, live_trials=1, copies=0, **fields):
    # Evaluation in small batches, so that it needs less than a train step.
    config = small_config(**{"evaluation__batch_size": 16, **fields})
    mesh = trial_slices(make_mesh(config.mesh))[0]
    program = trial_program(config, dataset, frozenset(), False, mesh)
    return device_memory(config, dataset, program, live_trials, copies), program


def nbytes(split):
    return sum(array.nbytes for array in split.arrays.values())


def test_state_and_data_and_what_is_computed_count(digits):
    small, program = memory(digits)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))
    assert state_bytes(program) == small.states == state
    # The training set once, with the numbers and weights of its examples.
    data = nbytes(digits.train) + nbytes(digits.validation)
    numbers = 8 * digits.train.num_examples + 4 * digits.validation.num_examples
    assert small.data == pytest.approx(data + numbers, rel=0.02)
    assert small.resident == small.at_end > state + small.data  # the test split
    large, _ = memory(digits, data__batch_size=1024)
    # At least the inputs, as float32, and the hidden layer.
    assert large.working - small.working > (1024 - 64) * (64 + 16) * 4
    assert large.peak == large.resident + large.working


def test_large_batches_of_evaluation_count(digits):
    small, large = (memory(digits, evaluation__batch_size=size)[0] for size in (16, 1024))
    assert large.working - small.working > 100 * (64 + 16) * 4


@pytest.mark.slow
def test_what_evaluation_computes_does_not_depend_on_the_optimizers_state(digits):
    fields = {"evaluation__batch_size": 1024, "model__hidden_sizes": (512,)}
    adam = {"name": "adamw"}
    plain, (large, program) = (
        memory(digits, **fields, **more) for more in ({}, {"optimizer": adam, "ema_decay": 0.9})
    )
    assert state_bytes(program) > 1.5 * plain[0].states
    assert large.working == pytest.approx(plain[0].working, rel=0.05)


def test_other_trials_on_the_device_count_and_so_do_copies(digits):
    one, program = memory(digits)
    many, _ = memory(digits, live_trials=3, copies=2)
    assert many.states - one.states == many.copies == 2 * state_bytes(program)


def test_streamed_batches_count_but_not_their_data_set(digits, streamed_digits):
    streamed, program = memory(streamed_digits)
    assert streamed.data == 0
    batches = program.steps_per_call * 64 * (64 + 4)
    assert batches < streamed.working < 2 * batches + 2**20


@pytest.mark.slow
def test_accumulating_gradients_saves_memory(text):  # noqa: F811
    in_parts, at_once = (
        memory(text, gradient_accumulation=n, **TRANSFORMER)[0].working for n in (4, 1)
    )
    assert in_parts < 0.75 * at_once
