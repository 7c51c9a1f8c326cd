"""How a split is read: at once where that is cheap, ahead where it is not; always the same."""

import os
import threading
import time

import numpy as np
import pytest
from conftest import assert_identical

from budgetflow.engine.data import read_ahead, workers
from budgetflow.engine.data.batches import batch_indices, stream_batches, stream_in_order
from budgetflow.engine.data.records import Split

ROWS = np.asarray([0, 1, 5, 7])


class Slow:
    """Examples that take a tenth of a millisecond each."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        time.sleep(1e-4)
        return {"image": np.full((2, 2, 1), index, np.float32), "label": index % 3}


class OfThisProcess(Slow):
    """Examples that are not the same in another process."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "image": np.full((2, 2, 1), os.getpid(), np.int32)}


class Locked(Slow):
    """A source that cannot be handed to another process."""

    def __init__(self):
        self._lock = threading.Lock()


def noisy(record, rng):
    noise = 0 if rng is None else rng.normal()
    return {**record, "image": (record["image"] + noise).astype(np.float32)}


def split_of(source, transform=None):
    return Split(
        "config.data.train_split = 'train'", 60, source, ("image", "label"), None, transform
    )


@pytest.fixture
def at_once(monkeypatch):
    """Workers are started after the first batch, whatever it cost."""
    monkeypatch.setattr(read_ahead, "SECONDS_BEFORE_WORKERS", 1e-9)
    monkeypatch.setattr(read_ahead, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(workers, "count", lambda: 2)


def how(split):
    return read_ahead.readings([split])[split.name]


def expected_batches(split):
    """One example after the other, as batches were read before they were read together."""
    for step, indices in enumerate(batch_indices(4, 2, 32, 8, 60)[:, ROWS], start=2):
        rngs = [np.random.default_rng([4, step, index]) for index in indices.tolist()]
        examples = [split.example(int(i), rng) for i, rng in zip(indices, rngs, strict=True)]
        yield {name: np.stack([e[name] for e in examples]) for name in ("inputs", "targets")}


def assert_streams_as_expected(split):
    expected = list(expected_batches(split))
    assert_identical(list(stream_batches(split, 4, 2, 32, 8, ROWS)), expected)


def test_workers_take_over_from_threads_and_no_bit_changes(at_once):
    split = split_of(Slow(), noisy)
    assert_streams_as_expected(split)
    while how(split)["worker_processes"] == 0:  # they start while this process reads on
        time.sleep(0.1)
    assert how(split)["why_no_workers"] is None
    assert_streams_as_expected(split)
    in_order = np.concatenate([b["targets"] for b in stream_in_order(split, 7, 10, np.arange(7))])
    assert in_order.tolist() == [*(n % 3 for n in range(10)), *(n % 3 for n in range(4))]


@pytest.mark.parametrize(
    ("source", "reason"), [(OfThisProcess, "they read other values"), (Locked, "cannot pickle")]
)
def test_what_other_processes_cannot_read_alike_is_read_in_this_one(at_once, source, reason):
    split = split_of(source())
    for _ in range(600):
        assert_streams_as_expected(split)
        if reason in how(split)["why_no_workers"]:
            break
        time.sleep(0.1)
    assert reason in how(split)["why_no_workers"] and how(split)["worker_processes"] == 0
    assert_streams_as_expected(split)


def test_a_cheap_source_is_read_when_asked():
    arrays = {"image": np.zeros((60, 2), np.uint8), "label": np.arange(60)}
    split = split_of([{key: array[n] for key, array in arrays.items()} for n in range(60)])
    threads = threading.active_count()
    batches = stream_batches(split, 4, 2, 32, 8, ROWS)
    next(batches)
    assert threading.active_count() <= threads
    assert how(split)["batches_at_a_time"] == 1
    assert_streams_as_expected(split)


def test_a_source_that_waits_is_read_in_threads():
    split = split_of(Slow())
    assert how(split)["batches_at_a_time"] > 1
    assert how(split)["microseconds_per_example"] > 100
    assert how(split)["worker_processes"] == 0
    assert_streams_as_expected(split)
