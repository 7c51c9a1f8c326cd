"""What a step costs, against what is known of it: by hand, and by the clock."""

import time

import jax
import jax.numpy as jnp
import pytest
from conftest import small_config, start_trial
from flax import nnx
from test_step import CONV, TRANSFORMER, text  # noqa: F401

from budgetflow.base.errors import ConfigError
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.mesh import make_mesh, trial_slices
from budgetflow.engine.training.trial_run import trial_program
from budgetflow.studies.plan import cost
from budgetflow.studies.plan.cost import flops_per_step, seconds_per_step

WIDE = {"model__hidden_sizes": (256, 256)}


def program(dataset, checks_fit=False, **fields):
    config = small_config(**fields)
    mesh = trial_slices(make_mesh(config.mesh))[0]
    return config, dataset, trial_program(config, dataset, frozenset(), checks_fit, mesh)


def matrix_sizes(made):
    params = jax.tree.leaves(made.state.params)
    return [leaf.size for leaf in params if leaf.ndim == 2]


@pytest.mark.parametrize("batch_size", [64, 256])
def test_a_matrix_costs_six_flops_a_parameter_and_example(digits, batch_size):
    config, dataset, made = program(digits, data__batch_size=batch_size, **WIDE)
    sizes = matrix_sizes(made)
    # No gradient is computed for the inputs of the first layer.
    products = batch_size * (6 * sum(sizes) - 2 * 64 * 256)
    assert 64 * 256 in sizes
    # The rest: activations, biases, the loss and the update of the parameters.
    assert products < flops_per_step(config, dataset, made) < 1.05 * products


@pytest.mark.parametrize("fields", [{"gradient_accumulation": 4}, {"data__batch_size": 64}])
def test_a_loop_over_steps_or_parts_of_the_batch_changes_nothing(digits, fields):
    config, dataset, made = program(digits, **WIDE, **fields)
    assert made.steps_per_call > 1
    assert flops_per_step(config, dataset, made) == flops_per_step(*program(digits, **WIDE))


def test_streamed_data_costs_the_same(digits, streamed_digits):
    # But for gathering the batch.
    in_memory = flops_per_step(*program(digits, **WIDE))
    streamed = flops_per_step(*program(streamed_digits, **WIDE))
    assert streamed == pytest.approx(in_memory, rel=0.01)


@pytest.mark.slow
def test_a_convolution_is_counted(digits):
    one, two = (
        flops_per_step(*program(digits, **{**CONV, "data__batch_size": size})) for size in (64, 128)
    )
    # 3 x 3 weights from 1 to 8 channels on 8 x 8 pixels, without what falls on the padding (22 of
    # 24 positions along each side): forward, and backward to the weights.
    convolution = 4 * 22 * 22 * 8
    dense = 6 * (4 * 4 * 8 * 16 + 16 * 10)
    # The rest, such as activations and pooling, is a larger part in so small a model.
    assert 1 < one / (64 * (convolution + dense)) < 1.4
    assert two == pytest.approx(2 * one, rel=0.05)


@pytest.mark.slow
def test_a_transformer_is_counted(text):  # noqa: F811
    width, depth, outputs = 64, 2, text.num_classes
    model = {**TRANSFORMER["model"], "width": width, "depth": depth}
    config, dataset, made = program(text, **{**TRANSFORMER, "model": model})
    length = text.train.example(0)["inputs"].size
    # Queries, keys, values and their way out; a perceptron four times as wide; the output.
    matrices = depth * (4 + 8) * width**2 + width * outputs
    attention = 12 * depth * length * width
    products = config.data.batch_size * length * (6 * matrices + attention)
    assert made.spec.num_outputs == outputs
    assert 1 < flops_per_step(config, dataset, made) / products < 1.1


class Looped(nnx.Module):
    """A layer that is applied over and over, by a scan."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.first = nnx.Linear(64, 32, rngs=rngs)
        self.inner = nnx.Param(0.1 * jax.random.normal(rngs.params(), (32, 32)))
        self.output = nnx.Linear(32, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        hidden = self.first(inputs.reshape(len(inputs), -1))

        def layer(carry, _):
            return jnp.tanh(carry @ self.inner[...]), None

        return self.output(jax.lax.scan(layer, hidden, None, length=10)[0])


def test_what_xla_counts_once_but_runs_often_gives_no_count(digits):
    looped = program(digits, model={"name": f"{__name__}.Looped"})
    assert flops_per_step(*looped) is None
    # So does the fit check of a sweep, which goes through the training set up to a mistake.
    assert flops_per_step(*program(digits, checks_fit=True)) is None


def test_a_backend_without_analysis_gives_no_count(digits, monkeypatch):
    made = program(digits)
    monkeypatch.setattr(jax.stages.Compiled, "cost_analysis", lambda self: None)
    assert flops_per_step(*made) is None


@pytest.mark.slow
def test_the_seconds_of_a_step_are_those_of_a_run(digits):
    fields = {"model__hidden_sizes": (512, 512), "evaluation__evaluations": 5}
    config, dataset, made = program(digits, **fields)
    # The fastest of some on both sides, since others may use this machine, too.
    timed = min(seconds_per_step(config, dataset, made, 100) for _ in range(2))
    run = start_trial(digits, config, Schedule(0.01, constant_steps=1000))
    run.advance(20)
    seconds = []
    for start in range(20, 520, 100):
        started_at = time.perf_counter()
        for step in range(start + 20, start + 101, 20):
            run.advance(step)
        seconds.append((time.perf_counter() - started_at) / 100)
    assert min(seconds) / 5 < timed < 5 * max(seconds)


def test_evaluations_are_spread_over_the_run(digits, monkeypatch):
    monkeypatch.setattr(cost, "step_seconds", lambda runs, at_least: 0.001)
    monkeypatch.setattr(cost, "_measure_seconds", lambda run: 0.1)
    made = program(digits, evaluation__evaluations=40)
    assert seconds_per_step(*made, 1000) == pytest.approx(0.001 + 40 * 0.1 / 1000)
    # A run has no more evaluations than steps.
    assert seconds_per_step(*made, 10) == pytest.approx(0.001 + 0.1)


def test_several_processes_are_not_timed(digits, monkeypatch):
    made = program(digits)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="on several processes; give the budget in steps"):
        seconds_per_step(*made, 100)
