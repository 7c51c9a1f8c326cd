"""Times how fast batches are read: budgetflow beside a plain loop, Grain and tf.data.

    .venv/bin/pip install -e ".[bench]"
    .venv/bin/python scripts/bench_input.py [--training] [--json FILE]

Three sources: ``numpy``, 50,000 images of 32x32x3 that lie in memory; ``array_record``, the same
kind of images in a file of TFDS; ``png``, images of 128x128x3 that are decoded as they are read.
Batches of 256 in random order, each reader in turn for some seconds, so that whatever else the
machine does hits all of them; medians over the turns, and the median over turns of each one's
ratio to ``plain``: one record after the other, decoded and stacked in this process. ``tf.data``
only takes part where TensorFlow is installed. With --training: an MLP trained on the first source,
streamed and from memory.
"""

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import grain
import numpy as np
from absl import flags
from bench_sources import Arrays, make_source, random_images
from bench_train_loop import make_run

from budgetflow.config import default_config, parse_config
from budgetflow.engine.data.batches import batch_indices, stream_batches
from budgetflow.engine.data.read_ahead import readings
from budgetflow.engine.data.records import Split
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.training.mesh import make_mesh, trial_slices

BATCH_SIZE = 256
SOURCES = ("numpy", "array_record", "png")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def plain(source, transform):
    """One record after the other."""
    for indices in batch_indices(0, 0, 10**5, BATCH_SIZE, len(source)):
        records = [source[index] for index in indices.tolist()]
        records = [transform(record) for record in records] if transform else records
        yield {key: np.stack([record[key] for record in records]) for key in ("image", "label")}


def budgetflow(source, transform):
    """The batches of a streamed split, checked; and how they were read in the end."""
    split = Split("train", len(source), source, ("image", "label"), None, transform)
    rows = np.arange(BATCH_SIZE)
    while True:  # an epoch at a time, as a study reads from one evaluation to the next
        yield from stream_batches(split, 0, 0, -(-len(source) // BATCH_SIZE), BATCH_SIZE, rows)
        budgetflow.reading = readings([split])["train"]


def grain_loader(source, transform, workers=0):
    """Grain as its documentation writes it."""
    examples = grain.MapDataset.source(source).shuffle(seed=0).repeat()
    if transform:
        examples = examples.map(transform)
    batches = examples.to_iter_dataset().batch(BATCH_SIZE)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)


def grain_processes(source, transform):
    """Grain with a worker process for each core."""
    return grain_loader(source, transform, CORES)


def tf_data(source, transform):
    """tf.data over arrays, or over bytes that TensorFlow decodes; None for records in a file."""
    import tensorflow as tf

    if not isinstance(source, Arrays):
        return None
    labels = np.arange(len(source)) % 10
    examples = tf.data.Dataset.from_tensor_slices((source.images, labels))
    examples = examples.shuffle(len(source), seed=0).repeat()
    if transform:
        examples = examples.map(
            lambda image, label: (tf.io.decode_png(image), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return iter(examples.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE).as_numpy_iterator())


READERS = {
    "plain": plain,
    "budgetflow": budgetflow,
    "grain": grain_loader,
    "grain, processes": grain_processes,
    "tf.data": tf_data,
}


def rate(batches, seconds):
    """Examples a second."""
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        next(batches)
        count += BATCH_SIZE
    return count / spent


def summary(rates, base):
    """The median of each one's rates, and that of its ratios to ``base`` turn by turn."""
    return {
        name: {
            "examples_per_second": statistics.median(found),
            f"of_{base}": statistics.median(r / b for r, b in zip(found, rates[base], strict=True)),
        }
        for name, found in rates.items()
    }


def compare(source, transform, turns, seconds):
    """Each reader's figures on one source."""
    readers = {
        name: batches
        for name, reader in READERS.items()
        if (name != "tf.data" or importlib.util.find_spec("tensorflow"))
        and (batches := reader(source, transform)) is not None
    }
    for batches in readers.values():  # until all of them have started what they start
        rate(batches, 5 * seconds)
    rates = {name: [] for name in readers}
    for _ in range(turns):
        for name, batches in readers.items():
            rates[name].append(rate(batches, seconds))
    figures = summary(rates, "plain")
    figures["budgetflow"] |= budgetflow.reading
    return figures


def compare_training(examples, turns, seconds):
    """Examples/s of an MLP that is trained from memory and streamed."""
    source = Arrays(random_images(examples, 32))
    memory = {"inputs": source.images, "targets": np.arange(examples, dtype=np.int32) % 10}
    config = default_config("round")
    config.max_train_steps = 10**6
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    config.data.batch_size = BATCH_SIZE
    config.mesh.update({"trial": 1, "data": 1})
    config = parse_config(config)
    mesh = trial_slices(make_mesh(config.mesh))[0]
    runs = {}
    for name, arrays in (("memory", memory), ("streamed", None)):
        split = Split(name, examples, source, ("image", "label"), arrays)
        runs[name] = make_run(config, Dataset(split, split, None, 10, True), mesh)
        runs[name].train(20)
    start = time.perf_counter()
    runs["memory"].train(120)
    steps = max(20, int(100 * seconds / (time.perf_counter() - start)))
    rates = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run.train(run.step + steps)
            rates[name].append(steps * BATCH_SIZE / (time.perf_counter() - start))
    return summary(rates, "memory")


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="how often each reader has its turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a turn is")
    parser.add_argument("--examples", type=int, default=50_000, help="how many there are at most")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES, help="of what")
    parser.add_argument("--training", action="store_true", help="time training instead")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask for flags of its own
    timed = arguments.turns, arguments.seconds
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.training:
            results["training"] = compare_training(arguments.examples, *timed)
        else:
            for name in arguments.sources:
                source, transform = make_source(name, arguments.examples, folder)
                results[name] = compare(source, transform, *timed)
    print(f"{CORES} CPU cores, load {os.getloadavg()[0]:.1f}")
    for name, figures in results.items():
        for reader, found in figures.items():
            rest = "  ".join(f"{key} {value}" for key, value in list(found.items())[2:])
            speed, ratio = list(found.values())[:2]
            print(f"{name:12} {reader:16} {speed:10.0f} examples/s  {ratio:.3f}  {rest}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
