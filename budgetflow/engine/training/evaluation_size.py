"""How many examples to evaluate at once: a rule of shapes, the same in a study that is resumed.

On the CPU an evaluation is fast where what the model computes in between stays in the caches, and
in memory that the allocator keeps: more than 32 MiB is mapped anew, and cleared, with every call. A
transformer of width 64 on 128 characters needs 13 MiB for 16 examples and 43 MiB for 32; with 512
an example takes about four times as long as with 16.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import jax

from budgetflow.engine.training.apply import on_cpu, predict
from budgetflow.engine.training.step import Program
from budgetflow.engine.training.tracing import equations

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig

# More makes a call no more efficient on the CPU, nor much on an accelerator.
MOST_EXAMPLES, FEWEST_EXAMPLES = 512, 8
# The largest array in between: several of them are alive at the same time.
CACHED_BYTES = 4 * 2**20


def evaluation_batch_size(config: StudyConfig, program: Program) -> int:
    """The examples to evaluate at once: ``config.evaluation.batch_size``, or by the rule.

    That is the power of two with which the largest array of the model's forward pass takes at most
    :data:`CACHED_BYTES`, from 8 to 512; 512 where there is no CPU's cache to fit.
    """
    if config.evaluation.batch_size is not None:
        return config.evaluation.batch_size
    if not on_cpu(program.mesh):
        return MOST_EXAMPLES
    fitting = CACHED_BYTES // max(1, largest_bytes_per_example(program))
    power_of_two = 2 ** max(0, fitting.bit_length() - 1)
    return min(max(power_of_two, FEWEST_EXAMPLES), MOST_EXAMPLES)


@functools.lru_cache(maxsize=256)  # A number of each program, whose cache has this size.
def largest_bytes_per_example(program: Program) -> int:
    """By how much one more example enlarges the largest array of the model's forward pass.

    Found by tracing it with two and with three examples; nothing is compiled.
    """
    fewer, more = (_bytes_of_arrays(program, examples) for examples in (2, 3))
    return max((b - a for a, b in zip(fewer, more, strict=False)), default=0)


def _bytes_of_arrays(program: Program, examples: int) -> list[int]:
    """The sizes of all arrays that the model computes, in the order in which it does."""
    spec, state = program.spec, program.state
    forward = functools.partial(predict, spec, program.mesh)
    traced = jax.make_jaxpr(forward)(state.params, state.model_state, batch=spec.batch(examples))
    outputs = (out.aval for equation in equations(traced.jaxpr) for out in equation.outvars)
    return [_nbytes(array) for array in outputs]


def _nbytes(array: Any) -> int:
    """The size of an array of a traced function; 0 of what is none, such as a random key."""
    return math.prod(getattr(array, "shape", ())) * getattr(array.dtype, "itemsize", 0)
