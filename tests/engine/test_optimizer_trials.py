"""Whole trials, from a config to trained parameters, beside the same written out with optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from conftest import assert_as_from_scratch, run, small_config, start_trial
from flax import nnx

from budgetflow.base.errors import ConfigError
from budgetflow.base.files import read_json
from budgetflow.config import choices, default_config
from budgetflow.engine.data.batches import batch_indices
from budgetflow.engine.schedules import Schedule
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.study import resolve

TRIAL_SCHEDULE = Schedule(0.1, warmup_steps=4, constant_steps=6, decay_steps=10, decay="linear")


def trained(digits, schedule=TRIAL_SCHEDULE, **fields):
    trial = start_trial(digits, small_config(**fields), schedule)
    initial = jax.device_get(trial.state.params)
    trial.train(len(schedule.learning_rates()))
    return trial, initial


def mlp_loss(params, inputs, targets):
    x = inputs.reshape(len(inputs), -1).astype(jnp.float32) / 255
    x = jax.nn.relu(x @ params["hidden"][0]["kernel"] + params["hidden"][0]["bias"])
    outputs = x @ params["output"]["kernel"] + params["output"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


def trained_by_optax(digits, params, optimizer, schedule=TRIAL_SCHEDULE, loss=mlp_loss):
    """A trial written out, without any of budgetflow's training code."""
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, inputs, targets):
        value, gradients = jax.value_and_grad(loss)(params, inputs, targets)
        updates, state = optimizer.update(gradients, state, params, value=value)
        return optax.apply_updates(params, updates), state

    arrays = digits.train.arrays
    for step in range(len(schedule.learning_rates())):
        batch = batch_indices(0, step, step + 1, 64, digits.train.num_examples)[0]
        params, state = update(params, state, arrays["inputs"][batch], arrays["targets"][batch])
    return params, state


def assert_close(ours, theirs, rtol=1e-3, atol=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol, atol)


DECAYING = TRIAL_SCHEDULE.to_optax()


@pytest.mark.parametrize(
    ("fields", "optimizer"),
    [
        # These numbers are in the state from the start.
        (
            {"optimizer": {"name": "adagrad", "initial_accumulator_value": 0.5}},
            optax.adagrad(DECAYING, initial_accumulator_value=0.5),
        ),
        (
            {"optimizer": {"name": "rmsprop", "initial_scale": 1.0}},
            optax.rmsprop(DECAYING, initial_scale=1.0),
        ),
        # None, bools, strings, tuples and ints are no traced numbers.
        (
            {"optimizer": {"name": "rmsprop", "momentum": None, "centered": True, "decay": 0.5}},
            optax.rmsprop(DECAYING, centered=True, decay=0.5),
        ),
        (
            {
                "optimizer": {
                    "name": "contrib.muon",
                    "preconditioning": "spectral",
                    "ns_steps": 3,
                    "ns_coeffs": (2.0, -1.5, 0.5),
                    "beta": 0.5,
                }
            },
            optax.contrib.muon(
                DECAYING,
                preconditioning="spectral",
                ns_steps=3,
                ns_coeffs=(2.0, -1.5, 0.5),
                beta=0.5,
            ),
        ),
        (
            {"optimizer": {"name": "lbfgs", "linesearch": None, "memory_size": 3}},
            optax.lbfgs(DECAYING, linesearch=None, memory_size=3),
        ),
        # The parameters themselves are in its state.
        ({"optimizer": {"name": "contrib.dog"}}, optax.contrib.dog(DECAYING)),
        # It is given the loss.
        ({"optimizer": {"name": "contrib.momo"}}, optax.contrib.momo(DECAYING)),
        (
            {"optimizer": {"name": "contrib.momo"}, "gradient_accumulation": 4},
            optax.contrib.momo(DECAYING),
        ),
        # The gradient that is clipped is the whole batch's.
        (
            {
                "clip_gradient_norm": 0.3,
                "gradient_accumulation": 4,
                "regularization__weight_decay": 0.01,
            },
            optax.chain(
                optax.clip_by_global_norm(0.3),
                optax.add_decayed_weights(0.01),
                optax.sgd(DECAYING, momentum=0.9),
            ),
        ),
        (
            {"optimizer": {"name": "noisy_sgd", "key": 3}},
            optax.noisy_sgd(DECAYING, key=3),
        ),
    ],
    ids=lambda value: (
        value.get("optimizer", {"name": "clipped"})["name"] if isinstance(value, dict) else ""
    ),
)
def test_a_trial_is_trained_as_by_optax_alone(digits, fields, optimizer):
    trial, initial = trained(digits, **fields)
    assert_close(trial.state.params, trained_by_optax(digits, initial, optimizer)[0])
    assert np.isfinite(trial.state.params["output"]["kernel"]).all()
    assert trial.state.ema_params == {}
    # Whatever is in the state can be evaluated and saved.
    assert np.isfinite(trial.measure().row["validation_loss"])


