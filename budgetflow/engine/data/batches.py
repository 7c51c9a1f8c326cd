"""Which examples make up which batch: one function of (seed, step), for every way of reading."""

import functools
from collections.abc import Iterator

import numpy as np

from budgetflow.engine.data.read_ahead import Request, read_ahead
from budgetflow.engine.data.records import Example, Split


@functools.lru_cache(maxsize=8)  # The epochs of a few seeds: of trials that run side by side.
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of one epoch: a permutation of ``range(num_examples)``, int32."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(num_examples).astype(np.int32)
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=2)  # Trials that race ask for the same steps one after the other.
def batch_indices(
    seed: int, first_step: int, last_step: int, batch_size: int, num_examples: int
) -> np.ndarray:
    """The examples that updates ``first_step`` to ``last_step - 1`` train on.

    Epochs follow each other without a gap, so a batch may hold the end of one and the start of the
    next, and every example is seen exactly once an epoch.

    Returns:
        int32, [last_step - first_step, batch_size].
    """
    positions = np.arange(first_step * batch_size, last_step * batch_size)
    epochs, offsets = np.divmod(positions, num_examples)
    indices = np.empty(len(positions), np.int32)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        chosen = slice(*np.searchsorted(epochs, [epoch, epoch + 1]))
        indices[chosen] = epoch_order(seed, epoch, num_examples)[offsets[chosen]]
    indices.setflags(write=False)
    return indices.reshape(-1, batch_size)


def stream_batches(
    split: Split, seed: int, first_step: int, last_step: int, batch_size: int, rows: np.ndarray
) -> Iterator[Example]:
    """The batches of the updates ``first_step`` to ``last_step - 1``, read ahead where that helps.

    They are the batches that :func:`batch_indices` names, whatever the split is stored in. A random
    transform gets a generator that is a function of (seed, step, example).

    Args:
        rows: the positions within each batch to read; those of other hosts are left out.
    """

    def batch(number: int) -> Request:
        step = first_step + number
        indices = batch_indices(seed, step, step + 1, batch_size, split.num_examples)
        return indices[0, rows], (seed, step)

    return read_ahead(split, batch, last_step - first_step)


def stream_in_order(
    split: Split, batch_size: int, num_examples: int, rows: np.ndarray
) -> Iterator[Example]:
    """A split's first examples in stored order, in batches of one size.

    The last batch is filled up with examples from the start.

    Args:
        rows: the positions within each batch to read.
    """

    def batch(number: int) -> Request:
        return (number * batch_size + rows) % num_examples, None

    return read_ahead(split, batch, -(-num_examples // batch_size))
