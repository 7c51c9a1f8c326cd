"""Worker processes that read examples: one pool for all splits, each worker with its own copy.

They write into memory that they share with this process; a pipe would copy each batch five times,
one batch after the other. Grain's process prefetch was tried for whole batches as elements: it is
as fast, but starts processes for each split and each jump to another step, fails where absl's flags
have not been parsed, and leaves workers running and memory behind when this process is killed.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import functools
import io
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cloudpickle
import jax
import numpy as np

from budgetflow.base.errors import UserError
from budgetflow.base.life_cache import cached_for_its_life
from budgetflow.engine.data.records import Example, Split

# A split whose source holds more is not copied to every worker.
MOST_BYTES = 2**30
# The fewest examples that are worth handing to a worker.
LEAST_EXAMPLES = 16
# Where arrays begin in shared memory: as JAX wants them, to take them without a copy.
ALIGNMENT_BYTES = 64
# Held where what is made once might be made twice.
_LOCK = threading.Lock()
# This process's children while the pool works, to say how one died.
_CHILDREN: set[Any] = set()


def count() -> int:
    """How many workers there are: one for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read(split: Split, numbers: np.ndarray, seeds: tuple[int, int] | None) -> Example:
    """Like :meth:`budgetflow.engine.data.records.Split.examples`, divided over the workers.

    Raises:
        ConfigError: as there.
        UserError: a worker died.
    """
    with _LOCK:
        path, pool, form = _pickled(split), _pool(), _form(split)
    parts = np.array_split(numbers, min(count(), -(-len(numbers) // LEAST_EXAMPLES)))
    firsts = itertools.accumulate(map(len, parts), initial=0)
    futures: list[concurrent.futures.Future[Example | None]] = []
    with _shared_memory(form, len(numbers)) as memory:
        shared = None if memory is None else (memory, form, len(numbers))
        try:
            for part, first in zip(parts, firsts, strict=False):
                futures.append(pool.submit(_read, path, part, seeds, shared, first))
            _CHILDREN.update(multiprocessing.active_children())
            examples = [future.result() for future in futures]
            if shared is None:
                return jax.tree.map(lambda *arrays: np.concatenate(arrays), *examples)
            return _arrays_in(*shared)
        except BrokenProcessPool as error:
            ending = _ending()
            _pool.cache_clear()
            _CHILDREN.clear()
            raise UserError(
                f"{split.name}: a worker process that read it died{ending}; launched again, the "
                "study goes on from its last checkpoints"
            ) from error
        finally:
            # The memory must not be closed, and its path given to other memory, before.
            concurrent.futures.wait(futures)


@functools.lru_cache(maxsize=1)  # For all splits; its processes end with this one.
def _pool() -> concurrent.futures.ProcessPoolExecutor:
    # Not forked: JAX has threads.
    context = multiprocessing.get_context("spawn")
    # The pool must go before the modules that it needs for that.
    atexit.register(_pool.cache_clear)
    return concurrent.futures.ProcessPoolExecutor(count(), context, _initialize)


@cached_for_its_life
def _form(split: Split) -> Any:
    """The shapes and types of one example's arrays."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), split.example(0))


@cached_for_its_life
def _pickled(split: Split) -> str:
    """The path of a file with a copy of the split, which is deleted when the split is."""
    pickled = _LimitedFile(split.name)
    cloudpickle.dump(split, pickled)
    handle, path = tempfile.mkstemp(prefix="budgetflow-", suffix=".pkl")
    weakref.finalize(split, Path(path).unlink, missing_ok=True)
    with open(handle, "wb") as file:
        file.write(pickled.getbuffer())
    return path


class _LimitedFile(io.BytesIO):
    """A file in memory that refuses to grow beyond what is copied to every worker."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > MOST_BYTES:
            raise UserError(f"{self._name} holds more in memory than is copied to every worker")
        return super().write(data)


def _ending() -> str:
    """How a worker ended, as " (process 123, killed by SIGKILL)"; "" where it is not known."""
    # Not join: where the pool's thread joins it at this moment, that returns before it is known.
    until = time.monotonic() + 1
    while any(child.exitcode is None for child in _CHILDREN) and time.monotonic() < until:
        time.sleep(0.01)
    # The pool ended the others by SIGTERM.
    ended = [child for child in _CHILDREN if child.exitcode not in (None, 0, -signal.SIGTERM)]
    if not ended:
        return ""
    code = ended[0].exitcode
    cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f" (process {ended[0].pid}, {cause})"


@contextlib.contextmanager
def _shared_memory(form: Any, count: int) -> Iterator[str | None]:
    """The path of memory for so many examples of a form; None where the system has none.

    It has no name that a kill could leave behind. Who writes has to be done at the end: after it
    the path may be that of something else.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        yield None
        return
    handle = os.memfd_create("budgetflow")
    try:
        os.ftruncate(handle, sum(_room(count, one) for one in jax.tree.leaves(form)))
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _arrays_in(path: str, form: Any, count: int) -> Example:
    """The examples in shared memory, each array [count, ...]; it lasts as long as one of them."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    leaves, structure = jax.tree.flatten(form)
    offsets = itertools.accumulate((_room(count, one) for one in leaves), initial=0)
    arrays = [
        np.ndarray((count, *one.shape), one.dtype, memory, offset)
        for one, offset in zip(leaves, offsets, strict=False)
    ]
    return jax.tree.unflatten(structure, arrays)


def _room(count: int, one: Any) -> int:
    """The bytes of ``count`` arrays like ``one``, up to where the next ones begin."""
    return -(-count * one.size * one.dtype.itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _initialize() -> None:
    """In a worker, before it reads."""
    jax.config.update("jax_platforms", "cpu")  # the devices are the trainer's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's, too
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@functools.lru_cache(maxsize=4)  # The splits of a study and one more.
def _split(path: str) -> Split:
    """In a worker: its copy of a split."""
    with open(path, "rb") as file:
        return pickle.load(file)


def _read(
    path: str,
    numbers: np.ndarray,
    seeds: tuple[int, int] | None,
    shared: tuple[str, Any, int] | None,
    first: int,
) -> Example | None:
    """In a worker: reads some of a batch's examples, into the shared memory if there is one."""
    examples = _split(path).examples(numbers, seeds)
    if shared is None:
        return examples
    pairs = zip(jax.tree.leaves(_arrays_in(*shared)), jax.tree.leaves(examples), strict=True)
    for whole, own in pairs:
        whole[first : first + len(own)] = own
    return None