def test_clipping_is_felt(digits):
    free, clipped = (
        trained(digits, optimizer={"name": "sgd"}, **fields)[0].state.params
        for fields in ({}, {"clip_gradient_norm": 0.3})
    )
    assert np.abs(free["output"]["kernel"] - clipped["output"]["kernel"]).max() > 0.01


def own_schedule_free(learning_rate, b1=0.9):
    return optax.contrib.schedule_free(optax.sgd(learning_rate), learning_rate, b1=b1)


CONSTANT = Schedule(0.5, constant_steps=10)


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"name": "contrib.schedule_free_sgd"}, optax.contrib.schedule_free_sgd(0.5)),
        (
            {"name": "optax.contrib.schedule_free_adamw", "b1": 0.75},
            optax.contrib.schedule_free_adamw(0.5, b1=0.75),
        ),
        ({"name": f"{__name__}.own_schedule_free", "b1": 0.5}, own_schedule_free(0.5, b1=0.5)),
    ],
    ids=["sgd", "adamw", "own"],
)
def test_a_schedule_free_optimizer_is_evaluated_at_its_average(digits, options, optimizer):
    trial, initial = trained(digits, CONSTANT, optimizer=options)
    params, state = trained_by_optax(digits, initial, optimizer, CONSTANT)
    expected = optax.contrib.schedule_free_eval_params(state, params)
    assert_close(trial.state.params, params)
    assert_close(trial.state.evaluated_params, expected)
    assert np.abs(params["output"]["kernel"] - expected["output"]["kernel"]).max() > 0.003
    loss = trial.measure().row["validation_loss"]
    arrays = digits.validation.arrays
    assert loss == pytest.approx(
        float(mlp_loss(expected, arrays["inputs"], arrays["targets"])), 1e-3
    )


def test_a_schedule_free_study_gives_its_average(tmp_path, digits):
    config = default_config("round")
    config.name = "free"
    config.max_train_steps = 20
    config.optimizer = {"name": "contrib.schedule_free_sgd"}
    config.model.hidden_sizes = (16,)
    config.schedule.base_learning_rate = 0.5
    config.search.trials = 1
    config.evaluation.evaluations = 2
    outcome, _ = run(config, tmp_path)
    assert outcome["diverged"] == 0
    best = open_study(tmp_path / "free").best_trial
    arrays = digits.validation.arrays
    params = best.restore_params()
    params["hidden"] = [params["hidden"]["0"]]
    loss = mlp_loss(params, arrays["inputs"], arrays["targets"])
    row = next(r for r in best.record.rows if r["step"] == best.record.best_step)
    assert row["validation_loss"] == pytest.approx(float(loss), 1e-3)


def of_numpy(learning_rate):
    """Scales gradients by a table, entry after entry; its state is no array of JAX."""

    def init(params):
        return {"table": np.arange(4.0), "count": 0, "scale": np.float64(0.5), "is_odd": False}

    def update(gradients, state, params=None):
        factor = state["scale"] * jnp.asarray(state["table"])[state["count"] % 4]
        updates = jax.tree.map(lambda g: -learning_rate * factor * g, gradients)
        after = {"count": state["count"] + 1, "is_odd": ~jnp.asarray(state["is_odd"])}
        return updates, {**state, **after}

    return optax.GradientTransformation(init, update)


