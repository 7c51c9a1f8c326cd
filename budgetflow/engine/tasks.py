"""What a model is trained for: the loss, the metrics, and when an example counts as fitted.

A task of your own is a class with the methods of :class:`Classification`, of which ``fitted`` is
needed only for learning-rate sweeps and ``bad_targets`` not at all. Loss and metrics are arrays of
shape [batch] or, where examples do not all weigh the same or higher is better, each a
:class:`budgetflow.engine.metrics.Metric`. ``outputs`` are what the model returns, ``batch`` holds
``inputs`` and ``targets``, each an array, or a dict by name where the config names several. Keys of
``config.regularization`` that ``loss`` takes by name reach it as traced numbers.

No example may enter another one's loss: an array of shape [batch, batch] is nearly always a shape
that broadcast. A task that means it (contrastive losses) says so by ``compares_examples = True``.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from budgetflow.engine.metrics import Metric, as_metric

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy over classes.

    Targets are class numbers [batch], integers or booleans, or probabilities of the classes
    [batch, classes], such as one-hot labels.

    Attributes:
        num_classes: the number of classes; None to take the data set's own.
        top_k: also measure how often the right class is among this many likeliest ones.
    """

    num_classes: int | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        _check_counts(num_classes=self.num_classes, top_k=self.top_k)

    def num_outputs(self, dataset_num_classes: int | None) -> int:
        """The size of the model's output.

        Raises:
            ValueError: neither the task nor the data set says how many classes there are.
        """
        return _required(self.num_classes or dataset_num_classes, "num_classes")

    def bad_targets(self, targets: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
        """Which targets are none, bool [examples], and what they should be, in words.

        Args:
            targets: of some examples, [examples, …].
            num_outputs: the number of classes.
        """
        if targets.ndim == 2 and targets.shape[1] == num_outputs > 1:
            rows = targets.astype(np.float64)
            is_one = np.isclose(rows.sum(axis=1), 1, atol=1e-3) & (rows >= 0).all(axis=1)
            return ~is_one, f"{num_outputs} probabilities that add up to 1, as one-hot labels do"
        should_be = f"class numbers, integers from 0 to {num_outputs - 1}"
        if targets.ndim != 1 or targets.dtype.kind not in "biu":
            return np.ones(len(targets), bool), should_be
        return _outside(targets, num_outputs), should_be

    def loss(
        self, outputs: jax.Array, batch: Batch, *, label_smoothing: jax.Array | float = 0.0
    ) -> jax.Array:
        """The training loss of each example, [batch]."""
        targets = batch["targets"]
        if _are_probabilities(targets, outputs):
            likely = optax.smooth_labels(targets.astype(outputs.dtype), label_smoothing)
            return optax.softmax_cross_entropy(outputs, likely)
        return _cross_entropy(outputs, targets, label_smoothing)

    def metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """The loss without label smoothing and the error (0 or 1) of each example, [batch]."""
        metrics: dict[str, Any] = {
            "loss": self.loss(outputs, batch),
            "error_rate": 1.0 - self.fitted(outputs, batch),
        }
        if self.top_k is not None:
            among = _rank(outputs, self._classes(outputs, batch)) < self.top_k
            weight = jnp.ones_like(outputs[..., 0])
            metrics[f"top_{self.top_k}_accuracy"] = Metric(
                1.0 * among, weight, higher_is_better=True
            )
        return metrics

    def fitted(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Whether each example is classified correctly, [batch]; a NaN output never is."""
        finite = jnp.isfinite(outputs).all(axis=-1)
        return (jnp.argmax(outputs, axis=-1) == self._classes(outputs, batch)) & finite

    def _classes(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        targets = batch["targets"]
        return targets.argmax(-1) if _are_probabilities(targets, outputs) else targets


@dataclasses.dataclass(frozen=True)
class LanguageModeling:
    """Softmax cross-entropy over the next token at every position of a sequence.

    Targets are token numbers [batch, length]; the model's outputs are [batch, length, vocabulary].
    An example is a sequence; losses and metrics are means over all tokens, not over sequences.

    Attributes:
        vocabulary_size: the number of tokens; None to take the data set's own.
        padding_id: the token number, inside or outside the vocabulary, of positions that do not
            count; None where all do.
    """

    vocabulary_size: int | None = None
    padding_id: int | None = None

    def __post_init__(self) -> None:
        _check_counts(vocabulary_size=self.vocabulary_size)

    def num_outputs(self, dataset_num_classes: int | None) -> int:
        """The size of the model's output.

        Raises:
            ValueError: neither the task nor the data set says how many tokens there are.
        """
        return _required(self.vocabulary_size or dataset_num_classes, "vocabulary_size")

    def bad_targets(self, targets: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
        """Which sequences hold what is no token, bool [examples], and what it should be."""
        should_be = f"sequences of token numbers, integers from 0 to {num_outputs - 1}"
        if self.padding_id is not None:
            should_be += f", or {self.padding_id} for padding"
        if targets.ndim != 2 or targets.dtype.kind not in "iu":
            return np.ones(len(targets), bool), should_be
        outside = _outside(targets, num_outputs)
        if self.padding_id is not None:
            outside &= targets != self.padding_id
        return np.asarray(outside.any(axis=1)), should_be

    def loss(
        self, outputs: jax.Array, batch: Batch, *, label_smoothing: jax.Array | float = 0.0
    ) -> Metric:
        """The training loss in nats per token."""
        counted, targets = self._tokens(outputs, batch)
        return _over_tokens(_cross_entropy(outputs, targets, label_smoothing), counted)

    def metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Metric]:
        """The loss, its perplexity, and the share of wrong tokens."""
        counted, targets = self._tokens(outputs, batch)
        loss = self.loss(outputs, batch)
        wrong = 1.0 - Classification().fitted(outputs, {"targets": targets})
        return {
            "loss": loss,
            "perplexity": dataclasses.replace(loss, finish=math.exp),
            "error_rate": _over_tokens(wrong, counted),
        }

    def fitted(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Whether every token of a sequence that counts is predicted correctly, [batch]."""
        counted, targets = self._tokens(outputs, batch)
        return (Classification().fitted(outputs, {"targets": targets}) | ~counted).all(axis=-1)

    def _tokens(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Which positions count, and the targets, some token where they do not."""
        targets = batch["targets"]
        if self.padding_id is None:
            return jnp.ones(targets.shape, bool), targets
        counted = targets != self.padding_id
        return counted, jnp.where(counted, targets, 0)


@dataclasses.dataclass(frozen=True)
class Regression:
    """Squared error of real targets, [batch] or [batch, targets]; the model's outputs are 2-D.

    No example is ever all right, so a sweep of it needs ``config.sweep.fitted_train_loss``.

    Attributes:
        num_targets: how many numbers an example is to be predicted by.
    """

    num_targets: int = 1

    def __post_init__(self) -> None:
        _check_counts(num_targets=self.num_targets)

    def num_outputs(self, dataset_num_classes: int | None) -> int:
        """The size of the model's output."""
        return self.num_targets

    def bad_targets(self, targets: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
        """Which targets are not finite, or of another shape, bool [examples], and what to be."""
        should_be = f"{num_outputs} finite numbers" if num_outputs > 1 else "a finite number"
        if targets.reshape(len(targets), -1).shape[1] != num_outputs:
            return np.ones(len(targets), bool), should_be
        finite = np.isfinite(targets.astype(np.float64)).reshape(len(targets), -1)
        return np.asarray(~finite.all(axis=1)), should_be

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """The mean squared error of each example, [batch]."""
        targets = batch["targets"].reshape(outputs.shape).astype(outputs.dtype)
        return jnp.square(outputs - targets).mean(axis=-1)

    def metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """The loss, and its root over all examples."""
        loss = as_metric(self.loss(outputs, batch))
        return {"loss": loss, "rmse": dataclasses.replace(loss, finish=math.sqrt)}


def _over_tokens(values: jax.Array, counted: jax.Array) -> Metric:
    """A metric of sequences from values of their tokens, both [batch, length]."""
    return Metric(jnp.where(counted, values, 0.0).sum(-1), counted.sum(-1).astype(jnp.float32))


def _cross_entropy(
    outputs: jax.Array, classes: jax.Array, label_smoothing: jax.Array | float
) -> jax.Array:
    """That of class numbers, without making them one-hot: [batch, …] for outputs [batch, …, n].

    Raises:
        ValueError: the shapes do not go together, or these are no class numbers.
    """
    if classes.shape != outputs.shape[:-1]:
        raise ValueError(
            f"targets of shape {classes.shape} do not go with outputs of shape {outputs.shape}; "
            f"they should have the shape {outputs.shape[:-1]}"
        )
    if not jnp.issubdtype(classes.dtype, jnp.integer) and classes.dtype != bool:
        raise ValueError(f"targets are {classes.dtype}; they should be class numbers, integers")
    right = optax.softmax_cross_entropy_with_integer_labels(outputs, classes.astype(jnp.int32))
    if isinstance(label_smoothing, float) and label_smoothing == 0:
        return right
    every = jax.nn.logsumexp(outputs, axis=-1) - outputs.mean(axis=-1)
    return (1 - label_smoothing) * right + label_smoothing * every


def _are_probabilities(targets: jax.Array, outputs: jax.Array) -> bool:
    return targets.ndim == 2 and targets.shape == outputs.shape


def _rank(outputs: jax.Array, classes: jax.Array) -> jax.Array:
    """How many classes are likelier than the right one; all of them where an output is NaN."""
    right = jnp.take_along_axis(outputs, classes[..., None].astype(jnp.int32), axis=-1)
    return (~(outputs <= right)).sum(axis=-1)


def _outside(targets: np.ndarray, num_outputs: int) -> np.ndarray:
    return (targets < 0) | (targets >= num_outputs)


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"{name} = {count!r}: should be a whole number above 0")


def _required(size: int | None, option: str) -> int:
    if not size:
        raise ValueError(f"the data set does not say; set config.task.{option}")
    return size
