import jax.numpy as jnp
import numpy as np
import optax
import pytest

from budgetflow.engine.tasks import Classification, LanguageModeling, Regression

OUTPUTS = jnp.asarray([[2.0, 1.0, 0.0], [0.0, 0.5, 3.0], [1.0, 2.0, 0.0]])
BATCH = {"targets": jnp.asarray([0, 0, 1])}


def test_loss_is_cross_entropy_with_label_smoothing():
    expected = optax.softmax_cross_entropy_with_integer_labels(OUTPUTS, BATCH["targets"])
    np.testing.assert_allclose(Classification().loss(OUTPUTS, BATCH), expected, rtol=1e-6)
    log_probabilities = OUTPUTS - jnp.log(jnp.exp(OUTPUTS).sum(-1, keepdims=True))
    smoothed = 0.7 * expected - 0.3 * log_probabilities.mean(-1)
    loss = Classification().loss(OUTPUTS, BATCH, label_smoothing=0.3)
    np.testing.assert_allclose(loss, smoothed, rtol=1e-6)


def test_error_counts_wrong_classes():
    assert Classification().metrics(OUTPUTS, BATCH)["error_rate"].tolist() == [0, 1, 0]


def test_an_output_that_is_not_finite_is_never_fitted():
    outputs = jnp.full((1, 3), jnp.nan)
    assert not Classification().fitted(outputs, {"targets": jnp.asarray([0])}).any()


def test_the_number_of_classes_comes_from_the_task_or_the_data():
    assert Classification().num_outputs(7) == 7
    assert Classification(num_classes=5).num_outputs(None) == 5
    with pytest.raises(ValueError, match="num_classes"):
        Classification().num_outputs(None)


def test_a_language_models_loss_is_the_mean_over_tokens():
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7)), jnp.float32)
    targets = jnp.argmax(outputs, axis=-1).at[1, 3].add(1) % 7
    batch = {"targets": targets}
    task = LanguageModeling()
    per_token = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    loss, error = task.loss(outputs, batch), task.metrics(outputs, batch)["error_rate"]
    np.testing.assert_allclose(loss.total / loss.weight, per_token.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(error.total / error.weight, [0, 0.2], atol=1e-7)
    assert task.fitted(outputs, batch).tolist() == [True, False]
    assert task.num_outputs(7) == 7 and LanguageModeling(9).num_outputs(None) == 9
    with pytest.raises(ValueError, match="vocabulary_size"):
        task.num_outputs(None)


def test_regression_is_the_squared_error_and_its_root():
    outputs = jnp.asarray([[1.0], [2.0], [4.0]])
    for targets in (jnp.asarray([1.0, 0.0, 1.0]), jnp.asarray([[1.0], [0.0], [1.0]])):
        metrics = Regression().metrics(outputs, {"targets": targets})
        assert Regression().loss(outputs, {"targets": targets}).tolist() == [0.0, 4.0, 9.0]
        total, weight = (float(part) for part in metrics["rmse"].sums())
        # The root of the mean, not the mean of roots.
        assert metrics["rmse"].value(total, weight) == pytest.approx((13 / 3) ** 0.5)
    two = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    loss = Regression(num_targets=2).loss(two, {"targets": jnp.zeros((2, 2))})
    assert loss.tolist() == [2.5, 12.5]


def test_targets_of_a_regression_are_checked():
    targets = np.asarray([1.0, np.nan, np.inf, -2.0])
    bad, words = Regression().bad_targets(targets, 1)
    assert bad.tolist() == [False, True, True, False] and words == "a finite number"
    assert Regression().bad_targets(np.zeros((2, 3)), 1)[0].all()
    with pytest.raises(ValueError, match="num_targets = 0"):
        Regression(num_targets=0)
