"""Arrays that several processes see, in memory that is free once the last of them lets it go."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from budgetflow.engine.data.records import Example

# Where arrays begin: as JAX wants them, to take them without a copy.
ALIGNMENT_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Shared:
    """Examples that other processes may write, while :func:`shared_examples` is open.

    Attributes:
        path: opens the memory.
        form: shape and type of one example's arrays.
        count: how many examples there is room for.
    """

    path: str
    form: Any
    count: int

    def examples(self) -> Example:
        """The examples, each array [count, ...]; the memory lasts as long as one of them."""
        with open(self.path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        offset = 0

        def array(one: Any) -> np.ndarray:
            nonlocal offset
            found = np.ndarray((self.count, *one.shape), one.dtype, memory, offset)
            offset += _room(found.nbytes)
            return found

        return jax.tree.map(array, self.form)


@contextlib.contextmanager
def shared_examples(form: Any, count: int) -> Iterator[Shared | None]:
    """Room for so many examples of a form; None where the system has no such memory.

    It has no name that a kill could leave behind. Who writes has to be done at the end: after it
    the path may be that of something else.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        yield None
        return
    room = sum(_room(count * one.size * one.dtype.itemsize) for one in jax.tree.leaves(form))
    handle = os.memfd_create("budgetflow")
    try:
        os.ftruncate(handle, room)
        yield Shared(f"/proc/{os.getpid()}/fd/{handle}", form, count)
    finally:
        os.close(handle)


def _room(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
