"""What a model is trained for: the loss, the metrics, and when an example counts as fitted.

A task of your own is a class with the methods of :class:`Classification`; ``fitted`` is needed only
for learning-rate sweeps. All metrics are better when lower. Keys of ``config.regularization`` that
``loss`` takes by name reach it as traced numbers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy over integer class labels.

    Attributes:
        num_classes: the number of classes; None to take the data set's own.
    """

    num_classes: int | None = None

    def num_outputs(self, dataset_num_classes: int | None) -> int:
        """The size of the model's output.

        Raises:
            ValueError: neither the task nor the data set says how many classes there are.
        """
        return _known(self.num_classes or dataset_num_classes, "num_classes")

    def loss(
        self, outputs: jax.Array, batch: Batch, *, label_smoothing: jax.Array | float = 0.0
    ) -> jax.Array:
        """The training loss of each example, [batch]."""
        labels = jax.nn.one_hot(batch["targets"], outputs.shape[-1])
        return optax.softmax_cross_entropy(outputs, optax.smooth_labels(labels, label_smoothing))

    def metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Per example, [batch] each: the loss without label smoothing and the error (0 or 1)."""
        return {
            "loss": self.loss(outputs, batch),
            "error_rate": 1.0 - self.fitted(outputs, batch),
        }

    def fitted(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Whether each example is classified correctly, [batch]; a NaN output never is."""
        finite = jnp.isfinite(outputs).all(axis=-1)
        return (jnp.argmax(outputs, axis=-1) == batch["targets"]) & finite


@dataclasses.dataclass(frozen=True)
class LanguageModeling:
    """Softmax cross-entropy over the next token at every position of a sequence.

    Targets are token numbers [batch, length]; the model's outputs are [batch, length, vocabulary].
    An example is a sequence, and its metrics are means over its positions.

    Attributes:
        vocabulary_size: the number of tokens; None to take the data set's own.
    """

    vocabulary_size: int | None = None

    def num_outputs(self, dataset_num_classes: int | None) -> int:
        """The size of the model's output.

        Raises:
            ValueError: neither the task nor the data set says how many tokens there are.
        """
        return _known(self.vocabulary_size or dataset_num_classes, "vocabulary_size")

    def loss(
        self, outputs: jax.Array, batch: Batch, *, label_smoothing: jax.Array | float = 0.0
    ) -> jax.Array:
        """The training loss of each sequence, in nats per token, [batch]."""
        return Classification().loss(outputs, batch, label_smoothing=label_smoothing).mean(axis=-1)

    def metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Per sequence, [batch] each: the loss and the share of wrong tokens."""
        wrong = 1.0 - Classification().fitted(outputs, batch)
        return {"loss": self.loss(outputs, batch), "error_rate": wrong.mean(axis=-1)}

    def fitted(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Whether every token of a sequence is predicted correctly, [batch]."""
        return Classification().fitted(outputs, batch).all(axis=-1)


def _known(size: int | None, option: str) -> int:
    if not size:
        raise ValueError(f"the data set does not say; set config.task.{option}")
    return size


def model_inputs(batch: dict[str, Any]) -> jax.Array:
    """A batch's inputs as the model takes them: uint8 becomes float32 in [0, 1]."""
    inputs = jnp.asarray(batch["inputs"])
    return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs
