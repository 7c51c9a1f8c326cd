"""Losses and metrics that are means over something else than examples, against plain loops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config, start_trial
from flax import nnx

from budgetflow.engine.data.batches import batch_indices
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.metrics import Metric, as_metric
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.tasks import Classification, LanguageModeling

LENGTH, TOKENS, PADDING, EXAMPLES = 6, 11, 0, 40


def open_split(split):
    """Sequences of which most end in padding, some after the first token."""
    rng = np.random.default_rng({"train": 0, "validation": 1}[split])
    records = []
    for _ in range(EXAMPLES):
        tokens = rng.integers(1, TOKENS, LENGTH + 1).astype(np.int32)
        tokens[rng.integers(2, LENGTH + 2) :] = PADDING
        records.append({"inputs": tokens[:-1], "targets": tokens[1:]})
    return records


class Tokens(nnx.Module):
    """Predicts the next token from this one alone."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.embed = nnx.Embed(TOKENS, 8, rngs=rngs)
        self.output = nnx.Linear(8, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.output(self.embed(inputs))


def sequences(**options):
    load_dataset.cache_clear()
    return load_dataset(
        f"{__name__}.open_split", "train", "validation", None,
        input_key="inputs", target_key="targets", **options,
    )  # fmt: skip


def config_of(**fields):
    return small_config(
        **{
            "data__batch_size": 8,
            "model": {"name": f"{__name__}.Tokens"},
            "task": {
                "name": "budgetflow.tasks.LanguageModeling",
                "vocabulary_size": TOKENS,
                "padding_id": PADDING,
            },
            "optimizer": {"name": "sgd"},
            **fields,
        }
    )


def plain_loop(arrays, steps, rate):
    """Per-token cross-entropy over the tokens of each batch that are no padding."""
    model = Tokens((LENGTH,), TOKENS, rngs=nnx.Rngs(jax.random.key(0)))
    graph, params = nnx.split(model, nnx.Param)

    def loss(params, inputs, targets):
        outputs = nnx.merge(graph, params)(inputs)
        per_token = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        return (per_token * (targets != PADDING)).sum() / (targets != PADDING).sum()

    for indices in batch_indices(0, 0, steps, 8, EXAMPLES):
        gradients = jax.grad(loss)(params, arrays["inputs"][indices], arrays["targets"][indices])
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
    return params, graph


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_a_loss_per_token_is_the_mean_over_the_batchs_tokens(accumulation):
    dataset = sequences()
    config = config_of(gradient_accumulation=accumulation)
    run = start_trial(dataset, config, Schedule(0.5, constant_steps=20))
    run.advance(20)
    expected, _ = plain_loop(dataset.train.arrays, 20, 0.5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        run.state.params, nnx.to_pure_dict(expected),
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 512])
@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
def test_evaluation_is_over_all_tokens_whatever_the_batches(batch_size, in_memory_bytes):
    dataset = sequences(in_memory_bytes=in_memory_bytes)
    config = config_of(evaluation__batch_size=batch_size)
    run = start_trial(dataset, config, Schedule(0.5, constant_steps=20))
    run.train(20)
    found = run.evaluate(dataset.validation)
    arrays = sequences().validation.arrays
    params, graph = plain_loop(sequences().train.arrays, 20, 0.5)
    outputs = np.asarray(nnx.merge(graph, params)(jnp.asarray(arrays["inputs"])))
    total, count, wrong = 0.0, 0, 0
    for example, targets in zip(outputs, arrays["targets"], strict=True):
        for scores, target in zip(example, targets, strict=True):
            if target != PADDING:
                total += (
                    math.log(np.exp(scores - scores.max()).sum()) - (scores - scores.max())[target]
                )
                count, wrong = count + 1, wrong + (scores.argmax() != target)
    assert found["loss"] == pytest.approx(total / count, rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert found["error_rate"] == pytest.approx(wrong / count, rel=1e-6)


def test_padded_positions_do_not_count_for_the_fit():
    task = LanguageModeling(padding_id=-1)
    targets = jnp.asarray([[1, 2, -1], [1, 2, 0]])
    outputs = jax.nn.one_hot(jnp.asarray([[1, 2, 0], [1, 2, 1]]), 4)
    assert task.fitted(outputs, {"targets": targets}).tolist() == [True, False]
    loss = as_metric(task.loss(outputs, {"targets": targets}))
    assert loss.weight.tolist() == [2, 3] and np.isfinite(loss.total).all()
    bad, should_be = task.bad_targets(np.asarray([[1, 2, -1], [1, 2, 4]]), 4)
    assert bad.tolist() == [False, True] and "-1 for padding" in should_be


def test_nothing_but_padding_gives_no_gradient_and_no_nan():
    dataset = sequences()
    dataset.train.arrays["targets"][:] = PADDING
    config = config_of()
    run = start_trial(dataset, config, Schedule(0.5, constant_steps=3))
    before = jax.tree.map(np.asarray, run.state.params)
    run.train(3)
    jax.tree.map(np.testing.assert_array_equal, before, run.state.params)


@dataclasses.dataclass(frozen=True)
class Odd(Classification):
    """With metrics that end as something else than a mean, and one that may be undefined."""

    undefined: bool = False

    def metrics(self, outputs, batch):
        loss = self.loss(outputs, batch)
        ones = jnp.ones_like(loss)
        nothing = jnp.zeros_like(loss)
        first = jnp.arange(len(loss)) == 0
        return {
            **super().metrics(outputs, batch),
            "perplexity": Metric(loss, ones, finish=math.exp),
            "of_none": Metric(loss, nothing),
            "undefined": jnp.where(first, jnp.nan, loss) if self.undefined else loss,
            "accuracy": Metric(1.0 * self.fitted(outputs, batch), ones, higher_is_better=True),
            "overflowing": Metric(1e6 * ones, ones, finish=math.exp),
        }


def test_metrics_are_finished_and_one_that_is_undefined_is_no_divergence(digits):
    config = small_config(task={"name": f"{__name__}.Odd", "undefined": True})
    measurement = start_trial(digits, config, Schedule(0.1, constant_steps=5)).advance(5)
    row = measurement.row
    assert not measurement.diverged
    assert math.isnan(row["validation_undefined"]) and math.isnan(row["validation_of_none"])
    assert row["validation_perplexity"] == pytest.approx(math.exp(row["validation_loss"]))
    assert row["validation_accuracy"] == pytest.approx(1 - row["validation_error_rate"])
    assert row["train_overflowing"] == math.inf
    # The metric that selects decides.
    selecting = small_config(
        task={"name": f"{__name__}.Odd", "undefined": True},
        evaluation__selection_metric="undefined",
    )
    assert start_trial(digits, selecting, Schedule(0.1, constant_steps=5)).advance(5).diverged


def test_top_k_accuracy_counts_the_likeliest_classes():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(50, 9)), rng.integers(0, 9, 50)
    metric = Classification(top_k=3).metrics(
        jnp.asarray(outputs), {"targets": jnp.asarray(targets)}
    )
    expected = [t in np.argsort(-o)[:3] for o, t in zip(outputs, targets, strict=True)]
    assert metric["top_3_accuracy"].total.tolist() == expected
    assert metric["top_3_accuracy"].higher_is_better
    outputs[0, targets[0]] = np.nan
    metric = Classification(top_k=9).metrics(
        jnp.asarray(outputs), {"targets": jnp.asarray(targets)}
    )
    assert metric["top_9_accuracy"].total[0] == 0


def test_label_smoothing_is_optaxs_and_makes_nothing_one_hot():
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)), jnp.float32)
    targets = jnp.arange(5)
    smoothed = optax.smooth_labels(jax.nn.one_hot(targets, 7), 0.2)
    expected = optax.softmax_cross_entropy(outputs, smoothed)
    for given in (targets, jax.nn.one_hot(targets, 7)):
        loss = Classification().loss(outputs, {"targets": given}, label_smoothing=0.2)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    shapes = jax.make_jaxpr(
        lambda o, t, a: Classification().loss(o, {"targets": t}, label_smoothing=a)
    )(jnp.zeros((3, 50_000)), jnp.zeros(3, jnp.int32), 0.1)
    assert "eq" not in {equation.primitive.name for equation in shapes.jaxpr.eqns}
