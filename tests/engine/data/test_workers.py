"""Worker processes read what this process would read, bit for bit, and say how one died."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_identical

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.engine.data import workers
from budgetflow.engine.data.records import Split


class Images:
    """Images that are computed; some indices do what the name of the source says."""

    def __init__(self, deadly=None, odd=None):
        self._deadly, self._odd = deadly, odd

    def __len__(self):
        return 100

    def __getitem__(self, index):
        if index == self._deadly and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        image = np.random.default_rng(index).integers(0, 256, (4, 4, 1)).astype(np.uint8)
        return {"image": image, "label": 0.5 if index == self._odd else index % 7}


def noisy(record, rng):
    noise = 0 if rng is None else rng.normal(size=record["image"].shape)
    return {**record, "image": (record["image"] + noise).astype(np.float32)}


def split_of(source, transform=None):
    return Split(
        "config.data.train_split = 'train'", 100, source, ("image", "label"), None, transform
    )


def open_files():
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_workers_reads_the_same_bits(monkeypatch, count):
    split = split_of(Images(), noisy)
    numbers = np.random.default_rng(0).permutation(100)[:67]
    monkeypatch.setattr(workers, "count", lambda: count)
    for seeds in (None, (3, 14)):
        expected = split.examples(numbers, seeds)
        assert_identical(workers.read(split, numbers, seeds), expected)
    # The transform's randomness is there, and is the example's own.
    assert (split.examples(numbers[:1], (3, 15))["inputs"] != expected["inputs"][:1]).any()


def test_several_inputs_of_any_type_lie_side_by_side():
    def several(record):
        image = record["image"]
        odd = {"one": image.ravel()[:3] > 9, "two": np.float16(image[0, 0, 0]), "three": image}
        return odd, record["label"]

    split = split_of(Images(), several)
    first, second = (workers.read(split, np.arange(n, n + 50), None) for n in (0, 50))
    second["inputs"]["three"][:] = 0  # each batch has memory of its own
    assert_identical(first, split.examples(np.arange(50)))


def test_where_no_memory_is_shared_a_pipe_does(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    split = split_of(Images(), noisy)
    expected = split.examples(np.arange(100), (0, 1))
    assert_identical(workers.read(split, np.arange(100), (0, 1)), expected)


def test_an_odd_record_is_named_from_a_worker():
    workers.read(split_of(Images()), np.arange(100), None)
    before = open_files()
    with pytest.raises(ConfigError, match="'train': example 41 holds targets float32") as caught:
        workers.read(split_of(Images(odd=41)), np.arange(100), None)
    assert "\n" not in str(caught.value)
    assert open_files() == before


def test_a_worker_that_dies_is_named_and_others_can_be_started():
    with pytest.raises(
        UserError, match=r"'train': a worker.*\(process \d+, killed by SIGKILL\)"
    ) as e:
        workers.read(split_of(Images(deadly=41)), np.arange(100), None)
    assert "\n" not in str(e.value)
    split = split_of(Images())
    assert_identical(workers.read(split, np.arange(9), None), split.examples(np.arange(9)))


def test_a_source_that_holds_much_is_not_copied(monkeypatch):
    monkeypatch.setattr(workers, "MOST_BYTES", 1000)
    large = [{"image": np.zeros(1000), "label": 0}] * 100
    with pytest.raises(UserError, match="'train' holds more in memory"):
        workers.read(split_of(large), np.arange(9), None)


PROGRAM = """
import multiprocessing, time
import numpy as np
from budgetflow.engine.data import workers
from budgetflow.engine.data.records import Split

records = [{"image": np.zeros(3), "label": 0}] * 40
workers.read(Split("train", 40, records, ("image", "label")), np.arange(40), None)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def is_running(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z" not in stat.read_text()


def test_a_process_with_workers_ends_without_a_word():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == ""
    assert not any(map(is_running, map(int, result.stdout.split())))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_a_process_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", f"{PROGRAM}\ntime.sleep(60)"], stdout=subprocess.PIPE
    ) as process:
        pids = process.stdout.readline().split()
        assert pids and all(map(is_running, map(int, pids)))
        process.kill()
    for _ in range(300):
        if not any(map(is_running, map(int, pids))):
            return
        time.sleep(0.1)
    pytest.fail("workers go on without the process that started them")
