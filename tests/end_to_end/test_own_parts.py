"""A user's own model, task, data, augmentation and optimizer, none of them for classification."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import run
from flax import nnx

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, default_config, log_uniform
from budgetflow.results.reading import open_study


def open_split(split):
    """Points on a noisy plane, as a plain list of dicts."""
    generator = np.random.default_rng({"train": 0, "validation": 1}[split])
    x = generator.normal(size=({"train": 200, "validation": 50}[split], 3))
    y = x @ np.asarray([1.0, -2.0, 0.5]) + 0.01 * generator.normal(size=len(x))
    return [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]


class Plane(nnx.Module):
    def __init__(self, input_shape, num_outputs, *, bias=True, rngs):
        self.linear = nnx.Linear(input_shape[0], num_outputs, use_bias=bias, rngs=rngs)

    def __call__(self, inputs, *, input_noise=0.0, rngs=None):
        if rngs is not None:
            inputs = inputs + input_noise * rngs.noise.normal(inputs.shape)
        return self.linear(inputs)


class Regression:
    def num_outputs(self, dataset_num_classes):
        return 1

    def loss(self, outputs, batch):
        return optax.squared_error(outputs[:, 0], batch["targets"])

    def metrics(self, outputs, batch):
        return {"squared_error": self.loss(outputs, batch)}


def scaled(key, inputs, *, scale=0.0):
    return inputs * (1 + scale * jnp.sign(jnp.sum(key == key)))


def momentum_sgd(learning_rate, friction=0.1):
    return optax.sgd(learning_rate, momentum=1 - friction)


def config_of_own_parts(kind="round"):
    config = default_config(kind)
    config.name = "own"
    config.max_train_steps = 120
    config.data.name = f"{__name__}.open_split"
    config.data.input_key, config.data.target_key = "x", "y"
    config.data.batch_size = 20
    config.model = {"name": f"{__name__}.Plane", "bias": True}
    config.task = {"name": f"{__name__}.Regression"}
    config.optimizer = {"name": f"{__name__}.momentum_sgd", "friction": 0.2}
    config.augmentation = {"name": f"{__name__}.scaled", "scale": 0.0}
    config.regularization = {"weight_decay": 0.0, "input_noise": 0.0}
    config.evaluation.selection_metric = "squared_error"
    return config


def test_own_parts_take_part_in_a_round(tmp_path):
    config = config_of_own_parts()
    config.search.trials = 4
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 0.01, 0.1),
        log_uniform("optimizer.friction", 0.1, 0.5),
        log_uniform("regularization.input_noise", 1e-4, 1e-2),
        choices("augmentation.scale", 0.0, 1e-3),
        choices("model.bias", True, False),
    )
    outcome, output = run(config, tmp_path)
    assert outcome["diverged"] == 0
    assert outcome["best_validation"].keys() == {"loss", "squared_error"}
    # The noise's own variance is 0.0001.
    assert outcome["best_validation"]["squared_error"] < 0.001
    assert "val. squared error" in output
    params = open_study(tmp_path / "own").best_trial.restore_params()
    weights = params["linear"]["kernel"][:, 0]
    np.testing.assert_allclose(weights, [1.0, -2.0, 0.5], atol=0.05)
    assert "validation squared error" in (tmp_path / "own" / "report.html").read_text()


def test_a_sweep_needs_a_task_that_knows_when_an_example_is_fitted(tmp_path):
    with pytest.raises(ConfigError, match="Regression has no method fitted"):
        run(config_of_own_parts("lr_sweep"), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_training_loss_can_count_as_fitted_instead(tmp_path):
    config = config_of_own_parts("lr_sweep")
    config.max_train_steps = 400
    config.sweep.learning_rates = (0.001, 0.01, 0.1, 1.0)
    config.sweep.fitted_train_loss = 0.001
    outcome, output = run(config, tmp_path)
    assert outcome["status"] == "found"
    assert outcome["fitted_train_loss"] == 0.001
    assert "the training loss is under 0.001 by then" in output
    before, at = outcome["fitted_at_step_bracket"]
    assert before < at == outcome["max_train_steps"]
    study = open_study(tmp_path / "own")
    rows = study.measurements().set_index("trial").loc[study.best_trial.record.trial]
    losses = rows.set_index("step")["train_loss"]
    assert losses[at] < 0.001 <= losses.loc[:before].min()
    assert f"between steps {before} and {at}" in " ".join(outcome["reasons"])
