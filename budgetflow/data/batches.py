"""Which examples make up which batch: one function of (seed, step), for every way of reading."""

import functools
from collections.abc import Iterator

import grain
import numpy as np

from budgetflow.data.source import Split


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of one epoch: a permutation of ``range(num_examples)``, int32."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(num_examples).astype(np.int32)
    order.setflags(write=False)
    return order


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """The examples that update number ``step`` trains on, int32, [batch_size].

    Epochs follow each other without a gap, so a batch may hold the end of one and the start of the
    next, and every example is seen exactly once an epoch.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(position, num_examples)
    indices = np.empty(batch_size, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = epoch_order(seed, int(epoch), num_examples)[offsets[chosen]]
    return indices


def stream_batches(
    split: Split, seed: int, first_step: int, last_step: int, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of the updates ``first_step`` to ``last_step - 1``, read ahead by Grain.

    They are the batches that :func:`batch_indices` names, whatever the split is stored in.
    """

    def example(position: int) -> dict[str, np.ndarray]:
        epoch, offset = divmod(position, split.num_examples)
        return split.example(int(epoch_order(seed, epoch, split.num_examples)[offset]))

    examples = grain.MapDataset.range(first_step * batch_size, last_step * batch_size).map(example)
    options = grain.ReadOptions(num_threads=8, prefetch_buffer_size=4 * batch_size)
    return iter(examples.to_iter_dataset(options).batch(batch_size))


def stream_in_order(split: Split, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """A split's examples in stored order, in batches; the last one may be smaller."""
    examples = grain.MapDataset.range(split.num_examples).map(split.example)
    options = grain.ReadOptions(num_threads=8, prefetch_buffer_size=4 * batch_size)
    return iter(examples.to_iter_dataset(options).batch(batch_size))
