"""Reading batches ahead: in threads where a source waits, in processes where it computes."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain
import jax
import numpy as np

from budgetflow.base.life_cache import cached_for_its_life
from budgetflow.engine.data import workers
from budgetflow.engine.data.records import Example, Split

# The numbers of a batch's examples, and the seeds of a random transform.
Request = tuple[np.ndarray, tuple[int, int] | None]
# An example that takes less is read when it is asked for: threads would only wait for each other.
CHEAP_SECONDS = 50e-6
# Batches that are read at the same time, of other sources.
BATCHES_AHEAD = 8
# Seconds of computing, all examples together, after which worker processes take over: about what
# starting them costs.
SECONDS_BEFORE_WORKERS = 4.0


@dataclasses.dataclass(eq=False)
class Reading:
    """How a split is read, and what that has cost so far.

    Attributes:
        seconds_per_example: how long one takes, by a short timing at the start.
        computed_seconds: what all that was read in this process has cost it.
        workers: how many worker processes read it; 0 for none.
        why_no_workers: what keeps them from being used, or None where they are.
    """

    seconds_per_example: float
    computed_seconds: float = 0.0
    workers: int = 0
    why_no_workers: str | None = "reading costs too little"
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def is_cheap(self) -> bool:
        """Whether an example is read faster than threads could be woken."""
        return self.seconds_per_example < CHEAP_SECONDS


@cached_for_its_life
def reading_of(split: Split) -> Reading:
    """How a split is read: the same object each time, timed at the first."""
    numbers = np.linspace(0, split.num_examples - 1, 24).astype(int)
    seconds = []
    for part in numbers.reshape(8, 3).T:
        start = time.perf_counter()
        split.examples(part)
        seconds.append((time.perf_counter() - start) / len(part))
    return Reading(min(seconds))


def read_ahead(
    split: Split, request: Callable[[int], Request], num_batches: int
) -> Iterator[Example]:
    """Batches in their order, read before they are asked for where the source is slow.

    Args:
        split: what to read.
        request: from a batch's number to its examples and seeds.
        num_batches: how many there are.
    """
    reading = reading_of(split)
    if reading.is_cheap:
        return (split.examples(*request(number)) for number in range(num_batches))
    batches = grain.MapDataset.range(num_batches).map(
        lambda number: _read(split, reading, *request(number))
    )
    options = grain.ReadOptions(num_threads=BATCHES_AHEAD, prefetch_buffer_size=BATCHES_AHEAD)
    return iter(batches.to_iter_dataset(options))


def readings(splits: Iterable[Split]) -> dict[str, dict[str, Any]]:
    """How the streamed ones of some splits have been read, by name; for ``timing.json``."""
    result = {}
    for split in splits:
        if split.arrays is None:
            reading = reading_of(split)
            result[split.name] = {
                "microseconds_per_example": 1e6 * reading.seconds_per_example,
                "batches_at_a_time": 1 if reading.is_cheap else BATCHES_AHEAD,
                "worker_processes": reading.workers,
                "why_no_workers": reading.why_no_workers,
            }
    return result


def _read(
    split: Split, reading: Reading, numbers: np.ndarray, seeds: tuple[int, int] | None
) -> Example:
    if reading.workers:
        return workers.read(split, numbers, seeds)
    start = time.thread_time()
    examples = split.examples(numbers, seeds)
    seconds = time.thread_time() - start
    with reading.lock:
        before = reading.computed_seconds
        reading.computed_seconds += seconds
        # Once, by the thread that passes the mark; the others read on meanwhile.
        is_time = before < SECONDS_BEFORE_WORKERS <= reading.computed_seconds
    if is_time and seconds > CHEAP_SECONDS * len(numbers):
        reading.why_no_workers = _why_no_workers(split, (numbers, seeds), examples)
        reading.workers = 0 if reading.why_no_workers else workers.count()
    return examples


def _why_no_workers(split: Split, request: Request, expected: Example) -> str | None:
    """What keeps worker processes from taking over; None if they read the same bits."""
    if workers.count() < 2:
        return "there is one core"
    try:
        examples = workers.read(split, *request)
    except Exception as error:  # whatever a user's source raises where it is pickled or read
        return f"{type(error).__name__}: {error}"
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), examples, expected)
    return None if all(jax.tree.leaves(same)) else "they read other values than this process"
