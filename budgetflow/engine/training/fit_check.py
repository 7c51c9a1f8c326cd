"""The fit check: does the state after this update get every training example right?

A sweep looks for the first step at which that is so, and therefore asks after every update, inside
the compiled step. Nearly always the answer is no, and one wrong example proves it. So the check
keeps a short list of examples that were wrong lately, and looks at those first; only if all of them
are right does it go through the training set, block by block, up to the first block with a mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from budgetflow.engine.training.apply import Arrays, examples_at, num_examples, predict
from budgetflow.engine.training.spec import ProgramSpec

if TYPE_CHECKING:
    from budgetflow.engine.training.step import TrainState

# The size of a block: training examples that the model is applied to at once.
FIT_CHECK_EXAMPLES = 256
# The length of the list of examples that were wrong lately, and how many of a block with a mistake
# join it, in the place of those that are on it longest.
REFUTING_EXAMPLES, NEW_REFUTING_EXAMPLES = 32, 8


class Progress(NamedTuple):
    """What the compiled step notices on its way, fetched when the trial is evaluated.

    Attributes:
        diverged_at_step: the first step whose update saw a loss that is not finite; -1 if none.
        fitted_at_step: the first step whose state fits the whole training set; -1 if none.
        refuting: the examples that were wrong lately, at which the fit check looks first: their
            numbers in the training set, int32, [REFUTING_EXAMPLES], the latest in front.
    """

    diverged_at_step: Any
    fitted_at_step: Any
    refuting: Any


def initial_progress(num_examples: int) -> Progress:
    """The progress at step 0, which looks first at the first of that many training examples."""
    refuting = np.arange(REFUTING_EXAMPLES, dtype=np.int32) % num_examples
    return Progress(np.int32(-1), np.int32(-1), refuting)


def check_fit(
    spec: ProgramSpec, mesh: Mesh, state: TrainState, progress: Progress, data: Arrays
) -> Progress:
    """The progress after an update, with its step noted if it is the first to fit every example.

    Where a step is noted already, nothing is looked at. An example whose inputs occur with several
    targets is fitted by any of its ``fit_targets``. Of a block with a mistake, the wrong examples
    of the highest loss join the list that is looked at first.

    Args:
        spec: what shapes the program.
        mesh: the devices of the trial.
        state: the state after the update.
        progress: the progress before it.
        data: the training set: "inputs", "targets" and perhaps "fit_targets", each
            [examples, ...].
    """
    examples = num_examples(data)
    size = min(FIT_CHECK_EXAMPLES, examples)
    blocks = -(-examples // size)
    task = spec.build_task()

    def look_at(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        part = examples_at(data, indices)
        choices = part.pop("fit_targets", None)
        outputs = predict(spec, mesh, state.evaluated_params, state.model_state, batch=part)
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
        wrong = indices[jax.lax.top_k(hardness, min(NEW_REFUTING_EXAMPLES, size))[1]]
        latest = jnp.concatenate([wrong, refuting])[: len(refuting)]
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
    """Whether a model fits every example of one batch, bool scalar.

    Args:
        spec: what shapes the program.
        mesh: the devices of the trial.
        params, model_state: the model's parameters and its other variables.
        batches: "inputs" and "targets", each [1, examples, ...]: batches come stacked, as for
            evaluation, and here the stack holds a single one.
    """
    batch = jax.tree.map(lambda array: array[0], batches)
    outputs = predict(spec, mesh, params, model_state, batch=batch)
    return spec.build_task().fitted(outputs, batch).all()
