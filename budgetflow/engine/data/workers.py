"""Worker processes that read examples: one pool for all splits, each worker with its own copy."""

from __future__ import annotations

import atexit
import concurrent.futures
import functools
import io
import itertools
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cloudpickle
import jax
import numpy as np

from budgetflow.base.errors import UserError
from budgetflow.base.life_cache import cached_for_its_life
from budgetflow.engine.data.records import Example, Split, concatenated
from budgetflow.engine.data.shared_memory import Shared, shared_examples

# A split whose source holds more is not copied to every worker.
MOST_BYTES = 2**30
# The fewest examples that are worth handing to a worker.
LEAST_EXAMPLES = 16
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
        path, pool, form = _stored(split), _pool(), _form(split)
    parts = np.array_split(numbers, min(count(), -(-len(numbers) // LEAST_EXAMPLES)))
    firsts = itertools.accumulate(map(len, parts), initial=0)
    futures: list[concurrent.futures.Future[Example | None]] = []
    with shared_examples(form, len(numbers)) as shared:
        try:
            for part, first in zip(parts, firsts, strict=False):
                futures.append(pool.submit(_read, path, part, seeds, shared, first))
            _CHILDREN.update(multiprocessing.active_children())
            found = [examples for future in futures if (examples := future.result()) is not None]
            return concatenated(found) if shared is None else shared.examples()
        except BrokenProcessPool as error:
            how = _how()
            _pool.cache_clear()
            _CHILDREN.clear()
            raise UserError(
                f"{split.name}: a worker process that read it died{how}; launched again, the study "
                "goes on from its last checkpoints"
            ) from error
        finally:
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
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), split.read(0))


@cached_for_its_life
def _stored(split: Split) -> str:
    """The path of a file with the split for the workers."""
    file = _Limited(split.name)
    cloudpickle.dump(split, file)
    handle, path = tempfile.mkstemp(suffix=".pkl", dir=_folder())
    with open(handle, "wb") as stored:
        stored.write(file.getbuffer())
    return path


@functools.lru_cache(maxsize=1)  # Removed when this process ends.
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="budgetflow-")
    atexit.register(folder.cleanup)
    return folder.name


class _Limited(io.BytesIO):
    """A file in memory that refuses to grow beyond what is copied to every worker."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > MOST_BYTES:
            raise UserError(f"{self._name} holds more in memory than is copied to every worker")
        return super().write(data)


def _how() -> str:
    """How a worker ended, as " (process 123, killed by SIGKILL)"; "" where it is not known."""
    # Not join: where the pool's thread joins it at this moment, that returns before it is known.
    until = time.monotonic() + 1
    while any(child.exitcode is None for child in _CHILDREN) and time.monotonic() < until:
        time.sleep(0.01)
    # The pool ended the others by SIGTERM.
    ended = [w for w in _CHILDREN if w.exitcode not in (None, 0, -signal.SIGTERM)]
    if not ended:
        return ""
    code = ended[0].exitcode
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f" (process {ended[0].pid}, {how})"


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


@functools.lru_cache(maxsize=64)  # For as long as the worker lives.
def _split(path: str) -> Split:
    """In a worker: its copy of a split."""
    with open(path, "rb") as file:
        return pickle.load(file)


def _read(
    path: str,
    numbers: np.ndarray,
    seeds: tuple[int, int] | None,
    shared: Shared | None,
    first: int,
) -> Example | None:
    """In a worker: reads some of a batch's examples, into the memory that is shared if there is.

    A pipe would copy them five times, one batch after the other.
    """
    examples = _split(path).examples(numbers, seeds)
    if shared is None:
        return examples
    for all_of_them, own in zip(
        jax.tree.leaves(shared.examples()), jax.tree.leaves(examples), strict=True
    ):
        all_of_them[first : first + len(own)] = own
    return None