def test_a_state_of_numpy_arrays_and_plain_numbers_is_saved_and_resumed(tmp_path, digits):
    trial, initial = trained(digits, CONSTANT, optimizer={"name": f"{__name__}.of_numpy"})
    assert_close(trial.state.params, trained_by_optax(digits, initial, of_numpy(0.5), CONSTANT)[0])
    config = default_config("round")
    config.name = "numpy"
    config.max_train_steps = 20
    config.optimizer = {"name": f"{__name__}.of_numpy"}
    config.model.hidden_sizes = (16,)
    config.search.method = "grid"
    config.search.space = (choices("schedule.base_learning_rate", 0.1, 0.5),)
    config.evaluation.evaluations = 10
    config.checkpoints.every_seconds = 0.0
    whole, _ = run(config, tmp_path / "whole")
    parsed = parse_study(config)

    def killed(records, later_steps):
        if any(record.trial == 1 and record.step > 10 for record in records):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(resolve(parsed, tmp_path / "numpy", None), killed)
    assert read_json(tmp_path / "numpy" / "trials" / "0001" / "trial.json")["step"] > 0
    outcome, _ = run(config, tmp_path)
    assert outcome == whole and outcome["diverged"] == 0
    assert_as_from_scratch(tmp_path / "numpy", parsed, digits)
    params = open_study(tmp_path / "numpy").best_trial.restore_params()
    assert np.isfinite(params["output"]["kernel"]).all()


CONV = {"name": "budgetflow.models.ConvNet", "channels": (4,), "hidden_size": 8}


def test_muon_decays_no_convolution_by_its_mask(digits):
    fields = {
        "model": CONV,
        "optimizer": {"name": "contrib.muon"},
        "regularization__weight_decay": 0.1,
    }
    message = "'matrices', but config.optimizer.name = 'contrib.muon' does not decay .*kernel"
    with pytest.raises(ConfigError, match=message):
        trained(digits, weight_decay_mask="matrices", **fields)


class HalfModel(nnx.Module):
    """Its parameters are in bfloat16."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.output = nnx.Linear(64, num_outputs, rngs=rngs, param_dtype=jnp.bfloat16)

    def __call__(self, inputs):
        return self.output(inputs.reshape(len(inputs), -1))


def half_loss(params, inputs, targets):
    x = inputs.reshape(len(inputs), -1).astype(jnp.float32) / 255
    outputs = x @ params["output"]["kernel"].astype(jnp.float32)
    outputs += params["output"]["bias"].astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


@pytest.mark.parametrize(
    ("fields", "optimizer"),
    [
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, optax.sgd(DECAYING, momentum=0.9)),
        (
            {"optimizer": {"name": "adamw", "b1": 0.5}, "regularization__weight_decay": 0.1},
            optax.adamw(DECAYING, b1=0.5, weight_decay=0.1),
        ),
        (
            {"optimizer": {"name": "rmsprop", "initial_scale": 1.0}, "clip_gradient_norm": 1.0},
            optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(DECAYING, initial_scale=1.0)),
        ),
        ({"optimizer": {"name": "contrib.momo", "beta": 0.5}}, optax.contrib.momo(DECAYING, 0.5)),
    ],
    ids=["sgd", "adamw", "rmsprop", "momo"],
)
def test_parameters_keep_their_type_and_so_does_the_state(digits, fields, optimizer):
    model = {"name": f"{__name__}.HalfModel"}
    trial, initial = trained(digits, model=model, **fields)
    params, _ = trained_by_optax(digits, initial, optimizer, loss=half_loss)
    assert {leaf.dtype for leaf in jax.tree.leaves(trial.state.params)} == {jnp.dtype("bfloat16")}
    shape = start_trial(digits, small_config(model=model, **fields), TRIAL_SCHEDULE).state
    assert jax.tree.map(lambda a: a.dtype, trial.state) == jax.tree.map(lambda a: a.dtype, shape)
    moved = np.abs(np.asarray(params["output"]["kernel"] - initial["output"]["kernel"])).max()
    assert_close(trial.state.params, params, rtol=0, atol=0.05 * float(moved))


def test_an_average_of_bfloat16_parameters_moves(digits):
    model = {"name": f"{__name__}.HalfModel"}
    schedule = Schedule(0.1, constant_steps=40)
    trial, initial = trained(digits, schedule, model=model, ema_decay=0.99)
    averaged = trial.state.ema_params["output"]["kernel"]
    assert averaged.dtype == jnp.float32
    start, end = (
        np.asarray(p["output"]["kernel"], np.float32) for p in (initial, trial.state.params)
    )
    way = np.abs(averaged - start).sum() / np.abs(end - start).sum()
    assert 0.3 < way < 1
