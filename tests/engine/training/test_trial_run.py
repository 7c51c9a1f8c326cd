import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_identical, small_config, start_trial
from flax import nnx

from budgetflow.engine.data.batches import batch_indices
from budgetflow.engine.data.records import Split
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.trial_run import TrialRun

SCHEDULE = Schedule(0.1, warmup_steps=5, constant_steps=15, decay_steps=20, decay="linear")
NOISY = {
    "regularization__dropout_rate": 0.2,
    "regularization__weight_decay": 1e-3,
    "regularization__label_smoothing": 0.1,
    "augmentation__shift_pixels": 1.0,
    "augmentation__noise_std": 0.05,
}


class NormModel(nnx.Module):
    """A user's own model, with batch statistics and flax's own dropout."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.output = nnx.Linear(64, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.output(self.dropout(self.norm(inputs.reshape(len(inputs), -1))))


def start(dataset, config=None, schedule=SCHEDULE, checks_fit=False):
    return start_trial(dataset, config or small_config(), schedule, checks_fit=checks_fit)


def test_n_steps_are_n_updates_at_the_schedules_learning_rates(digits):
    run = start(digits)
    initial = jax.device_get(run.state)
    measurement = run.advance(40)
    assert run.state.step == 40
    assert measurement.row["step"] == 40
    assert measurement.row["learning_rate"] == pytest.approx(0.1 / 20)

    # The same run written out, without any of budgetflow's training code.
    params = initial.params
    optimizer = optax.sgd(SCHEDULE.to_optax(), momentum=0.9)
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, inputs, targets):
        def loss(params):
            x = inputs.reshape(len(inputs), -1).astype(jnp.float32) / 255
            x = jax.nn.relu(x @ params["hidden"][0]["kernel"] + params["hidden"][0]["bias"])
            outputs = x @ params["output"]["kernel"] + params["output"]["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

        updates, state_after = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state_after

    arrays = digits.train.arrays
    for step in range(40):
        indices = batch_indices(0, step, step + 1, 64, digits.train.num_examples)[0]
        params, state = update(params, state, arrays["inputs"][indices], arrays["targets"][indices])
    for ours, theirs in zip(
        jax.tree.leaves(run.state.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_where_it_pauses_changes_nothing(digits):
    config = small_config(**NOISY)
    at_once, in_parts = start(digits, config), start(digits, config)
    at_once.advance(40)
    for step in (1, 7, 8, 40):
        in_parts.advance(step)
    assert_identical(at_once.state, in_parts.state)


@pytest.mark.parametrize(
    "config",
    [
        small_config(optimizer__name="sgd", **NOISY),
        small_config(optimizer={"name": "adam"}, **NOISY),
        small_config(model={"name": f"{__name__}.NormModel"}),
    ],
    ids=["momentum", "adam", "batchnorm"],
)
def test_a_restored_state_goes_on_bit_for_bit(digits, config):
    through = start(digits, config)
    through.advance(20)
    saved = jax.tree.map(jnp.copy, through.state)
    expected = through.advance(40)
    resumed = start(digits, config)
    resumed.resume(saved, has_fitted=False)
    assert resumed.advance(40) == expected
    assert_identical(resumed.state, through.state)


def test_streamed_data_trains_the_same_model_bit_for_bit(digits, streamed_digits):
    config = small_config(**NOISY)
    resident, streamed = start(digits, config), start(streamed_digits, config)
    assert resident.advance(30) == streamed.advance(30)
    assert_identical(resident.state, streamed.state)


def test_the_seed_decides_everything(digits):
    rows = [start(digits, small_config(seed=seed, **NOISY)).advance(10) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.slow
def test_streamed_data_brackets_the_fit(streamed_digits):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = start(streamed_digits, config, Schedule(0.1, constant_steps=600), checks_fit=True)
    assert run.advance(100).fitted_at_step_bracket is None
    measurement = run.advance(600)
    assert measurement.fitted_at_step_bracket == (100, 600)
    assert measurement.row["train_error_rate"] == 0


@pytest.mark.parametrize("batch_size", [1, 7, 64, 270, 1000])
def test_evaluation_weighs_every_example_once(digits, streamed_digits, batch_size):
    reference = start(digits, small_config(evaluation__batch_size=270))
    expected = reference.evaluate(digits.validation)
    for dataset in (digits, streamed_digits):
        run = start(dataset, small_config(evaluation__batch_size=batch_size))
        result = run.evaluate(dataset.validation)
        assert result["error_rate"] == expected["error_rate"]
        assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_evaluation_looks_at_the_first_examples_only_if_asked(digits):
    run = start(digits)
    some = {name: array[:100] for name, array in digits.train.arrays.items()}
    part = Split("some", 100, None, ("image", "label"), arrays=some)
    expected, result = run.evaluate(part), run.evaluate(digits.train, 100)
    assert result == pytest.approx(expected)
    weights = [each.weights for each in run.batches(digits.train, 64, 100)]
    assert np.concatenate(weights).sum() == 100


def test_divergence_is_noticed(digits):
    # Huge, so that the loss overflows within a few updates.
    run = start(digits, schedule=Schedule(1e30, constant_steps=10))
    assert run.advance(10).diverged
    assert not start(digits).advance(10).diverged


def test_padding_does_not_spread_nan(digits):
    arrays = {
        "inputs": np.asarray([[np.nan], [1.0], [2.0]], np.float32),
        "targets": np.asarray([0, 1, 0]),
    }
    # Padding repeats the first examples, whose loss is NaN here: only real ones may count.
    keys = ("x", "y")
    good = Split("good", 2, None, keys, arrays={k: a[1:] for k, a in arrays.items()})
    source = [{"x": arrays["inputs"][1], "y": arrays["targets"][1]}]
    data = Dataset(Split("one", 1, source, keys), good, None, 2)
    run = start(data, small_config(data__batch_size=1))
    assert np.isfinite(run.evaluate(good)["loss"])
    bad = Split("bad", 3, None, keys, arrays=arrays)
    assert np.isnan(run.evaluate(bad)["loss"])
    first_two = Split("two", 2, None, keys, arrays={k: a[[1, 0]] for k, a in arrays.items()})
    assert np.isfinite(run.evaluate(first_two, 1)["loss"])


def racing(dataset, whole_at, steps):
    """A trial that fits the digits, measured at some steps: its rows and its bracket."""
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    schedule = Schedule(0.3, constant_steps=400)
    plain = start_trial(dataset, config, schedule, checks_fit=True)
    run = TrialRun(config, schedule, plain.data, plain.program, whole_at)
    return run, [run.advance(step) for step in steps]


def test_a_race_is_evaluated_on_few_examples_until_it_fits_and_at_the_steps_named(digits):
    steps = [10, 20, 30, 300, 320]
    run, in_part = racing(digits, frozenset({20}), steps)
    whole_run, in_full = racing(digits, None, steps)
    assert_identical(run.state, whole_run.state)
    brackets = [each.fitted_at_step_bracket for each in in_full]
    assert [each.fitted_at_step_bracket for each in in_part] == brackets
    assert brackets[2] is None and brackets[3] is not None
    for at in (3, 4):
        assert in_part[at] == in_full[at]
    of_training = {k: v for k, v in in_full[1].row.items() if not k.startswith("validation")}
    assert in_part[1].row == of_training
    for at in (0, 2):
        row = in_part[at].row
        assert row["partial_train_examples"] == 256
        assert row["train_loss"] != in_full[at].row["train_loss"]
        assert not any(key.startswith("validation") for key in row)
    again, _ = racing(digits, None, steps[:1])
    first = {f"train_{k}": v for k, v in again.evaluate(digits.train, 256).items()}
    assert first.items() <= in_part[0].row.items()


def test_a_race_that_ends_without_a_fit_is_validated_at_its_end(digits):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    schedule = Schedule(1e-4, constant_steps=20)
    program = start_trial(digits, config, schedule, checks_fit=True).program
    run = TrialRun(config, schedule, DeviceData(digits), program, frozenset({10}))
    assert "validation_loss" not in run.advance(10).row
    last = run.advance(20)
    assert last.fitted_at_step_bracket is None
    assert last.row["validation_loss"] == run.evaluate(digits.validation)["loss"]
    assert last.row["train_loss"] == run.evaluate(digits.train)["loss"]


def test_a_race_that_goes_on_after_its_fit_is_evaluated_in_full(digits):
    run, _ = racing(digits, frozenset(), [300])
    resumed, _ = racing(digits, frozenset(), [])
    resumed.resume(jax.tree.map(jnp.copy, run.state), has_fitted=True)
    assert resumed.advance(320).row == run.advance(320).row
    assert "validation_loss" in run.advance(330).row
