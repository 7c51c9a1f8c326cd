"""How many examples are evaluated at once: fewer, the more memory an example takes."""

import pytest
from conftest import small_config
from test_step import CONV, TRANSFORMER, text  # noqa: F401

from budgetflow.engine.training import evaluation_size
from budgetflow.engine.training.evaluation_size import (
    evaluation_batch_size,
    largest_bytes_per_example,
)
from budgetflow.engine.training.mesh import make_mesh, trial_slices
from budgetflow.engine.training.trial_run import trial_program


def sized(dataset, **fields):
    config = small_config(**fields)
    mesh = trial_slices(make_mesh(config.mesh))[0]
    program = trial_program(config, dataset, frozenset(), False, mesh)
    return largest_bytes_per_example(program), evaluation_batch_size(config, program)


@pytest.mark.parametrize("width", [128, 4096])
def test_the_largest_array_is_that_of_the_widest_layer(digits, width):
    largest, _ = sized(digits, model__hidden_sizes=(width,))
    assert largest == 4 * width


def test_parameters_do_not_count(digits):
    assert sized(digits, model__hidden_sizes=(512, 512))[0] == 4 * 512  # they take 1 MiB


def test_a_convolution_counts_all_of_its_pixels(digits):
    assert sized(digits, **CONV)[0] == 4 * 8 * 8 * 8


def test_attention_counts_every_pair_of_positions(text):  # noqa: F811
    length = text.train.example(0)["inputs"].size
    model = {**TRANSFORMER["model"], "width": 16, "heads": 4}
    # Or every position with every character, or the perceptron's four times the width.
    expected = 4 * length * max(4 * length, 4 * 16, text.num_classes)
    largest, size = sized(text, **{**TRANSFORMER, "model": model})
    assert largest == expected
    assert size * largest <= evaluation_size.CACHED_BYTES < 2 * size * largest


@pytest.mark.parametrize(("width", "size"), [(64, 32), (65, 16), (512, 8)])
def test_the_batch_is_the_power_of_two_that_fits(digits, monkeypatch, width, size):
    monkeypatch.setattr(evaluation_size, "CACHED_BYTES", 2**13)
    assert sized(digits, model__hidden_sizes=(width,))[1] == size


def test_there_are_512_at_most(digits):
    assert sized(digits, model__hidden_sizes=(64,))[1] == 512


def test_a_size_that_is_asked_for_is_taken(digits):
    assert sized(digits, evaluation__batch_size=100)[1] == 100


def test_an_accelerator_has_no_such_cache(digits, monkeypatch):
    monkeypatch.setattr(evaluation_size, "on_cpu", lambda mesh: False)
    assert sized(digits, model__hidden_sizes=(2**14,))[1] == 512
