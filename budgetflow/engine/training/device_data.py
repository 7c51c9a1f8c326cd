"""The data of a study on its devices: put there once, and let go by whoever put it there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from budgetflow.engine.data.batches import stream_in_order
from budgetflow.engine.data.records import Example, Split
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.training.mesh import batch_sharding, local_rows, place, replicated


class Batches(NamedTuple):
    """Batches of one size as the compiled evaluation takes them, stacked; divided over a mesh.

    Attributes:
        data: the training set, whole on every device, where ``batches`` are numbers of its
            examples; else None.
        batches: int32, [number, size]; or the examples themselves, [number, size, ...].
        weights: float32, [number, size]: 0 for the padding of the last batch, else 1.
    """

    data: Example | None
    batches: Any
    weights: Any


class DeviceData:
    """The splits in memory of a data set, each placed on a trial's devices when first used.

    The training set lies there once, for training and for evaluation: whole on every device. Other
    splits are divided among the devices, in the batches that they are evaluated in. Of a streamed
    split nothing stays.

    Whoever makes one owns what it places, and ends that with :meth:`release`.

    Attributes:
        dataset: the data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._training_sets: dict[Mesh, Example] = {}
        self._batches: dict[tuple[Split, int, int, Mesh, bool], list[Batches]] = {}

    def training_set(self, mesh: Mesh) -> Example | None:
        """The training set on every device of a mesh; None where it is streamed."""
        if self.dataset.train.arrays is None:
            return None
        if mesh not in self._training_sets:
            arrays = resident_arrays(self.dataset.train)
            self._training_sets[mesh] = place(arrays, replicated(mesh))
        return self._training_sets[mesh]

    def batches(
        self, split: Split, size: int, count: int, mesh: Mesh, together: bool
    ) -> Iterable[Batches]:
        """The first examples of a split in batches of one size, by :func:`even_batch_size`.

        Args:
            split: the split.
            size: of a batch.
            count: how many examples.
            mesh: the devices to divide each batch among.
            together: whether batches in memory come all at once, for a loop on the device; else,
                and where they are streamed, one at a time.
        """
        if split.arrays is None:
            streamed = stream_in_order(split, size, count, local_rows(mesh, size))
            return (
                _placed(None, jax.tree.map(lambda a: a[None], batch), number, size, count, mesh)
                for number, batch in enumerate(streamed)
            )
        key = (split, size, count, mesh, together)
        if key not in self._batches:
            self._batches[key] = list(self._resident(*key))
        return self._batches[key]

    def _resident(
        self, split: Split, size: int, count: int, mesh: Mesh, together: bool
    ) -> Iterable[Batches]:
        arrays, data = split.arrays, None
        if split is self.dataset.train:
            data = self.training_set(mesh)
        rows = local_rows(mesh, size)
        numbers = np.arange(-(-count // size))
        for part in [numbers] if together else numbers[:, None]:
            chosen = ((part[:, None] * size + rows) % count).astype(np.int32)
            batches = chosen
            if data is None:
                batches = jax.tree.map(lambda array: array[chosen], arrays)  # noqa: B023
            yield _placed(data, batches, part[0], size, count, mesh)

    def release(self) -> None:
        """Frees the devices of all that was placed, whoever still refers to it."""
        placed = self._training_sets, self._batches
        self._training_sets, self._batches = {}, {}
        for array in jax.tree.leaves([list(each.values()) for each in placed]):
            array.delete()


def even_batch_size(batch_size: int, count: int, mesh: Mesh) -> int:
    """The size of batches of ``count`` examples: a multiple of the number of devices."""
    return -(-min(batch_size, count) // mesh.size) * mesh.size


def resident_arrays(split: Split) -> Example:
    """What the compiled step takes of a split in memory: examples, and what counts as fitted."""
    assert split.arrays is not None
    also = {} if split.fit_targets is None else {"fit_targets": split.fit_targets}
    return {**split.arrays, **also}


def _placed(
    data: Example | None, local: Any, first: int, size: int, count: int, mesh: Mesh
) -> Batches:
    """This process's rows of stacked batches on the mesh, from batch number ``first`` on."""
    rows = local_rows(mesh, size)
    numbers = first + np.arange(len(jax.tree.leaves(local)[0]))
    weights = (numbers[:, None] * size + rows < count).astype(np.float32)
    sharding = batch_sharding(mesh, leading_dimensions=1)
    return Batches(data, place(local, sharding), place(weights, sharding))
