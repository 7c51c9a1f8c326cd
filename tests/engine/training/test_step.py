import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config, start_trial
from flax import nnx

from budgetflow.base.errors import ConfigError
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.studies.plan.memory import step_arguments


def test_a_study_compiles_its_train_step_once(digits):
    compiled = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    varied = frozenset({"regularization.dropout_rate"})

    def train(rate, dropout, seed, steps):
        config = small_config(
            regularization__dropout_rate=dropout,
            seed=seed,
            # A width that no other test uses, so that nothing is compiled already.
            model__hidden_sizes=(13,),
        )
        run = start_trial(digits, config, Schedule(rate, constant_steps=steps), varied)
        return run.advance(steps)

    train(0.1, 0.1, 0, 3)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in range(3):
            # One call of the compiled step, and several.
            train(0.05 * (seed + 1), 0.2 * seed, seed, 5 + 70 * seed)
        assert compiled == []
        # The listener hears of a compilation when there is one.
        jax.jit(lambda x: x * 17.25)(1.0)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def brute_force_fit(digits, rate, steps, **fields):
    """The first step at which no training example is misclassified, by looking at all of them."""
    config = small_config(model__hidden_sizes=(64,), **fields)
    run = start_trial(digits, config, Schedule(rate, constant_steps=steps))
    for step in range(1, steps + 1):
        if run.advance(step).row["train_error_rate"] == 0:
            return step
    return None


@pytest.mark.parametrize(
    ("rate", "fields"),
    [(0.1, {}), (0.3, {}), (0.3, {"ema_decay": 0.98})],
)
def test_the_fit_is_noticed_at_the_first_step_of_a_perfect_fit(digits, rate, fields):
    config = small_config("lr_sweep", model__hidden_sizes=(64,), **fields)
    run = start_trial(digits, config, Schedule(rate, constant_steps=600), checks_fit=True)
    bracket = run.advance(600).fitted_at_step_bracket
    assert bracket is not None
    assert brute_force_fit(digits, rate, 600, **fields) == bracket[1] == bracket[0] + 1


def test_no_fit_is_noticed_where_there_is_none(digits):
    config = small_config("lr_sweep", model__hidden_sizes=(64,))
    run = start_trial(digits, config, Schedule(1e-4, constant_steps=40), checks_fit=True)
    measurement = run.advance(40)
    assert measurement.fitted_at_step_bracket is None
    assert measurement.row["train_error_rate"] > 0
    assert np.isfinite(measurement.row["train_loss"])


CONV = {"model": {"name": "budgetflow.models.ConvNet", "channels": (8,), "hidden_size": 16}}
TRANSFORMER = {
    "model": {"name": "budgetflow.models.Transformer", "width": 16, "depth": 1, "heads": 2},
    "task__name": "budgetflow.tasks.LanguageModeling",
    "evaluation__selection_metric": "loss",
    # As many as there are to validate on, so that one program evaluates both.
    "evaluation__train_examples": 181,
    "data__batch_size": 16,
}
SCHEDULE = Schedule(0.05, constant_steps=10)


@pytest.fixture(scope="module")
def text():
    return load_dataset(
        "budgetflow.data.text.pydoc_topics", "train", "validation", None, None, "inputs", "targets"
    )


def trained(dataset, **fields):
    run = start_trial(dataset, small_config(**fields), SCHEDULE)
    return run, run.advance(10)


def assert_close(first, second, rtol=1e-3, atol=1e-6):
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{"augmentation__noise_std": 0.1, "augmentation__shift_pixels": 1.0}, CONV, TRANSFORMER],
    ids=["mlp", "conv", "transformer"],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(digits, text, fields):
    dataset = text if fields is TRANSFORMER else digits
    whole, measured = trained(dataset, **fields)
    parts, measured_in_parts = trained(dataset, gradient_accumulation=4, **fields)
    assert_close(parts.state, whole.state)
    assert measured_in_parts.row == pytest.approx(measured.row, rel=1e-3)


def test_batch_statistics_of_parts_are_refused(digits):
    with pytest.raises(ConfigError, match="has batch statistics"):
        trained(digits, model={"name": "budgetflow.models.ResNet"}, gradient_accumulation=2)


class TypedModel(nnx.Module):
    """Insists on the types it is to compute in."""

    def __init__(self, input_shape, num_outputs, *, dtype, rngs):
        self.dtype = dtype
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.output = nnx.Linear(64, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        outputs = self.output(self.norm(inputs.reshape(len(inputs), -1)))
        assert {inputs.dtype, self.output.kernel.dtype, outputs.dtype} == {jnp.dtype(self.dtype)}
        return outputs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_that_of_the_computation_alone(digits, precision):
    model = {"name": f"{__name__}.TypedModel", "dtype": precision}
    run, _ = trained(digits, model=model, precision=precision)
    types = {leaf.dtype for leaf in jax.tree.leaves(run.state)}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}


@pytest.mark.parametrize("fields", [{}, CONV, TRANSFORMER], ids=["mlp", "conv", "transformer"])
def test_bfloat16_is_near_float32_and_not_the_same(digits, text, fields):
    dataset = text if fields is TRANSFORMER else digits
    exact, rough = (trained(dataset, precision=p, **fields)[1] for p in ("float32", "bfloat16"))
    assert exact.row != rough.row
    assert rough.row["validation_loss"] == pytest.approx(exact.row["validation_loss"], rel=0.03)


@pytest.mark.slow
def test_rematerialisation_computes_activations_anew_and_changes_nothing(text):
    fields = {**TRANSFORMER, "regularization__dropout_rate": 0.1}
    kept, measured = trained(text, **fields)
    again, measured_again = trained(text, **fields, model__remat=True)
    assert_close(again.state, kept.state)
    assert measured_again.row == pytest.approx(measured.row, rel=1e-4)
    # How much memory that saves is up to XLA's scheduler, which on the CPU saves none.
    few, many = (text_of_step(text, **TRANSFORMER, model__remat=r) for r in (False, True))
    assert many.count("optimization_barrier") > few.count("optimization_barrier")


def text_of_step(dataset, **fields):
    """The train step as it is handed to XLA."""
    config = small_config(**fields)
    program = start_trial(dataset, config, SCHEDULE).program
    return program.train_steps.lower(*step_arguments(config, dataset, program)).as_text()


def test_averaged_parameters_are_what_is_evaluated(digits):
    decay = 0.8
    plain, averaged = (
        start_trial(digits, small_config(ema_decay=d), SCHEDULE) for d in (0.0, decay)
    )
    expected = jax.device_get(plain.state.params)
    for step in range(1, 11):
        plain.train(step)
        weight = min(decay, step / (9 + step))
        expected = jax.tree.map(
            lambda old, new, weight=weight: weight * old + (1 - weight) * np.asarray(new),
            expected,
            plain.state.params,
        )
    row = averaged.advance(10).row
    # Training is that of the parameters themselves; the average is beside it.
    assert_close(averaged.state.params, plain.state.params)
    assert_close(averaged.state.ema_params, expected, rtol=1e-4)
    assert plain.state.ema_params == {}
    plain.resume(plain.state._replace(params=averaged.state.ema_params), has_fitted=False)
    assert row["validation_loss"] == pytest.approx(plain.measure().row["validation_loss"])
