"""Whether a state fits the whole training set: looked at in every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from budgetflow.training.apply import Arrays, examples_at, num_examples, predict
from budgetflow.training.spec import ProgramSpec

if TYPE_CHECKING:
    from budgetflow.training.step import TrainState

# Training examples that the fit check looks at between two chances to stop.
FIT_CHECK_EXAMPLES = 256
# Examples that it looks at first, since they refuted the fit before, and how many of them the block
# replaces that refutes it next.
REFUTING_EXAMPLES, NEW_REFUTING_EXAMPLES = 32, 8


class Progress(NamedTuple):
    """What the compiled step notices on its way, fetched when the trial is evaluated.

    Attributes:
        diverged_at_step: the first step whose update saw a loss that is not finite; -1 if none.
        fitted_at_step: the first step whose state fits the whole training set; -1 if none.
        refuting: the training examples, by index, at which the fit check looks first.
    """

    diverged_at_step: Any
    fitted_at_step: Any
    refuting: Any


def initial_progress(num_examples: int) -> Progress:
    """The progress at step 0 of training on that many examples."""
    refuting = np.arange(REFUTING_EXAMPLES, dtype=np.int32) % num_examples
    return Progress(np.int32(-1), np.int32(-1), refuting)


def check_fit(
    spec: ProgramSpec, mesh: Mesh, state: TrainState, progress: Progress, data: Arrays
) -> Progress:
    """Notes the step if the state fits every training example.

    Looks at the few examples that refuted the fit before, and only where those are fitted at all
    others, in blocks, up to the first mistake: until shortly before the fit that is the cost of a
    few examples. The hardest of the block with the mistake join the few, and the longest known go.
    """
    examples = num_examples(data)
    size = min(FIT_CHECK_EXAMPLES, examples)
    blocks = -(-examples // size)
    task = spec.build_task()

    def look_at(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        part = examples_at(data, indices)
        choices = part.pop("fit_targets", None)
        outputs = predict(spec, mesh, state.evaluated_params, state.model_state, part)
        fitted = task.fitted(outputs, part)
        for choice in range(0 if choices is None else choices.shape[1]):
            fitted |= task.fitted(outputs, {**part, "targets": choices[:, choice]})
        hardness = jnp.nan_to_num(task.loss(outputs, part).total)
        return fitted.all(), jnp.where(fitted, -jnp.inf, hardness)

    def unrefuted(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        fits, block, _ = carry
        return fits & (block < blocks)

    def look_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        _, block, refuting = carry
        # The last block overlaps the one before, which is harmless.
        indices = jnp.minimum(block * size, examples - size) + jnp.arange(size)
        fits, hardness = look_at(indices)
        found = indices[jax.lax.top_k(hardness, min(NEW_REFUTING_EXAMPLES, size))[1]]
        latest = jnp.concatenate([found, refuting])[: len(refuting)]
        return fits, block + 1, jnp.where(fits, refuting, latest)

    looking = progress.fitted_at_step < 0
    fits, _, refuting = jax.lax.while_loop(
        unrefuted,
        look_on,
        (looking & look_at(progress.refuting)[0], jnp.int32(0), progress.refuting),
    )
    return Progress(
        progress.diverged_at_step,
        jnp.where(fits, state.step, progress.fitted_at_step),
        refuting,
    )


def is_fitted(
    spec: ProgramSpec, mesh: Mesh, params: Arrays, model_state: Arrays, batches: Arrays
) -> jax.Array:
    """Whether every example of a batch, the only one of a stack, is fitted."""
    batch = jax.tree.map(lambda array: array[0], batches)
    return spec.build_task().fitted(predict(spec, mesh, params, model_state, batch), batch).all()
