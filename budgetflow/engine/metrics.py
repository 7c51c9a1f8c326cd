"""What a task measures: sums and weights, so that a mean over batches is the mean over all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _as_it_is(mean: float) -> float:
    return mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity of each example of a batch, and how the quantity of a whole split follows.

    That is ``finish(sum of totals / sum of weights)`` over all examples, however they were cut into
    batches: a mean over tokens has the tokens' sum and number; a perplexity is that of the loss,
    finished by ``math.exp``. A plain array of shape [batch] is a metric whose weights are 1.

    Attributes:
        total: [batch], float.
        weight: [batch], 0 or more; an example of weight 0 does not count.
        finish: from the mean to the figure that is shown; on Python floats.
        higher_is_better: its direction.
    """

    total: jax.Array
    weight: jax.Array
    finish: Callable[[float], float] = dataclasses.field(
        default=_as_it_is, metadata={"static": True}
    )
    higher_is_better: bool = dataclasses.field(default=False, metadata={"static": True})

    def sums(self, counted: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """The sum of totals and that of weights.

        Args:
            counted: bool [batch]: the examples that count; None for all.
        """
        total, weight = self.total, jax.lax.stop_gradient(self.weight)
        if counted is not None:
            # Left out by selection, not by multiplication: 0 times NaN would be NaN.
            total, weight = (jnp.where(counted, array, 0.0) for array in (total, weight))
        return total.sum(), weight.sum()

    def value(self, total: float, weight: float) -> float:
        """The figure for sums over a whole split; NaN where nothing counts."""
        if weight <= 0:
            return float("nan")
        try:
            return float(self.finish(total / weight))
        except (OverflowError, ValueError):  # math.exp(1000), math.log(-1)
            return float("inf") if total > 0 else float("nan")


def as_metric(value: Any) -> Metric:
    """A metric as it is; an array as one whose weights are 1."""
    return value if isinstance(value, Metric) else Metric(value, jnp.ones_like(value, jnp.float32))
